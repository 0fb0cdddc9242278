"""Restoring what is damaged, hostile, too large, or not for this machine: rightly, or not at all, and said in words."""

import os
import random
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest

from portico_agent.checkpoint.jobs import Progress, RestoreResult
from portico_agent.checkpoint.loading import load
from portico_agent.checkpoint.saving import save
from portico_gateway.objects.memory import MemoryObjects
from portico_shared.checkpoint.block import BlockRef, encode
from portico_shared.checkpoint.digest import digest, name_of
from portico_shared.checkpoint.entries import SELF, Entry, Extent, Group, Kind, encode_segment
from portico_shared.checkpoint.head import Head, Layer, SegmentRef, decode_head, encode_head
from portico_shared.checkpoint.pack import PackWriter
from portico_shared.messages import RestorePoint
from support.btrfs_volume import btrfs_volume
from support.catalogue_world import CatalogueWorld, catalogue_world
from support.checkpoint_store import DirectGateway, Jobs
from support.nasty_tree import differences, look

LINEAGE = "l" + "0" * 16


def quiet(_: Progress) -> None:
    pass


class World:
    """A studio with one volume, and its store laid open."""

    def __init__(self, world: CatalogueWorld, gateway: DirectGateway, volume: Path) -> None:
        self.world, self.gateway, self.volume = world, gateway, volume
        self.jobs = Jobs(gateway.run, volume)
        self.upper = volume / "current" / "upper"

    @property
    def objects(self) -> dict[str, bytes]:
        assert isinstance(self.world.objects, MemoryObjects)
        return self.world.objects.objects

    async def capture(self) -> str:
        result = await save(self.jobs.capture(), self.gateway, quiet)
        assert result.ok, result.error
        return result.head

    async def restore(self, point: RestorePoint | None = None, **changes: object) -> RestoreResult:
        point = point or await self.world.catalogue.restore_point(self.gateway.run.session_id, None)
        assert point is not None
        return await load(self.jobs.restore(point, **changes), self.gateway, quiet)

    def put(self, kind: str, content: bytes) -> str:
        self.objects[f"{LINEAGE}/{kind}s/{name_of(content)}"] = content
        return name_of(content)

    def head(self, name: str) -> Head:
        return decode_head(self.objects[f"{LINEAGE}/heads/{name}"])


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    volume = tmp_path / "volume"
    (volume / "current" / "upper").mkdir(parents=True)
    async with catalogue_world(tmp_path) as made:
        gateway = DirectGateway(made, await made.run(await made.studio("s", LINEAGE)))
        yield World(made, gateway, volume)


# --- damaged objects --------------------------------------------------------------------------------------------------


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flip(content: bytes) -> bytes:
    """One bit of the second block's bytes."""
    broken = bytearray(content)
    broken[1_500_000] ^= 4
    return bytes(broken)


def other(content: bytes) -> bytes:
    return random.Random(0).randbytes(len(content))


@pytest.mark.parametrize("damage", [cut, flip, other, None], ids=["cut", "flipped", "swapped", "missing"])
async def test_damaged_pack_is_named_and_the_checkpoint_before_is_restored(
    world: World, damage: Callable[[bytes], bytes] | None
) -> None:
    (world.upper / "kept").write_bytes(b"first")
    first = await world.capture()
    before = look(world.upper)
    packs = {name for name, _ in world.head(first).packs}
    (world.upper / "large").write_bytes(random.Random(2).randbytes(3 * 2**20))
    second = await world.capture()
    sizes = {name: size for name, size in world.head(second).packs if name not in packs}
    victim = max(sizes, key=lambda name: sizes[name])
    key = f"{LINEAGE}/packs/{victim}"
    if damage is None:
        del world.objects[key]
    else:
        world.objects[key] = damage(world.objects[key])
    result = await world.restore()
    assert result.ok and result.head == first
    assert f"packs/{victim}" in result.notes[0] and "is damaged" in result.notes[0]
    assert "restored instead" in result.notes[1]
    assert differences(before, look(world.upper)) == []


@pytest.mark.parametrize("kind", ["heads", "packs"])
async def test_nothing_whole_left_leaves_current_alone_and_says_so(world: World, kind: str) -> None:
    (world.upper / "file").write_bytes(b"x" * 5000)
    await world.capture()
    before = look(world.upper)
    for key in list(world.objects):
        if f"/{kind}/" in key:
            world.objects[key] = b"rubbish"
    result = await world.restore()
    assert not result.ok and "is damaged" in result.error and "No other checkpoint" in result.error
    assert differences(before, look(world.upper)) == []
    assert sorted(path.name for path in world.volume.iterdir()) == ["checkpoint.index", "current"]


async def test_checkpoint_of_a_newer_portico_is_passed_over_with_a_word(world: World) -> None:
    (world.upper / "file").write_bytes(b"x")
    first = await world.capture()
    newer = world.put("head", encode_head(msgspec.structs.replace(world.head(first), version=2)))
    old = RestorePoint(head=first, checkpoint_id=1, name="old", size=1)
    result = await world.restore(RestorePoint(head=newer, checkpoint_id=2, name="new", size=1, fallbacks=(old,)))
    assert result.ok and result.name == "old" and "newer Portico" in result.notes[0]


# --- hostile heads ----------------------------------------------------------------------------------------------------

CONTENT = b"hostile content"


def hostile(
    world: World, *entries: Entry, root: str = "overlay", claim: int | None = None, **sub: list[Entry]
) -> RestorePoint:
    """A head with these entries in the layer's root, and others in its folders."""
    writer = PackWriter()

    def add(raw: bytes) -> BlockRef:
        codec, stored = encode(raw)
        offset = writer.add(len(raw), codec, stored, digest(raw))
        return BlockRef(bytes(32), offset, len(stored), len(raw), codec, digest(raw))

    block = add(CONTENT)
    data = writer.seal()
    block = msgspec.structs.replace(block, pack=bytes.fromhex(world.put("pack", data)))
    groups = [Group(b"", [Entry(SELF, Kind.FOLDER, 0o755, 0, 0, 0), *entries])]
    groups += [Group(name.encode(), list(inner)) for name, inner in sub.items()]
    writer = PackWriter()
    segment = add(encode_segment([block], groups))
    manifest = writer.seal()
    segment = msgspec.structs.replace(segment, pack=bytes.fromhex(world.put("pack", manifest)))
    every = [entry for group in groups for entry in group.entries]
    count = sum(entry.kind != Kind.MORE for entry in every)
    held = sum(extent.length for entry in every for extent in entry.extents if extent.block >= 0)
    layer = Layer(entries=claim or count, content_bytes=held, segments=(SegmentRef.of(segment),))
    packs = tuple(sorted([(name_of(data), len(data)), (name_of(manifest), len(manifest))]))
    head = Head(root=root, lower="", layers=(layer,), packs=packs)  # type: ignore[arg-type]
    return RestorePoint(head=world.put("head", encode_head(head)), checkpoint_id=9, name="hostile", size=0)


def file(name: bytes, mode: int = 0o644, **more: object) -> Entry:
    size = len(CONTENT)
    return Entry(name, Kind.FILE, mode, os.geteuid(), os.getegid(), 0, size, [Extent(0, 0, size)], **more)  # type: ignore[arg-type]


def link_to(target: bytes) -> Entry:
    return Entry(b"way", Kind.SYMLINK, 0o777, os.geteuid(), os.getegid(), 0, target=target)


async def test_harmless_head_of_this_making_is_restored(world: World) -> None:
    """The others fail for what is hostile in them, not for how they are made."""
    result = await world.restore(hostile(world, Entry(b"a", Kind.FOLDER, 0o755, 0, 0, 0), file(b"f"), a=[file(b"g")]))
    assert result.ok, result.error
    assert (world.upper / "a" / "g").read_bytes() == CONTENT


async def test_file_below_a_symlink_is_refused_and_nothing_is_written_outside(world: World, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (world.upper / "mine").write_text("stays")
    result = await world.restore(hostile(world, link_to(os.fsencode(outside)), way=[file(b"planted")]))
    assert not result.ok and "is no folder of the layer" in result.error
    assert list(outside.iterdir()) == []
    assert (world.upper / "mine").read_text() == "stays"


async def test_symlink_and_folder_of_one_name_is_refused(world: World, tmp_path: Path) -> None:
    way = Entry(b"way", Kind.FOLDER, 0o755, 0, 0, 0)
    for pair in ((link_to(b"/etc"), way), (way, link_to(b"/etc"))):
        result = await world.restore(hostile(world, *pair, way=[file(b"planted")]))
        assert not result.ok and "comes twice" in result.error


@pytest.mark.parametrize("name", [b"..", b"a/b", b"", b"x\0y"])
async def test_names_that_lead_away_are_refused(world: World, name: bytes) -> None:
    result = await world.restore(hostile(world, file(name)))
    assert not result.ok and "no name" in result.error


async def test_head_that_lies_about_how_much_there_is_is_refused(world: World) -> None:
    for claim in (1, 99):
        result = await world.restore(hostile(world, file(b"f"), claim=claim))
        assert not result.ok and "than its head says" in result.error


async def test_attributes_that_point_an_overlay_elsewhere_are_dropped(world: World) -> None:
    attributes = [
        (b"trusted.overlay.metacopy", b""),
        (b"trusted.overlay.redirect", b"/etc"),
        (b"trusted.other", b"x"),
        (b"user.kept", b"1"),
    ]
    folder = Entry(b"a", Kind.FOLDER, 0o755, 0, 0, 0, xattrs=[(b"trusted.overlay.opaque", b"x"), *attributes])
    result = await world.restore(hostile(world, file(b"f", xattrs=attributes), folder))
    assert result.ok, result.error
    for name in ("f", "a"):
        assert os.listxattr(world.upper / name) == ["user.kept"]


async def test_outside_an_overlay_nothing_gains_rights(world: World) -> None:
    """Folders mode restores onto the machine's own file system."""
    capable = file(b"capable", 0o6755, xattrs=[(b"security.capability", b"\1\0\0\2" + bytes(16))])
    shared = Entry(b"shared", Kind.FOLDER, 0o2775, os.geteuid(), os.getegid(), 0)
    result = await world.restore(hostile(world, capable, shared, root="folders"), root="folders")
    assert result.ok, result.error
    current = world.volume / "current"
    assert stat.S_IMODE((current / "capable").stat().st_mode) == 0o755
    assert os.listxattr(current / "capable") == []
    assert stat.S_IMODE((current / "shared").stat().st_mode) == 0o2775


async def test_whiteout_outside_an_overlay_is_refused(world: World) -> None:
    point = hostile(world, Entry(b"w", Kind.WHITEOUT, 0, 0, 0, 0), root="folders")
    result = await world.restore(point, root="folders")
    assert not result.ok and "whiteout outside an overlay" in result.error


async def test_huge_hole_takes_no_room(world: World) -> None:
    sparse = Entry(b"sparse", Kind.FILE, 0o600, 0, 0, 0, 2**40, [Extent(-1, 0, 2**40)])
    result = await world.restore(hostile(world, sparse))
    assert result.ok, result.error
    assert (world.upper / "sparse").stat().st_blocks == 0


async def test_file_larger_than_the_file_system_allows_is_an_error_in_words(world: World) -> None:
    sparse = Entry(b"sparse", Kind.FILE, 0o600, 0, 0, 0, 2**59, [Extent(-1, 0, 2**59)])
    result = await world.restore(hostile(world, sparse))
    assert world.upper.exists()
    if holds(world.upper.parent, 2**59):  # a tmpfs does
        assert result.ok
    else:
        assert not result.ok and "disk" in result.error


def holds(folder: Path, size: int) -> bool:
    """Whether the file system of `folder` has files of this size."""
    probe = folder / "probe"
    try:
        with probe.open("wb") as out:
            out.truncate(size)
    except OSError:
        return False
    finally:
        probe.unlink(missing_ok=True)
    return True


# --- not for this studio ----------------------------------------------------------------------------------------------


async def test_other_kind_of_root_is_refused_in_words(world: World) -> None:
    result = await world.restore(hostile(world, file(b"f"), root="folders"))
    assert not result.ok and "home and workspace" in result.error


async def test_checkpoint_beyond_the_quota_is_refused_in_words(world: World) -> None:
    (world.upper / "large").write_bytes(random.Random(1).randbytes(2 * 2**20))
    await world.capture()
    result = await world.restore(quota=2**20)
    assert not result.ok and "raise the quota" in result.error
    assert (await world.restore(quota=2 * 2**20)).ok


async def test_other_image_root_below_is_told(world: World) -> None:
    (world.upper / "file").write_bytes(b"x")
    await world.capture()
    result = await world.restore(lower="another")
    assert result.ok and "differ" in result.notes[0]


@pytest.mark.root
async def test_full_disk_is_said_in_words_and_current_stays(tmp_path: Path) -> None:
    with btrfs_volume(tmp_path) as volume:
        (volume / "current" / "upper").mkdir()
        async with catalogue_world(tmp_path) as made:
            gateway = DirectGateway(made, await made.run(await made.studio("s", LINEAGE)))
            world = World(made, gateway, volume)
            (world.upper / "large").write_bytes(random.Random(1).randbytes(150 * 2**20))
            await world.capture()
            result = await world.restore()
            assert not result.ok and "too small" in result.error
            assert (world.upper / "large").stat().st_size == 150 * 2**20
            assert not list(volume.glob("restore-*"))
