"""Jobs in their child process, over HTTP to a real store: as an agent runs them, and killed at any point."""

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from aiohttp import web

from portico_agent.checkpoint.engine import run_capture, run_restore
from portico_agent.checkpoint.jobs import Freeze, Progress, RestoreResult
from portico_gateway.objects.local_folder import LocalFolder
from portico_gateway.studios.run_context import RunContext
from portico_shared.clock import SystemClock
from support.btrfs_volume import MIB, btrfs_volume
from support.catalogue_world import CatalogueWorld, catalogue_world
from support.checkpoint_store import SEED, Jobs, serve
from support.nasty_tree import differences, look

LINEAGE = "l" + "0" * 16


def children() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "portico_agent.checkpoint" in child.cmdline():
                found.append(child)
    return found


@dataclass
class World:
    world: CatalogueWorld
    run: RunContext
    volume: Path
    jobs: Jobs
    requests: list[str] = field(default_factory=list)
    kill_at: int | str = ""
    """The child is killed when this many requests came, or one to a path with this end."""

    def on_request(self, request: web.Request) -> None:
        self.requests.append(f"{request.method} {request.path}")
        if len(self.requests) == self.kill_at or (
            isinstance(self.kill_at, str) and self.kill_at and request.path.endswith(self.kill_at)
        ):
            for child in children():
                child.send_signal(signal.SIGKILL)

    async def restored(self, target: Path) -> RestoreResult:
        point = await self.world.catalogue.restore_point(self.run.session_id, None)
        assert point is not None
        job = self.jobs.restore(point, target=str(target), index=str(target.parent / "other.index"))
        result = await run_restore(job)
        assert result.ok and not result.notes, result
        return result

    @property
    def upper(self) -> Path:
        return self.volume / "current" / "upper"


@contextlib.asynccontextmanager
async def a_world(folder: Path, volume: Path) -> AsyncIterator[World]:
    (volume / "current" / "upper").mkdir(parents=True, exist_ok=True)
    store = LocalFolder(folder / "objects", bytes(32), SystemClock())
    async with catalogue_world(folder, store) as made:
        run = await made.run(await made.studio("s", LINEAGE))
        world = World(made, run, volume, Jobs(run, volume))
        async with serve(made, run, world.on_request) as address:
            world.jobs = Jobs(run, volume, address)
            yield world
    assert children() == []


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with a_world(tmp_path, tmp_path / "volume") as made:
        yield made


@pytest.fixture
def snapshots(tmp_path: Path) -> Iterator[Path]:
    with btrfs_volume(tmp_path, 1024 * MIB) as point:
        yield point


def fill(root: Path, dice: random.Random) -> None:
    for number in range(120):
        folder = root / f"d{number % 7}"
        folder.mkdir(exist_ok=True)
        (folder / f"f{number}").write_bytes(dice.randbytes(dice.randrange(20_000)))
    (root / "large").write_bytes(dice.randbytes(5 * 2**20))


async def test_job_runs_in_a_child_and_tells_how_it_goes(world: World, tmp_path: Path) -> None:
    fill(world.upper, random.Random(1))
    told: list[Progress] = []
    result = await run_capture(world.jobs.capture(), told.append)
    assert result.ok and result.changed and result.name == "s_1", result.error
    assert [each.stage for each in told] == ["flush", "scan", "upload", "commit"]
    back: list[Progress] = []
    point = await world.world.catalogue.restore_point(world.run.session_id, None)
    assert point is not None
    restored = await run_restore(world.jobs.restore(point, target=str(tmp_path / "back")), back.append)
    assert restored.ok, restored.error
    assert differences(look(world.upper), look(tmp_path / "back" / "upper")) == []
    assert {each.stage for each in back} == {"download", "finish"}
    assert back[-2].done == back[-2].total == result.content_bytes


async def test_key_of_the_run_is_nowhere_to_be_seen(world: World) -> None:
    fill(world.upper, random.Random(1))
    seen: list[bytes] = []

    def look_at_child(request: web.Request) -> None:
        for child in children():
            seen.extend(Path(f"/proc/{child.pid}/{name}").read_bytes() for name in ("cmdline", "environ"))

    async with serve(world.world, world.run, look_at_child) as address:
        assert (await run_capture(Jobs(world.run, world.volume, address).capture())).ok
    assert seen and not any(SEED.encode() in each for each in seen)
    for path in world.volume.rglob("*"):
        if path.is_file():
            assert SEED.encode() not in path.read_bytes()


async def test_memory_of_a_job_stays_bounded(world: World, tmp_path: Path) -> None:
    """Twelve packs' worth of what does not compress, up and down."""
    dice, most = random.Random(1), [0]
    for number in range(6):
        (world.upper / f"large{number}").write_bytes(dice.randbytes(32 * MIB))

    def measure(request: web.Request) -> None:
        for child in children():
            for line in Path(f"/proc/{child.pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    most[0] = max(most[0], int(line.split()[1]) * 1024)

    async with serve(world.world, world.run, measure) as address:
        world.jobs = Jobs(world.run, world.volume, address)
        assert (await run_capture(world.jobs.capture())).ok
        await world.restored(tmp_path / "back")
    assert 40 * MIB < most[0] < 250 * MIB


@pytest.mark.root
async def test_killed_at_any_request_the_last_checkpoint_stays_whole(tmp_path: Path, snapshots: Path) -> None:
    """At every request of a capture in turn: what can be restored is the tree before or the tree now, never a mix."""
    async with a_world(tmp_path, snapshots) as world:
        dice = random.Random(4)
        fill(world.upper, dice)
        assert (await run_capture(world.jobs.capture())).ok
        saved, killed = look(world.upper), 0
        for point in (1, 2, 3, 4, 5, 6, 7, 9):
            fill(world.upper, dice)
            now = look(world.upper)
            world.requests.clear()
            world.kill_at = point
            result = await run_capture(world.jobs.capture())
            killed += not result.ok
            world.kill_at = ""
            (tmp_path / "back").mkdir(exist_ok=True)
            await world.restored(tmp_path / "back" / "current")
            found = look(tmp_path / "back" / "current" / "upper")
            assert not differences(found, saved) or not differences(found, now), f"killed at request {point}"
            saved = saved if not differences(found, saved) else now
        assert killed >= 6
        final = await run_capture(world.jobs.capture())
        assert final.ok, final.error
        await world.restored(tmp_path / "back" / "current")
        assert differences(look(world.upper), look(tmp_path / "back" / "current" / "upper")) == []
        assert not list(snapshots.glob("snap-*"))


async def test_what_a_killed_capture_sent_is_not_sent_again(world: World) -> None:
    """The same tree gives the same packs, and what is there is not put."""
    (world.upper / "large").write_bytes(random.Random(9).randbytes(40 * 2**20))
    world.kill_at = "/commit"
    assert not (await run_capture(world.jobs.capture())).ok
    world.kill_at = ""
    durable = {path.name for path in (world.volume.parent / "objects").rglob("*/packs/*")}
    assert durable
    world.requests.clear()
    assert (await run_capture(world.jobs.capture())).ok
    assert not [request for request in world.requests if request.startswith("PUT")]
    assert {path.name for path in (world.volume.parent / "objects").rglob("*/packs/*")} == durable


async def test_capture_ends_when_the_agent_goes_away(world: World) -> None:
    fill(world.upper, random.Random(1))
    began = asyncio.Event()
    capture = asyncio.ensure_future(run_capture(world.jobs.capture(), lambda _: began.set()))
    await began.wait()
    capture.cancel()
    with pytest.raises(asyncio.CancelledError):
        await capture
    assert children() == []
    assert (await run_capture(world.jobs.capture())).ok


async def test_lost_pack_makes_the_next_capture_send_everything_anew(world: World, tmp_path: Path) -> None:
    fill(world.upper, random.Random(1))
    assert (await run_capture(world.jobs.capture())).ok
    for pack in (tmp_path / "objects").rglob("*/packs/*"):
        pack.unlink()
    world.world.catalogue._collector._stored.clear()  # as after a restart of the gateway
    (world.upper / "new").write_text("x")
    result = await run_capture(world.jobs.capture())
    assert result.ok and result.uploaded_bytes > 5 * 2**20, result
    await world.restored(tmp_path / "back")
    assert differences(look(world.upper), look(tmp_path / "back" / "upper")) == []


async def test_damaged_index_costs_time_and_nothing_else(world: World, tmp_path: Path) -> None:
    fill(world.upper, random.Random(1))
    assert (await run_capture(world.jobs.capture())).ok
    index = world.volume / "checkpoint.index"
    whole = index.read_bytes()
    for broken in (b"", b"rubbish", whole[:-1], whole[:3000] + b"\0" + whole[3001:]):
        index.write_bytes(broken)
        assert (await run_capture(world.jobs.capture())).ok
        await world.restored(tmp_path / "back")
        assert differences(look(world.upper), look(tmp_path / "back" / "upper")) == []


async def test_run_that_was_replaced_learns_that_it_is_over(world: World) -> None:
    (world.upper / "file").write_text("x")
    await world.world.run(world.run.session_id)
    result = await run_capture(world.jobs.capture())
    assert not result.ok and result.over and "newer run" in result.error


async def test_gateway_that_refuses_is_an_error_in_words(world: World) -> None:
    (world.upper / "file").write_text("x")
    result = await run_capture(world.jobs.capture("request", row=4711))
    assert not result.ok and not result.over and "no such checkpoint" in result.error


async def test_child_that_dies_early_is_an_error_in_words(world: World) -> None:
    result = await run_capture(world.jobs.capture(), argv=["sh", "-c", "echo went wrong >&2; exit 3"])
    assert not result.ok and "(3)" in result.error and "went wrong" in result.error
    result = await run_capture(world.jobs.capture(), argv=["/nonexistent"])
    assert not result.ok and "could not be used" in result.error


async def test_missing_source_is_an_error_in_words(world: World) -> None:
    result = await run_capture(world.jobs.capture(source=str(world.volume / "nowhere")))
    assert not result.ok and "could not be read" in result.error


async def test_studio_stands_still_while_it_is_captured_without_snapshots(world: World, tmp_path: Path) -> None:
    """Two files that a program always changes together are together in every checkpoint."""
    script = (
        "import itertools, os, sys\n"
        "for n in itertools.count():\n"
        "    for name in ('a/x', 'z/x'):\n"
        "        with open(name + '.new', 'w') as f: f.write(str(n))\n"
        "        os.rename(name + '.new', name)\n"
        "    if n == 1: print('ready', flush=True)\n"
    )
    fill(world.upper, random.Random(2))
    (world.upper / "a").mkdir()
    (world.upper / "z").mkdir()
    pipe = asyncio.subprocess.PIPE
    writer = await asyncio.create_subprocess_exec("python3", "-c", script, cwd=world.upper, stdout=pipe)
    try:
        assert writer.stdout is not None
        await writer.stdout.readline()
        for _ in range(4):
            result = await run_capture(world.jobs.capture(freeze={"pid": writer.pid}))
            assert result.ok and result.pause_ms > 0, result
            await world.restored(tmp_path / "back")
            first = int((tmp_path / "back" / "upper" / "a" / "x").read_text())
            second = int((tmp_path / "back" / "upper" / "z" / "x").read_text())
            assert first - second in (0, 1)
        assert psutil.Process(writer.pid).status() != psutil.STATUS_STOPPED
    finally:
        writer.kill()
        await writer.wait()


HOLDER = """
import signal, sys
from portico_agent.checkpoint.freezer import Guardian
from portico_agent.checkpoint.jobs import Freeze
guardian = Guardian(Freeze(pid=int(sys.argv[1])))
guardian.start()
with guardian.hold():
    print("held", flush=True)
    signal.pause()
"""


def test_studio_goes_on_when_its_capture_is_killed_while_holding_it() -> None:
    tool = subprocess.Popen(["sh", "-c", "sleep 1000 & wait"])
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tool.pid)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        family = [psutil.Process(tool.pid), *psutil.Process(tool.pid).children()]
        assert len(family) == 2 and {each.status() for each in family} == {psutil.STATUS_STOPPED}
        holder.kill()
        os.waitid(os.P_PID, tool.pid, os.WCONTINUED)
        while psutil.STATUS_STOPPED in {each.status() for each in family}:
            os.sched_yield()  # the guardian is at it
    finally:
        for process in (holder, tool):
            process.kill()
            process.communicate()
        with contextlib.suppress(psutil.NoSuchProcess):
            family[1].kill()


def test_freeze_of_a_cgroup_is_asked_of_the_kernel_by_name(tmp_path: Path) -> None:
    """Version 2 and version 1 have other files; both are told apart by what is there."""
    from portico_agent.checkpoint.freezer import Cgroup

    (tmp_path / "cgroup.freeze").write_text("0")
    (tmp_path / "cgroup.events").write_text("populated 1\nfrozen 1\n")
    second = Cgroup(tmp_path)
    second.stop()
    assert (tmp_path / "cgroup.freeze").read_text() == "1"
    second.go()
    assert (tmp_path / "cgroup.freeze").read_text() == "0"
    old = tmp_path / "old"
    old.mkdir()
    (old / "freezer.state").write_text("THAWED")
    first = Cgroup(old)
    first.stop()
    assert (old / "freezer.state").read_text() == "FROZEN"
    first.go()
    assert (old / "freezer.state").read_text() == "THAWED"
    assert Freeze(cgroup="x").pid == 0 and os.getpid()
