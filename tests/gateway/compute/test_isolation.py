"""From inside a studio: what must not be reached. Each is first shown to be there, so that a miss means a wall."""

import contextlib
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import psutil
import pytest

import portico_gateway
from portico_gateway.compute.environment import Placement, RunSpec
from support.sandboxes import background, inside, namespace, reaches, run, until

pytestmark = pytest.mark.root

Start = Callable[..., Awaitable[tuple[RunSpec, Placement]]]
SERVE = (f"{sys.base_prefix}/bin/python3", "-m", "http.server")
SECRET = "a-secret-of-this-machine-4711"


@contextlib.contextmanager
def listening(address: str) -> Iterator[int]:
    with socket.create_server((address, 0)) as server:
        yield server.getsockname()[1]


@contextlib.contextmanager
def secret_file(folder: str) -> Iterator[Path]:
    with tempfile.NamedTemporaryFile("w", dir=folder, prefix="portico-test-secret-") as file:
        file.write(SECRET)
        file.flush()
        yield Path(file.name)


def own_address() -> str:
    for addresses in psutil.net_if_addrs().values():
        for address in addresses:
            if address.family == socket.AF_INET and not address.address.startswith(("127.", "198.18.")):
                return address.address
    pytest.skip("this machine has no address but loopback")


async def test_password_hashes_are_replaced_by_none(start: Start) -> None:
    _, placement = await start()
    here = Path("/etc/shadow").read_text()
    there = inside(placement["pid"], "cat /etc/shadow")
    assert here.count(":") > 8
    assert there.stdout != here
    assert {line.split(":")[1] for line in there.stdout.splitlines()} == {"*"}
    assert inside(placement["pid"], "cat /etc/shadow- /etc/gshadow-").returncode != 0


async def test_files_that_others_may_not_read_are_gone_from_the_machines_folders(start: Start) -> None:
    with tempfile.TemporaryDirectory(dir="/opt", prefix="portico-test-") as folder:
        Path(folder).chmod(0o755)
        private, public = Path(folder, "private"), Path(folder, "public")
        for file, mode in ((private, 0o640), (public, 0o644)):
            file.write_text(SECRET)
            file.chmod(mode)
        _, placement = await start()
        assert inside(placement["pid"], f"cat {public}").stdout == SECRET
        assert private.read_text() == SECRET
        assert inside(placement["pid"], f"cat {private}").returncode != 0


@pytest.mark.parametrize("folder", ["/root", "/home", "/srv", "/var/tmp", "/tmp", "/mnt", "/var/log"])
async def test_a_file_in_a_private_folder_is_not_there(start: Start, folder: str) -> None:
    with secret_file(folder) as file:
        _, placement = await start()
        assert file.read_text() == SECRET
        assert inside(placement["pid"], f"test -d {folder}").returncode == 0
        assert inside(placement["pid"], f"cat {file}").returncode != 0


async def test_our_code_and_data_are_not_there_even_below_a_shown_folder(start: Start, data: Path) -> None:
    (data / "portico.db").write_text(SECRET)
    _, placement = await start()
    code = Path(portico_gateway.__path__[0])
    assert code.is_dir()
    assert str(data).startswith("/opt/")
    assert inside(placement["pid"], "ls /opt").stdout.split() == sorted(
        {entry.name for entry in Path("/opt").iterdir()} - {data.name} | {"portico"}
    )
    for hidden in (code, data, data / "portico.db", Path(sys.prefix)):
        assert hidden.exists()
        assert inside(placement["pid"], f"ls -d {hidden}").returncode != 0


async def test_what_is_shown_cannot_be_written(start: Start) -> None:
    _, placement = await start()
    for folder in ("/usr", "/etc", "/", "/opt/portico/python", "/opt/portico/agent", "/opt/portico/tools", "/sys"):
        assert "Read-only" in inside(placement["pid"], f"touch {folder}/portico-test").stderr, folder
    assert inside(placement["pid"], "touch /portico/volume/x /tmp/x /run/portico/state/x").returncode == 0


async def test_processes_of_this_machine_are_not_seen(start: Start) -> None:
    with background("/bin/sleep", "1234.5"):
        _, placement = await start()
        find = "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"
        assert "sleep 1234.5" in run("/bin/sh", "-c", find).stdout
        assert "sleep 1234.5" not in inside(placement["pid"], find).stdout
        assert int(inside(placement["pid"], "ls /proc | grep -c '^[0-9]'").stdout) <= 5


async def test_ports_of_this_machine_cannot_be_reached_on_any_address(start: Start) -> None:
    _, placement = await start()
    pid = placement["pid"]
    link = psutil.net_if_addrs()[placement["link"]][0].address
    with listening("127.0.0.1") as private, listening("0.0.0.0") as public:
        for address, port in (("127.0.0.1", private), (own_address(), public), (link, public)):
            assert reaches(None, address, port), address
            assert not reaches(pid, address, port), address
        run("nft", "flush", "chain", "inet", f"portico_{placement['link'][2:8]}", "input")
        assert reaches(pid, link, public), "without our table the same attempt gets through"


async def test_another_studios_port_cannot_be_reached(start: Start) -> None:
    _, first = await start()
    _, second = await start()
    address = inside(second["pid"], "ip -4 -o addr show eth0").stdout.split()[3].split("/")[0]
    with background("nsenter", "--target", str(second["pid"]), "--net", *SERVE, "8899"):
        assert await until(lambda: reaches(second["pid"], address, 8899))
        assert not reaches(first["pid"], address, 8899)
        assert not reaches(None, address, 8899), "nor does anyone on this machine dial into a studio"
        for chain in ("forward", "output", "input"):
            run("nft", "flush", "chain", "inet", f"portico_{first['link'][2:8]}", chain)
        assert reaches(first["pid"], address, 8899), "without our table the same attempt gets through"
        assert reaches(None, address, 8899)


async def test_the_world_is_reached_but_not_the_clouds_metadata(start: Start) -> None:
    """'The world' is a network namespace behind a link of its own, with an address of each kind."""
    _, placement = await start()
    with background("unshare", "--net", "/bin/sleep", "1000") as world:
        assert await until(lambda: namespace(world, "net") != namespace("self", "net"))
        enter = ("nsenter", "--target", str(world), "--net")
        run("ip", "link", "add", "ptworld", "type", "veth", "peer", "name", "eth0", "netns", str(world))
        run("ip", "addr", "add", "203.0.113.1/30", "dev", "ptworld")
        run("ip", "link", "set", "ptworld", "up")
        for address in ("203.0.113.2/30", "169.254.169.254/32"):
            run(*enter, "ip", "addr", "add", address, "dev", "eth0")
        run(*enter, "ip", "link", "set", "eth0", "up")
        run("ip", "route", "add", "169.254.169.254/32", "via", "203.0.113.2")
        with background(*enter, *SERVE, "80"):
            assert await until(lambda: reaches(None, "203.0.113.2", 80))
            assert reaches(placement["pid"], "203.0.113.2", 80), "out there nobody knows 198.18.0.0: translated"
            assert reaches(None, "169.254.169.254", 80)
            assert not reaches(placement["pid"], "169.254.169.254", 80)
    assert await until(lambda: not Path("/sys/class/net/ptworld").exists())


async def test_sockets_of_the_gateway_are_not_there_but_the_public_one(start: Start, data: Path) -> None:
    (data / "run" / "public").mkdir(parents=True, exist_ok=True)
    places = [data / "run" / "control.sock", data / "run" / "public" / "edge.sock"]
    abstract = "\0portico-test-abstract"
    with contextlib.ExitStack() as stack:
        for place in (*places, abstract):
            server = stack.enter_context(socket.socket(socket.AF_UNIX))
            server.bind(str(place))
            server.listen()
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(place))
        _, placement = await start()
        code = 'import socket, sys; socket.socket(1).connect(sys.argv[1].replace("@", chr(0)))'
        dial = f"/opt/portico/python/bin/python3 -I -c '{code}'"
        assert inside(placement["pid"], f"{dial} /run/portico/gateway/edge.sock").returncode == 0
        for name in (*places, "@portico-test-abstract"):
            assert inside(placement["pid"], f"{dial} {name}").returncode != 0
        assert inside(placement["pid"], "ls /run/portico/gateway").stdout.split() == ["edge.sock"]


async def test_the_first_process_holds_no_right_over_the_machine(start: Start) -> None:
    _, placement = await start()
    status = Path(f"/proc/{placement['pid']}/status").read_text()
    held = {
        name: int(value, 16)
        for name, _, value in (line.partition(":\t") for line in status.splitlines())
        if name in ("CapBnd", "CapEff")
    }
    for name, number in {
        "SYS_MODULE": 16,
        "SYS_RAWIO": 17,
        "SYS_BOOT": 22,
        "SYS_TIME": 25,
        "NET_ADMIN": 12,
        "NET_RAW": 13,
        "SYSLOG": 34,
        "BPF": 39,
    }.items():
        assert not held["CapBnd"] >> number & 1, name
        assert not held["CapEff"] >> number & 1, name


@pytest.mark.parametrize("hierarchy", ["devices", "unified", "."])
async def test_a_disk_of_this_machine_cannot_be_opened(start: Start, hierarchy: str) -> None:
    """Not even by someone with all rights in there: the device group of version 1, the filter of version 2."""
    spec, _ = await start()
    groups = list(Path("/sys/fs/cgroup", hierarchy).glob(f"portico/*/{spec.run_id}"))
    if not groups:
        pytest.skip("this machine has no such control groups")
    disk = next(
        Path("/dev", block.name)
        for block in Path("/sys/block").iterdir()
        if Path("/dev", block.name).exists() and (block / "size").read_text().strip() != "0"
    )
    assert run("head", "-c", "1", str(disk)).returncode == 0
    for device, opens in (("/dev/full", True), ("/dev/null", True), (disk, False), ("/dev/kmsg", False)):
        done = run("/bin/sh", "-c", f"echo $$ > {groups[0]}/cgroup.procs && exec 3< {device}")
        assert (done.returncode == 0) == opens, f"{device}: {done.stderr}"
        assert opens or "not permitted" in done.stderr


async def test_names_are_its_own(start: Start) -> None:
    spec, placement = await start()
    assert inside(placement["pid"], "hostname").stdout.strip() == f"a{spec.session_id}"
    assert inside(placement["pid"], "cat /etc/machine-id").stdout == ""
    assert socket.gethostname() not in inside(placement["pid"], "cat /etc/hosts").stdout.split()
