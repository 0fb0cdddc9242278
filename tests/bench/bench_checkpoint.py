"""Checkpoints beside what anyone would do by hand: `tar | zstd -1 -T2` of a btrfs snapshot into a file, and back.

Ours is the whole job as an agent runs it: child process, snapshot, scan, packs, PUTs to the local store's signed URLs,
commit; and for a restore GETs, verification, landing, switch. Both sides sync what they wrote. Rounds interleave; a
tar has no increments, so for an unchanged tree and a small change it does all of it again.
"""

import asyncio
import contextlib
import os
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from portico_agent.checkpoint.engine import run_capture, run_restore
from portico_agent.checkpoint.jobs import CaptureResult
from portico_gateway.objects.local_folder import LocalFolder
from portico_gateway.studios.run_context import RunContext
from portico_shared.clock import SystemClock
from rows import Row, compare
from support.btrfs_volume import mounted_btrfs
from support.catalogue_world import CatalogueWorld, catalogue_world
from support.checkpoint_store import Jobs, serve

BARS = {"full": 1.0, "unchanged": 5.0, "small change": 3.0, "restore": 1.0}
"""Where the prototype of this design stood against the same pipe, less a margin."""
PEER = "tar | zstd -1 -T2"
FILES = 30_000
BIG = 4
BIG_BYTES = 96 * 2**20
IMAGE = 6 * 2**30
INCOMPRESSIBLE = 0.1

Seconds = dict[str, list[float]]


def rows(rounds: int) -> list[Row]:
    return asyncio.run(_rows(rounds))


async def _rows(rounds: int) -> list[Row]:
    ours: Seconds = {workload: [] for workload in BARS}
    theirs: Seconds = {workload: [] for workload in BARS}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ptb-")))
        volume = stack.enter_context(mounted_btrfs(folder, IMAGE))
        _grow(volume / "current" / "upper", random.Random(5))
        for number in range(rounds):
            async with _bench(folder / f"round{number}", volume) as bench:
                await _round(bench, ours, theirs)
    return [
        compare(
            "checkpoint",
            f"{workload}, {FILES // 1000}k files + {BIG} x {BIG_BYTES // 2**20} MiB",
            PEER,
            [1 / seconds for seconds in ours[workload]],
            [1 / seconds for seconds in theirs[workload]],
            bar=bar,
            unit="1/s",
        )
        for workload, bar in BARS.items()
    ]


async def _round(bench: "_Bench", ours: Seconds, theirs: Seconds) -> None:
    tarred = bench.folder / "peer.tar.zst"
    for workload in ("full", "unchanged", "small change"):
        if workload == "small change":
            _change(bench.volume / "current" / "upper")
        result, seconds = await bench.capture()
        assert result.ok and result.changed == (workload != "unchanged"), result
        ours[workload].append(seconds)
        theirs[workload].append(await asyncio.to_thread(bench.tar, tarred))
        print(
            f"  {workload:13} ours {seconds:6.2f} s, theirs {theirs[workload][-1]:6.2f} s; "
            f"sent {result.uploaded_bytes / 2**20:.1f} MiB, pause {result.pause_ms:.0f} ms",
            flush=True,
        )
    ours["restore"].append(await bench.restore())
    theirs["restore"].append(await asyncio.to_thread(bench.untar, tarred))
    print(f"  restore       ours {ours['restore'][-1]:6.2f} s, theirs {theirs['restore'][-1]:6.2f} s", flush=True)


@dataclass
class _Bench:
    folder: Path
    volume: Path
    world: CatalogueWorld
    run: RunContext
    jobs: Jobs

    async def capture(self) -> tuple[CaptureResult, float]:
        start = time.monotonic()
        result = await run_capture(self.jobs.capture("request"))
        return result, time.monotonic() - start

    async def restore(self) -> float:
        point = await self.world.catalogue.restore_point(self.run.session_id, None)
        assert point is not None
        start = time.monotonic()
        result = await run_restore(self.jobs.restore(point, target=str(self.volume / "back")))
        seconds = time.monotonic() - start
        assert result.ok, result.error
        _drop(self.volume / "back")
        return seconds

    def tar(self, file: Path) -> float:
        start = time.monotonic()
        snapshot = self.volume / "peer-snapshot"
        _run("btrfs", "-q", "subvolume", "snapshot", "-r", str(self.volume / "current"), str(snapshot))
        command = f"tar --xattrs -C {snapshot}/upper -cf - . | zstd -q -1 -T2 -f -o {file} && sync {file}"
        subprocess.run(["sh", "-c", command], check=True)
        seconds = time.monotonic() - start
        _drop(snapshot)
        return seconds

    def untar(self, file: Path) -> float:
        target = self.volume / "peer-back"
        start = time.monotonic()
        _run("btrfs", "-q", "subvolume", "create", str(target))
        subprocess.run(
            ["sh", "-c", f"zstd -q -dc {file} | tar --xattrs -C {target} -xf - && sync -f {target}"], check=True
        )
        seconds = time.monotonic() - start
        _drop(target)
        return seconds


@contextlib.asynccontextmanager
async def _bench(folder: Path, volume: Path) -> AsyncIterator[_Bench]:
    """A lineage and a store of its own, so that nothing is there already."""
    folder.mkdir()
    store = LocalFolder(folder / "objects", bytes(32), SystemClock())
    async with catalogue_world(folder, store) as world:
        run = await world.run(await world.studio("bench", "l" + "0" * 16))
        async with serve(world, run) as address:
            (volume / "checkpoint.index").unlink(missing_ok=True)
            yield _Bench(folder, volume, world, run, Jobs(run, volume, address))
    await asyncio.to_thread(shutil.rmtree, folder)


def _grow(root: Path, dice: random.Random) -> None:
    """Like an environment of packages: many small files, a few large ones; zstd -1 takes it to about two fifths, as it
    does a real one."""
    root.mkdir()
    words = [dice.randbytes(dice.randrange(2, 9)).hex().encode() for _ in range(4096)]
    text = b" ".join(dice.choices(words, k=3_000_000))
    for number in range(FILES):
        folder = root / "lib" / f"p{number // 600:02d}" / f"m{number // 40 % 15:02d}"
        if number % 40 == 0:
            folder.mkdir(parents=True, exist_ok=True)
        size = int(dice.lognormvariate(8.2, 1.4)) % 400_000
        (folder / f"f{number}.py").write_bytes(_content(text, dice, size))
    for number in range(BIG):
        with (root / f"big{number}").open("wb") as file:
            for _ in range(BIG_BYTES // 2**20):
                file.write(_content(text, dice, 2**20))
    _run("sync", "-f", str(root))


def _content(text: bytes, dice: random.Random, size: int) -> bytes:
    if dice.random() < INCOMPRESSIBLE:
        return dice.randbytes(size)
    start = dice.randrange(len(text) - size)
    return text[start : start + size]


def _change(root: Path) -> None:
    """A cell was run, a package added: 200 files touched, 1 MiB of a large one edited."""
    for path in sorted(root.glob("lib/p0[0-4]/m0*/f*0.py"))[:200]:
        with path.open("ab") as file:
            file.write(b"# changed\n")
    with (root / "big1").open("r+b") as file:
        file.seek(10 * 2**20 + 1000)
        file.write(os.urandom(2**20))


def _drop(subvolume: Path) -> None:
    _run("btrfs", "-q", "subvolume", "delete", str(subvolume))


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
