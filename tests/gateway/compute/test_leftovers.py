"""However a run ends, nothing of it stays on this machine but its log and its volume."""

import asyncio
import fcntl
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from portico_gateway.compute.environment import Placement, RunSpec
from portico_gateway.compute.local import planning, volume
from portico_gateway.compute.local.confinement import Confinement
from portico_gateway.compute.local.local_compute import LocalCompute
from portico_gateway.compute.local.network import instance_name
from portico_gateway.errors import Unavailable
from portico_gateway.settings import Settings
from support.sandboxes import Machine, inside, look_at_machine, others_run, processes_of, run_spec, until

pytestmark = pytest.mark.root

Start = Callable[..., Awaitable[tuple[RunSpec, Placement]]]


def looks(data: Path) -> tuple[Machine, Machine]:
    return look_at_machine(data.name), look_at_machine(instance_name(data))


async def test_a_killed_run_leaves_its_log_and_its_volume_alone(
    compute: LocalCompute, start: Start, data: Path
) -> None:
    before = looks(data)
    spec, placement = await start()
    during = looks(data)
    assert during[0].loops
    assert during[1].links
    assert during[1].tables
    assert during[1].groups
    assert during[0].mounts == frozenset(), "its mounts are in its own namespace, never in ours"
    await compute.kill(spec.run_id, placement)
    assert looks(data) == before
    assert processes_of(spec.run_id) == []
    assert sorted(path.name for path in (data / "runs" / spec.run_id).iterdir()) == ["agent.log"]
    await compute.release(spec.session_id)
    assert list((data / "volumes").iterdir()) == []


async def test_kill_9_of_the_first_process_takes_everything_with_it(
    compute: LocalCompute, start: Start, data: Path
) -> None:
    before = looks(data)
    _, placement = await start()
    child = inside(placement["pid"], "setsid sleep 500 </dev/null >/dev/null 2>&1 & echo started")
    assert child.stdout == "started\n"
    os.kill(placement["pid"], signal.SIGKILL)
    assert await until(lambda: not look_at_machine(data.name).loops), "the kernel frees the loop device by itself"
    assert await until(lambda: not look_at_machine(instance_name(data)).links), "and the link"
    said = await compute.sweep(set())
    assert len(said) == 1
    assert looks(data) == before


async def test_the_last_run_takes_the_table_with_it_not_the_first(
    compute: LocalCompute, start: Start, data: Path
) -> None:
    alone, forwarding = not others_run(), looks(data)[0].forwarding
    first, second = await start(), await start()
    await compute.kill(first[0].run_id, first[1])
    assert looks(data)[1].tables
    assert looks(data)[1].links == {second[1]["link"]}
    await compute.kill(second[0].run_id, second[1])
    assert not looks(data)[1].tables
    if alone and not others_run():  # else it is theirs as well
        assert looks(data)[0].forwarding == forwarding


async def test_kill_9_of_the_launcher_before_it_says_go_leaves_nothing(compute: LocalCompute, data: Path) -> None:
    before = looks(data)
    spec = run_spec()
    (data / "compute").mkdir(exist_ok=True)
    with (data / "compute" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the launcher waits for its turn to make a link
        starting = asyncio.ensure_future(compute.start(spec))
        launcher = await _launcher()
        assert await until(lambda: len(psutil.Process(launcher).children()) == 0)
        os.kill(launcher, signal.SIGKILL)
        with pytest.raises(Unavailable, match="without a word"):
            await starting
    assert await until(lambda: not processes_of(str(data)))
    assert looks(data) == before
    assert await compute.sweep(set()) == []
    assert (await compute.inspect(spec.run_id, await compute.start(spec))).alive


async def test_a_cancelled_start_leaves_nothing(compute: LocalCompute, data: Path) -> None:
    before = looks(data)
    spec = run_spec()
    (data / "compute").mkdir(exist_ok=True)
    with (data / "compute" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        starting = asyncio.ensure_future(compute.start(spec))
        await _launcher()
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
    assert await until(lambda: not processes_of(str(data)))
    assert looks(data) == before


async def test_a_failing_start_says_why_and_leaves_nothing(data: Path, confinement: Confinement) -> None:
    before = looks(data)
    compute = LocalCompute(Settings(data=data), confinement, command=("/no/such/program",))
    spec = run_spec()
    with pytest.raises(Unavailable, match="No such file"):
        await compute.start(spec)
    assert looks(data) == before
    assert not compute.has_volume(spec.session_id)


async def test_a_failing_start_keeps_a_volume_that_was_there(
    compute: LocalCompute, start: Start, data: Path, confinement: Confinement
) -> None:
    spec, placement = await start()
    inside(placement["pid"], "echo precious > /portico/volume/file && sync")
    await compute.kill(spec.run_id, placement)
    broken = LocalCompute(Settings(data=data), confinement, command=("/no/such/program",))
    with pytest.raises(Unavailable):
        await broken.start(replace(spec, run_id=run_spec().run_id))
    _, again = await start(session_id=spec.session_id)
    assert inside(again["pid"], "cat /portico/volume/file").stdout == "precious\n"


async def test_a_volume_grows_with_its_quota(compute: LocalCompute, start: Start, data: Path) -> None:
    spec, placement = await start(quota_bytes=300 * 1024**2)
    size = "stat -f -c '%b %S' /portico/volume"
    blocks, unit = map(int, inside(placement["pid"], size).stdout.split())
    assert blocks * unit == volume.image_bytes(300 * 1024**2)
    await compute.kill(spec.run_id, placement)
    _, placement = await start(session_id=spec.session_id, quota_bytes=600 * 1024**2)
    blocks, unit = map(int, inside(placement["pid"], size).stdout.split())
    assert blocks * unit == volume.image_bytes(600 * 1024**2)


async def test_a_full_disk_refuses_a_start_in_words(
    compute: LocalCompute, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "DISK_FLOOR", 1 << 60)
    spec = run_spec()
    with pytest.raises(Unavailable, match="make room there"):
        await compute.start(spec)
    assert not compute.has_volume(spec.session_id)


async def test_limits_are_set_where_the_machine_has_groups(start: Start) -> None:
    spec, _ = await start(memory_mib=512, cpu=1)
    found = {
        file.name: file.read_text().strip()
        for file in Path("/sys/fs/cgroup").glob(f"**/{spec.run_id}/*")
        if file.name in ("memory.max", "memory.limit_in_bytes", "pids.max")
    }
    if not found:
        pytest.skip("no control group can be written here")
    assert set(found.values()) <= {str(512 * 1024**2), "4096"}


async def _launcher() -> int:
    found: list[int] = []

    def look() -> bool:
        found[:] = [p.pid for p in psutil.Process().children() if any(w.endswith("boot.py") for w in p.cmdline())]
        return bool(found)

    assert await until(look)
    return found[0]


async def test_sweep_finishes_what_a_killed_gateway_had_begun_to_remove(
    compute: LocalCompute, start: Start, data: Path
) -> None:
    before = looks(data)
    spec, placement = await start()
    (data / "runs" / spec.run_id / "placement.json").unlink()  # as if it had been killed right after this step
    os.kill(placement["pid"], signal.SIGKILL)
    assert await until(lambda: not look_at_machine(instance_name(data)).links)
    assert await until(lambda: not look_at_machine(data.name).loops)
    assert looks(data)[1].tables
    assert looks(data)[1].groups
    said = await compute.sweep(set())
    assert any("control group" in sentence for sentence in said)
    assert looks(data) == before
