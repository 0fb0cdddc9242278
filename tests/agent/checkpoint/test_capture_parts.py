"""Parts of a capture by themselves: what is left out, what is packed anew, what is tried again."""

import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from portico_agent.checkpoint import blocks
from portico_agent.checkpoint.exclusions import Exclusions, rules
from portico_agent.checkpoint.fetching import spans
from portico_agent.checkpoint.index import IndexReader, IndexWriter, Record, Trailer, contents, open_index
from portico_agent.checkpoint.jobs import CaptureResult, Progress
from portico_agent.checkpoint.loading import load
from portico_agent.checkpoint.saving import save
from portico_agent.checkpoint.spool import Spool
from portico_agent.checkpoint.transfer import REFUSALS, Transfer
from portico_agent.checkpoint.walk import Walk
from portico_agent.errors import StorageAway, StorageRefused
from portico_shared.checkpoint.block import BlockRef
from portico_shared.checkpoint.entries import Entry, Extent, Kind
from portico_shared.checkpoint.head import decode_head
from portico_shared.clock import JumpingClock
from portico_shared.messages import Grant, ObjectName
from support.btrfs_volume import MIB, btrfs_volume
from support.catalogue_world import CatalogueWorld, catalogue_world
from support.checkpoint_store import DirectGateway, Jobs
from support.nasty_tree import build_nasty, differences, look, remove_deep

LINEAGE = "l" + "0" * 16


def quiet(_: Progress) -> None:
    pass


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[CatalogueWorld]:
    async with catalogue_world(tmp_path) as made:
        yield made


async def begun(world: CatalogueWorld) -> DirectGateway:
    return DirectGateway(world, await world.run(await world.studio("s", LINEAGE)))


async def captured(gateway: DirectGateway, jobs: Jobs, **changes: object) -> CaptureResult:
    result = await save(jobs.capture(**changes), gateway, quiet)  # type: ignore[arg-type]
    assert result.ok, result.error
    return result


# --- what is left out -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "emptied"),
    [
        (b"tmp", True),
        (b"var/cache/apt", True),
        (b"root/.cache/pip", True),
        (b"home/ana/.cache/pip", True),
        (b"home/ana/.cache", False),
        (b"var/tmp", False),
        (b"home/tmp", False),
        (b"workspace/tmp", False),
        (b"home/ana/work/.cache/pip", False),
        (b"", False),
    ],
)
def test_caches_are_emptied_where_they_belong_and_nowhere_else(path: bytes, emptied: bool) -> None:
    assert Exclusions(rules("overlay")).empties(path) is emptied


def test_pid_files_are_dropped_where_services_put_them() -> None:
    overlay = Exclusions(rules("overlay"))
    assert overlay.drops(b"var/lib/thing", b"thing.pid") and not overlay.drops(b"workspace", b"thing.pid")
    assert Exclusions(rules("folders")).empties(b"home/.cache/pip")
    assert not Exclusions(rules("folders")).empties(b"tmp")


async def test_folders_mode_keeps_home_and_workspace(world: CatalogueWorld, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    current = volume / "current"
    (current / "home" / ".cache" / "pip").mkdir(parents=True)
    (current / "home" / ".cache" / "pip" / "x").write_text("left out")
    (current / "home" / ".bashrc").write_text("mine")
    (current / "workspace").mkdir()
    build_nasty(current / "workspace", overlay=False)
    gateway = await begun(world)
    jobs = Jobs(gateway.run, volume)
    await captured(gateway, jobs, root="folders")
    (current / "home" / ".cache" / "pip" / "x").unlink()
    before = look(current)
    for path in (b"workspace/setuid", b"workspace/setgid"):
        before[path]["mode"] &= ~0o6000  # on the machine's own file system no bit gives rights
    point = await world.catalogue.restore_point(gateway.run.session_id, None)
    assert point is not None
    restored = await load(jobs.restore(point, root="folders"), gateway, quiet)
    assert restored.ok, restored.error
    after = look(current)
    del before[b"home/.cache/pip"]["mtime_ns"], after[b"home/.cache/pip"]["mtime_ns"]
    assert differences(before, after) == []
    remove_deep(volume)


def test_walk_does_not_follow_links_or_enter_other_file_systems(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/proc")
    (tmp_path / "folder").mkdir()
    root = os.open(tmp_path, os.O_RDONLY)
    assert [listing.path for listing in Walk(root, Exclusions(()))] == [b"", b"folder"]
    os.close(root)


@pytest.mark.root
def test_walk_stops_at_what_is_mounted_inside_and_says_so(tmp_path: Path) -> None:
    told: list[tuple[str, bytes]] = []
    with btrfs_volume(tmp_path) as volume:
        (volume / "inside").touch()
        root = os.open(tmp_path, os.O_RDONLY)
        paths = [listing.path for listing in Walk(root, Exclusions(()), lambda why, path: told.append((why, path)))]
        os.close(root)
    assert paths == [b""]
    assert told == [("on another file system", b"/volume")]


# --- packed anew ------------------------------------------------------------------------------------------------------


async def test_pack_that_is_mostly_forgotten_is_packed_anew(world: CatalogueWorld, tmp_path: Path) -> None:
    """Small files share blocks; when most of them are gone the rest moves, and the old pack is not needed any more."""
    upper = tmp_path / "volume" / "current" / "upper"
    upper.mkdir(parents=True)
    dice = random.Random(1)
    for number in range(200):
        (upper / f"f{number}").write_bytes(dice.randbytes(30_000))
    gateway = await begun(world)
    jobs = Jobs(gateway.run, tmp_path / "volume")
    first = await captured(gateway, jobs)
    for number in range(5, 200):
        (upper / f"f{number}").unlink()
    second = await captured(gateway, jobs)
    assert second.uploaded_bytes < 20_000
    third = await captured(gateway, jobs)
    assert 150_000 < third.uploaded_bytes < 200_000, "five files of 30 kB, moved"
    fourth = await captured(gateway, jobs)
    assert not fourth.changed and fourth.uploaded_bytes == 0

    def size_of(head: str) -> int:
        return sum(size for _, size in decode_head(memory(world)[f"{LINEAGE}/heads/{head}"]).packs)

    assert size_of(second.head) > 5_000_000 > 200_000 > size_of(third.head)
    assert first.head != second.head


def memory(world: CatalogueWorld) -> dict[str, bytes]:
    return world.objects.objects  # type: ignore[attr-defined,no-any-return]


async def test_many_small_packs_become_few(
    world: CatalogueWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "MANY_SMALL", 6)
    upper = tmp_path / "volume" / "current" / "upper"
    upper.mkdir(parents=True)
    gateway = await begun(world)
    jobs = Jobs(gateway.run, tmp_path / "volume")
    most = 0
    for number in range(12):
        (upper / f"f{number}").write_bytes(random.Random(number).randbytes(2000))
        result = await captured(gateway, jobs)
        most = max(most, len(decode_head(memory(world)[f"{LINEAGE}/heads/{result.head}"]).packs))
    assert 6 < most <= 10
    point = await world.catalogue.restore_point(gateway.run.session_id, None)
    before = look(upper)
    assert point is not None and (await load(jobs.restore(point), gateway, quiet)).ok
    assert differences(before, look(upper)) == []


# --- full disk --------------------------------------------------------------------------------------------------------


@pytest.mark.root
async def test_studio_whose_disk_is_full_is_still_checkpointed(world: CatalogueWorld, tmp_path: Path) -> None:
    with btrfs_volume(tmp_path, 128 * MIB) as volume:
        upper = volume / "current" / "upper"
        upper.mkdir()
        (upper / "precious").write_bytes(b"precious")
        with pytest.raises(OSError, match="No space left"), (upper / "filler").open("wb") as file:
            while True:
                file.write(random.Random(1).randbytes(MIB))
        gateway = await begun(world)
        result = await captured(gateway, Jobs(gateway.run, volume), lower="x")
        assert result.entries == 3
        assert result.notes == () or "too full for a snapshot" in result.notes[0]
        assert not list(volume.glob("snap-*"))


def test_spool_moves_into_memory_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path / "spool")
    real, room = os.write, [1_500_000]

    def write(descriptor: int, data: bytes) -> int:
        if Path(f"/proc/self/fd/{descriptor}").readlink().name.startswith("memfd"):
            return real(descriptor, data)
        if room[0] <= 0:
            raise OSError(28, "No space left on device")
        count = real(descriptor, bytes(data[: room[0]]))
        room[0] -= count
        return count

    monkeypatch.setattr(os, "write", write)
    content = random.Random(1).randbytes(5_000_000)
    for start in range(0, len(content), 70_000):
        spool.write(content[start : start + 70_000])
    with spool.reader() as reader:
        assert reader.read() == content
    assert not (tmp_path / "spool").exists()
    assert spool.install(tmp_path / "final"), "there is room again"
    assert (tmp_path / "final").read_bytes() == content


# --- the index --------------------------------------------------------------------------------------------------------


def record(
    path: bytes, *names: bytes
) -> tuple[bytes, bool, list[tuple[bytes, int, int, int, int]], list[Entry], list[bytes]]:
    entries = [Entry(name, Kind.FILE, 0o644, 0, 0, 5, 3, [Extent(0, 0, 3)]) for name in names]
    return path, False, [(name, 1, 2, 3, 4) for name in names], entries, [b"d"] * len(names)


def trailer() -> Trailer:
    return Trailer(packs=[], blocks=[], aliases={5: 6}, next_id=7, head=b"{}", committed={0: "h"}, taken_at=1.5)


def test_index_answers_in_the_order_of_a_walk(tmp_path: Path) -> None:
    writer = IndexWriter(tmp_path / "index")
    paths = [b"", b"a", b"a/b", b"a/b/c", b"a.b", b"z"]
    for path in paths:
        writer.add(*record(path, b"x", b"y"))
    assert writer.finish(trailer())
    reader = open_index(tmp_path / "index")
    assert reader is not None and reader.trailer == trailer()
    assert reader.folder(b"") is not None
    assert reader.folder(b"a/a") is None
    found = reader.folder(b"a/b")
    assert isinstance(found, Record) and [entry.name for entry in contents(found).entries] == [b"x", b"y"]
    assert reader.folder(b"a/b") is None, "once only"
    assert reader.folder(b"b") is None and reader.folder(b"z") is not None and reader.folder(b"zz") is None


def test_records_can_be_read_while_they_are_written(tmp_path: Path) -> None:
    writer = IndexWriter(tmp_path / "index")
    writer.add(*record(b"", b"x"))
    assert IndexReader(writer.records()).folder(b"") is not None
    writer.discard()
    assert list(tmp_path.iterdir()) == []
    assert open_index(tmp_path / "index") is None


# --- moving objects ---------------------------------------------------------------------------------------------------


class Flaky:
    """A store that fails as told, then works."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.granted = 0

    async def grants(self, objects: tuple[ObjectName, ...]) -> tuple[Grant, ...]:
        self.granted += 1
        return (Grant(hash=objects[0].hash, method="PUT", url="/x", headers={}),)

    async def reads(self, objects: tuple[ObjectName, ...]) -> tuple[Grant, ...]:
        self.granted += 1
        return (Grant(hash=objects[0].hash, method="GET", url="/x", headers={}),)

    async def put(self, grant: Grant, body: bytes) -> None:
        if self.failures:
            raise self.failures.pop(0)

    async def get(self, grant: Grant, *, start: int = 0, length: int = 0) -> bytes:
        if self.failures:
            raise self.failures.pop(0)
        return b"0123456789"[start : start + length]


class HastyClock(JumpingClock):
    """Sleeping is jumping."""

    async def sleep(self, seconds: float) -> None:
        await self.jump(seconds)


NAME = ObjectName(kind="pack", hash="0" * 64, size=10, crc32c="AAAAAA==")


async def test_store_that_is_away_is_waited_for() -> None:
    store = Flaky(*[StorageAway("away")] * 5)
    transfer = Transfer(store, HastyClock())
    await transfer.put(NAME, b"0123456789")
    assert transfer.uploaded == 10
    assert await Transfer(Flaky(StorageAway("away")), HastyClock()).get("pack", NAME.hash, start=2, length=3) == b"234"


async def test_patience_has_an_end() -> None:
    with pytest.raises(StorageAway):
        await Transfer(Flaky(*[StorageAway("away")] * 10_000), HastyClock()).put(NAME, b"x")


async def test_refused_grant_is_asked_for_anew_and_not_for_ever() -> None:
    expired = StorageRefused(403, "expired")
    store = Flaky(expired)
    await Transfer(store, HastyClock()).put(NAME, b"x")
    assert store.granted == 2
    store = Flaky(expired)
    assert await Transfer(store, HastyClock()).get("pack", NAME.hash, start=0, length=2) == b"01"
    assert store.granted == 2
    with pytest.raises(StorageRefused):
        await Transfer(Flaky(*[expired] * REFUSALS), HastyClock()).put(NAME, b"x")


def test_neighbours_are_fetched_together_and_strangers_are_not() -> None:
    def ref(pack: int, offset: int, stored: int = 1000) -> BlockRef:
        return BlockRef(bytes([pack]) * 32, offset, stored, stored, 0, bytes(32))

    found = spans([ref(1, 2000), ref(1, 0), ref(1, 0), ref(1, 5_000_000), ref(2, 0), ref(1, 1000), ref(2, 9_000_000)])
    assert [(span.pack[0], span.start, span.length, len(span.refs)) for span in found] == [
        (1, 0, 3000, 3),
        (1, 5_000_000, 1000, 1),
        (2, 0, 1000, 1),
        (2, 9_000_000, 1000, 1),
    ]
    long = spans([ref(1, number * 2**20, 2**20) for number in range(20)])
    assert [span.length // 2**20 for span in long] == [8, 8, 4]
