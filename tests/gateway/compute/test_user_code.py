"""User code in the root that portico-init makes, inside our sandbox: what root in there can and cannot do."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from portico_gateway.compute.environment import Placement, RunSpec
from portico_gateway.compute.local.confinement import Confinement
from portico_gateway.compute.local.local_compute import LocalCompute
from portico_gateway.settings import Settings
from support.sandboxes import inside, run, run_spec, until

pytestmark = pytest.mark.root

Start = Callable[..., Awaitable[tuple[RunSpec, Placement]]]
FIRST_PROCESS = """
import os, sys, time
sys.path.insert(0, "/opt/portico/agent/src")
from portico_agent.init.spawn import Program, make_root, start_user_program
from portico_agent.overlay.root import Bind, RootSpec
place = "/portico/volume/current"
for name in (f"{place}/upper", f"{place}/work", "/portico/volume/tmp", "/run/portico/state/root"):
    os.makedirs(name)
lower = tuple(os.environ.get("PORTICO_LOWER", "/").split(":"))
shown = tuple(Bind(source=name, target=name) for name in ("/opt/portico/python", "/opt/portico/tools"))
root = make_root(RootSpec(kind="overlay", staging="/run/portico/state/root", lower=lower, upper=f"{place}/upper",
    work=f"{place}/work", tmp="/portico/volume/tmp", binds=shown, hide=("/run/portico",)), sandboxed=True)
output = os.open("/portico/volume/said", os.O_CREAT | os.O_WRONLY)
program = Program(argv=["/bin/sh", "-c", os.environ["SCRIPT"]], env={"PATH": os.environ["PATH"], "HOME": "/root"})
os.waitpid(start_user_program(program, root, output, die_with_us=False), 0)
os.rename("/portico/volume/said", "/portico/volume/done")
time.sleep(1000)
"""
PYTHON = "/opt/portico/python/bin/python3"

ALLOWED = {
    "it is root": "test $(id -u) = 0",
    "it sees a home of its own": "test $HOME = /root && touch /root/file",
    "it changes programs of its root": "touch /usr/bin/new && rm /usr/bin/env && ! test -e /usr/bin/env",
    "it writes to its temporary folder": "touch /tmp/x /var/tmp/x",
    "it asks the package manager": "dpkg -s bash || rpm -q bash || true",
    "it runs the shown interpreter": f"{PYTHON} -I -c 'import ssl, sqlite3'",
    "it opens a terminal": f"{PYTHON} -I -c 'import pty; pty.openpty()'",
    "it becomes another user": f"{PYTHON} -I -c 'import os; os.setuid(65534)'",
}
REFUSED = {
    "core_pattern, a program run by the kernel": "test -w /proc/sys/kernel/core_pattern",
    "the kernel's trigger": "test -w /proc/sysrq-trigger",
    "the kernel's memory": "test -s /proc/kcore",
    "a mount": "mount -t tmpfs none /mnt",
    "every device of the machine": "mount -t devtmpfs none /mnt",
    "a device made by hand": "mknod /tmp/disk b 254 0",
    "a disk": "ls /dev/vda /dev/sda /dev/nvme0n1 /dev/loop0 | grep .",
    "another mount namespace": "unshare --mount true",
    "the first process' root": "ls /proc/1/root/portico",
    "the first process' environment": "grep -q PORTICO /proc/1/environ",
    "the first process' namespaces": "nsenter --target 1 --mount true",
    "the volume itself": "ls /portico/volume/current",
    "the gateway's socket": "ls /run/portico/gateway",
    "the agent's code and packages": "ls /opt/portico/agent/src",
    "tools, to change them": "touch /opt/portico/tools/x",
    "the interpreter, to change it": "touch /opt/portico/python/x",
    "the network's settings": "ip link set eth0 down",
    "raw packets": f"{PYTHON} -I -c 'import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)'",
    "the machine's clock": "date -s @1000000000",
    "the kernel's log": "dmesg",
}


async def say(data: Path, confinement: Confinement, attempts: dict[str, str]) -> dict[str, bool]:
    """What came of each attempt, by name."""
    script = "\n".join(
        f"if ( {attempt} ) </dev/null >/dev/null 2>&1; then echo 'yes {name}'; else echo 'no {name}'; fi"
        for name, attempt in ((name.replace("'", ""), attempt) for name, attempt in attempts.items())
    )
    command = (PYTHON, "-I", "-c", FIRST_PROCESS)
    compute = LocalCompute(Settings(data=data), confinement, command=command)
    spec = run_spec(environment={"SCRIPT": script})
    placement = await compute.start(spec)
    try:
        done = await until(lambda: inside(placement["pid"], "test -e /portico/volume/done").returncode == 0)
        assert done, (data / "runs" / spec.run_id / "agent.log").read_text()
        lines = inside(placement["pid"], "cat /portico/volume/done").stdout.splitlines()
    finally:
        await compute.kill(spec.run_id, placement)
    return {line.partition(" ")[2]: line.startswith("yes") for line in lines}


async def test_root_in_a_studio_is_root_over_its_own_root_alone(data: Path, confinement: Confinement) -> None:
    assert run("test", "-w", "/proc/sys/kernel/core_pattern").returncode == 0, "here, the attempt gets through"
    said = await say(data, confinement, {**ALLOWED, **REFUSED})
    assert {name for name, worked in said.items() if worked} == set(ALLOWED)
    assert len(said) == len(ALLOWED) + len(REFUSED)


async def test_the_tools_root_is_made_from_the_layers_where_overlays_would_stack_too_deep(
    data: Path, confinement: Confinement
) -> None:
    layered = Confinement(confinement.mode, confinement.network, confinement.images, layered=True)
    hidden = {"our data": f"ls -d {data}", "password hashes": "grep -v ':[*]:' /etc/shadow", "homes": "ls /home/*"}
    lower = {"the layers": "ls /run/portico/lower", "the host's root": "ls /run/portico/lower/host/root"}
    said = await say(data, layered, {**ALLOWED, **hidden, **lower})
    assert {name for name, worked in said.items() if worked} == set(ALLOWED)
