"""Small parts of local compute: who a process is, where control groups are, which interpreter is shown."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from portico_gateway.compute.attach import AttachCompute
from portico_gateway.compute.choice import open_compute
from portico_gateway.compute.local import cgroups, processes, python_home
from portico_gateway.compute.local.boot_plan import BootPlan, NetworkPlan
from portico_gateway.compute.local.local_compute import LocalCompute
from portico_gateway.compute.local.processes import ProcessIdentity
from portico_gateway.errors import BadRequest
from portico_gateway.settings import Settings


def test_a_process_is_known_by_more_than_its_number() -> None:
    me = processes.identify(os.getpid())
    assert me is not None
    assert processes.is_alive(me)
    for other in (
        ProcessIdentity(me.pid, me.started + 1, me.boot),
        ProcessIdentity(me.pid, me.started, "another boot"),
    ):
        assert not processes.is_alive(other)
        assert not processes.kill(other), "no signal is sent to whoever has the number now"


async def test_a_corpse_is_not_alive() -> None:
    child = await asyncio.create_subprocess_exec("/bin/sleep", "100")
    found = processes.identify(child.pid)
    assert found is not None
    assert processes.kill(found)
    await child.wait()
    assert not processes.is_alive(found)
    assert not processes.kill(found)
    assert processes.identify(child.pid) is None


async def test_descendants_are_found_at_any_depth() -> None:
    family = await asyncio.create_subprocess_exec(
        "/bin/sh", "-c", "sh -c 'sleep 100 & echo ok; wait' & wait", stdout=subprocess.PIPE, start_new_session=True
    )
    assert family.stdout is not None
    assert await family.stdout.readline() == b"ok\n"
    below = processes.descendants(family.pid)
    assert len(below) == 2
    os.killpg(family.pid, 9)
    await family.wait()


HYBRID = """30 1 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
31 1 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
32 1 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
33 1 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
34 1 254:0 / / rw shared:1 - ext4 /dev/vda rw"""


def test_hierarchies_of_both_versions_are_found() -> None:
    assert cgroups.hierarchies(HYBRID) == {
        "memory": "/sys/fs/cgroup/memory",
        "cpu": "/sys/fs/cgroup/cpu,cpuacct",
        "unified": "/sys/fs/cgroup/unified",
    }
    assert cgroups.hierarchies("1 2 0:29 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw") == {"unified": "/sys/fs/cgroup"}
    assert cgroups.hierarchies("") == {}


def test_a_plan_survives_its_way_to_the_launcher() -> None:
    plan = BootPlan(
        mode="root",
        run_id="r",
        session_id="s",
        run_dir="/x",
        state_dir="/y",
        hostname="h",
        volume="/v",
        hidden=("/a", "/b"),
        network=NetworkPlan(kind="veth", nameservers=("192.0.2.1",)),
        command=("/bin/true",),
        environment={"A": "ü"},
    )
    assert BootPlan.from_json(plan.to_json()) == plan


def test_the_shown_interpreter_starts_wherever_it_lies(tmp_path: Path) -> None:
    copy = python_home.movable_binary(tmp_path / "keep")
    if copy is None:
        pytest.skip("this interpreter finds its library anywhere as it is")
    assert python_home.movable_binary(tmp_path / "keep") == copy
    moved = tmp_path / "elsewhere"
    (moved / "bin").mkdir(parents=True)
    (moved / "lib").symlink_to(Path(sys.base_prefix) / "lib")
    (moved / "bin" / "python3").symlink_to(copy)
    (moved / "bin" / copy.name).write_bytes(copy.read_bytes())
    (moved / "bin" / copy.name).chmod(0o755)
    shown = subprocess.run(["/usr/bin/env", "ldd", moved / "bin" / copy.name], capture_output=True, text=True)
    assert f"{moved}/bin/../lib/libpython" in shown.stdout


def test_the_agents_files_are_all_there() -> None:
    files = python_home.agent_files()
    assert {"site", "launch.py", "src/portico_agent", "src/portico_shared"} <= set(files)
    assert all(Path(source).exists() for source in files.values())


def test_settings_choose_the_environment(tmp_path: Path) -> None:
    attached = open_compute(Settings(data=tmp_path, compute="attach", attach_port=8888))
    assert isinstance(attached.environment, AttachCompute)
    local = open_compute(Settings(data=tmp_path / "new", isolation="none", tools_dir=str(tmp_path / "t")))
    assert isinstance(local.environment, LocalCompute)
    assert local.installer.tools_dir("jupyter").is_relative_to(tmp_path / "t" / "jupyterlab")
    if os.geteuid() != 0:
        with pytest.raises(BadRequest):
            open_compute(Settings(data=tmp_path, isolation="root"))
