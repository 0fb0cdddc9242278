"""portico-init as PID 1 of real namespaces, the tool in an overlay root of its own."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from support.studio_init import alive, studio_init

INTERPRETER = str(Path(sys.executable).resolve())
"""Not the environment's link to it: that may lie in /tmp, of which a studio has its own."""
pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root: namespaces, mounts")]

SYSTEM_PATH = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}


DEVICES = "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero"


def shell(text: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", text)


async def test_changes_land_in_the_upper_and_the_image_root_stays():
    async with studio_init(namespaced=True) as init:
        puppet = await init.agent()
        built = await puppet.ask("mount", root=init.overlay_root())
        assert built["ok"], built
        marker = f"/portico-test-{os.getpid()}"
        code, said = await puppet.run(*shell(f"echo hello > {marker} && cat {marker}"), root_env=SYSTEM_PATH)
        assert (code, said) == (0, "hello\n")
        assert not Path(marker).exists()
        upper = Path(f"/proc/{init.pid}/root{init.volume}/current/upper{marker}")
        assert upper.read_text() == "hello\n"


async def test_second_program_joins_the_same_root():
    async with studio_init(namespaced=True) as init:
        puppet = await init.agent()
        await puppet.ask("mount", root=init.overlay_root())
        await puppet.run(*shell("echo kept > /run/mark; rm /etc/debian_version"), root_env=SYSTEM_PATH)
        again = await puppet.ask("mount", root=init.overlay_root())
        assert again["built"]["kind"] == "overlay"
        code, said = await puppet.run(*shell("cat /run/mark; ls /etc/debian_version 2>/dev/null"), root_env=SYSTEM_PATH)
        assert said == "kept\n" and code != 0
        assert Path("/etc/debian_version").exists()


async def test_root_has_fresh_proc_read_only_sys_minimal_dev_and_a_tmp():
    async with studio_init(namespaced=True) as init:
        puppet = await init.agent()
        await puppet.ask("mount", root=init.overlay_root())
        checks = (
            "test -d /proc/1 && ! echo x > /proc/sys/kernel/core_pattern",
            "! echo x > /sys/kernel/mm/transparent_hugepage/enabled",
            "! echo h > /proc/sysrq-trigger",
            "test ! -s /proc/kcore",
            f"test \"$(ls /dev | tr '\\n' ' ')\" = '{DEVICES} '",
            "python3 -c 'import pty; m, s = pty.openpty()'",
            "echo x > /tmp/mine && echo x > /dev/shm/mine && test $(stat -c %a /tmp) = 1777",
            "test -d /workspace && test -d /root",
            "! mknod /tmp/disk b 8 0",
            "! mount -t tmpfs tmpfs /mnt",
            "! umount /proc/sys",
        )
        for check in checks:
            code, said = await puppet.run(
                *shell(check), root_env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
            )
            assert code == 0, (check, said)


async def test_outer_mounts_and_hidden_folders_are_not_there():
    async with studio_init(namespaced=True) as init:
        puppet = await init.agent()
        await puppet.ask("mount", root=init.overlay_root(hide=["/usr/share/doc"]))
        code, _ = await puppet.run(*shell(f'test -z "$(ls {init.volume})$(ls /usr/share/doc)"'), root_env=SYSTEM_PATH)
        assert code == 0


async def test_binds_are_read_only_and_files_are_put_in_place():
    async with studio_init(namespaced=True) as init:
        puppet = await init.agent()
        (init.folder / "gift").mkdir()
        (init.folder / "gift/inside").write_text("gift")
        (init.folder / "names").write_text("nameserver 192.0.2.1\n")
        root = init.overlay_root(
            binds=[{"source": str(init.folder / "gift"), "target": "/opt/portico/tools"}],
            files=[{"source": str(init.folder / "names"), "target": "/etc/resolv.conf"}],
        )
        assert (await puppet.ask("mount", root=root))["ok"]
        code, said = await puppet.run(
            *shell("cat /opt/portico/tools/inside /etc/resolv.conf; touch /opt/portico/tools/x"), root_env=SYSTEM_PATH
        )
        assert code != 0 and said.startswith("giftnameserver 192.0.2.1\n") and "Read-only" in said


async def test_links_in_the_upper_do_not_lead_our_mounts_astray():
    """A studio may leave a link where we mount or make folders next time."""
    async with studio_init(namespaced=True) as init:
        puppet = await init.agent()
        outside = init.folder / "outside"
        outside.mkdir()
        upper = Path(f"/proc/{init.pid}/root{init.volume}/current/upper")
        (upper / "opt").symlink_to(outside)
        (upper / "workspace").symlink_to(outside / "made")
        (init.folder / "gift").mkdir()
        root = init.overlay_root(binds=[{"source": str(init.folder / "gift"), "target": "/opt/portico/tools"}])
        assert (await puppet.ask("mount", root=root))["ok"]
        assert list(outside.iterdir()) == []
        code, _ = await puppet.run(*shell("test -d /opt/portico/tools && test ! -L /opt"), root_env=SYSTEM_PATH)
        assert code == 0


PEEK = "\n".join(
    [
        "import sys",
        "pid, read = sys.argv[1], []",
        "import os",
        "for name, look in {",
        "    'environ': lambda: open(f'/proc/{pid}/environ', 'rb').read(),",
        "    'maps': lambda: open(f'/proc/{pid}/maps').read(),",
        "    'root': lambda: os.listdir(f'/proc/{pid}/root/'),",
        "    'fds': lambda: [os.stat(f'/proc/{pid}/fd/{n}') for n in os.listdir(f'/proc/{pid}/fd')],",
        "    'mem': lambda: open(f'/proc/{pid}/mem', 'rb'),",
        "}.items():",
        "    try: look()",
        "    except OSError: continue",
        "    read.append(name)",
        "print(' '.join(read))",
    ]
)


@pytest.mark.parametrize("victim", ["agent", "init"])
async def test_user_code_cannot_read_the_agent_or_init(victim: str):
    """First that a root with all capabilities can (so the looking works), then that user code cannot."""
    async with studio_init(namespaced=True) as init:
        puppet = await init.agent()
        await puppet.ask("mount", root=init.overlay_root())
        pid = str(puppet.hello["pid"]) if victim == "agent" else "1"
        with_all = await _in_namespaces(init.pid, sys.executable, "-c", PEEK, pid)
        assert with_all == "environ maps root fds mem"
        code, said = await puppet.run(INTERPRETER, "-c", PEEK, pid, root_env=SYSTEM_PATH)
        assert (code, said.strip()) == (0, "")


async def _in_namespaces(pid: int, *argv: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *("nsenter", "--target", str(pid), "--mount", "--pid", "--"), *argv, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    return out.decode().strip()


async def test_capabilities_stay_dropped_for_programs_that_become_root():
    async with studio_init(namespaced=True) as init:
        puppet = await init.agent()
        await puppet.ask("mount", root=init.overlay_root())
        _, said = await puppet.run(*shell("grep -E 'Cap(Eff|Bnd)' /proc/self/status"), root_env=SYSTEM_PATH)
        masks = {line.split()[0]: int(line.split()[1], 16) for line in said.splitlines()}
        wanted = {0, 1, 3, 4, 5, 6, 7, 8, 10, 18, 29, 31}
        assert masks["CapEff:"] == masks["CapBnd:"] == sum(1 << number for number in wanted)
        status = "import ctypes; print(ctypes.CDLL(None).prctl(39, 0, 0, 0, 0))"
        assert (await puppet.run(INTERPRETER, "-c", status))[1] == "0\n", "set-user-id programs must work: apt, sudo"


async def test_everything_ends_with_pid_1():
    async with studio_init(namespaced=True) as init:
        puppet = await init.agent()
        await puppet.ask("mount", root=init.overlay_root())
        await puppet.ask("spawn", role="tool", argv=["sleep", "601"], env=SYSTEM_PATH)
        children = [int(p) for p in Path(f"/proc/{init.pid}/task/{init.pid}/children").read_text().split()]
        assert len(children) == 2
        init.send(signal.SIGKILL)
        await init.exit_code()
        assert not any(alive(pid) for pid in children)


async def test_orphans_are_reaped():
    async with studio_init(namespaced=True) as init:
        puppet = await init.agent()
        await puppet.ask("mount", root=init.overlay_root())
        await puppet.run(*shell("(sleep 0.05 &) ; true"), root_env=SYSTEM_PATH)
        for _ in range(3):
            await puppet.run("sleep", "0.1", root_env=SYSTEM_PATH)
        children = Path(f"/proc/{init.pid}/task/{init.pid}/children").read_text().split()
        assert [int(pid) for pid in children] == [puppet.pid]
