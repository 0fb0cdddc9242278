"""The format: what is written is read back, and nothing else is taken for it."""

import random
import struct

import msgspec
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from portico_shared.checkpoint import limits
from portico_shared.checkpoint.attributes import is_kept
from portico_shared.checkpoint.block import BlockRef, Codec, check, decode, encode
from portico_shared.checkpoint.digest import digest, is_name, name_of, require_name
from portico_shared.checkpoint.entries import (
    HOLE,
    SELF,
    Entry,
    Extent,
    Group,
    Kind,
    Order,
    Segment,
    decode_segment,
    encode_segment,
)
from portico_shared.checkpoint.faults import Damaged, FormatError, Unsupported
from portico_shared.checkpoint.head import Head, Layer, SegmentRef, check_refs, decode_head, encode_head
from portico_shared.checkpoint.pack import PackWriter, read_table

PACK = digest(b"a pack")


def ref_of(raw: bytes) -> tuple[BlockRef, bytes]:
    codec, stored = encode(raw)
    return BlockRef(PACK, 12, len(stored), len(raw), codec, digest(raw)), stored


# --- blocks -----------------------------------------------------------------------------------------------------------


@given(st.binary(min_size=1, max_size=5000))
def test_block_is_read_back(raw: bytes) -> None:
    ref, stored = ref_of(raw)
    assert decode(ref, stored) == raw


def test_block_that_does_not_shrink_is_stored_as_it_is() -> None:
    assert encode(random.Random(1).randbytes(10_000))[0] == Codec.STORED
    assert encode(b"text " * 2000)[0] == Codec.ZSTD


@pytest.mark.parametrize("raw", [b"text " * 2000, random.Random(1).randbytes(10_000)])
def test_every_flipped_bit_of_a_block_is_noticed(raw: bytes) -> None:
    ref, stored = ref_of(raw)
    for place in range(0, len(stored), max(1, len(stored) // 50)):
        broken = bytearray(stored)
        broken[place] ^= 1
        with pytest.raises(Damaged):
            decode(ref, bytes(broken))


def test_cut_and_lengthened_blocks_are_noticed() -> None:
    ref, stored = ref_of(b"text " * 2000)
    for other in (stored[:-1], stored + b"x", stored + stored, b""):
        with pytest.raises(Damaged):
            decode(ref, other)
        longer = BlockRef(ref.pack, ref.offset, len(other), ref.raw, ref.codec, ref.hash)
        with pytest.raises(Damaged):
            decode(longer, other)


def test_bomb_is_not_unpacked() -> None:
    """A frame of 1 GiB of zeros is 32 KiB; the reference says 4 MiB, or the truth: neither gets memory."""
    bomb = zstandard.ZstdCompressor(level=1).compress(bytes(2**27))
    for raw in (limits.MAX_BLOCK, 2**27):
        ref = BlockRef(PACK, 12, len(bomb), raw, Codec.ZSTD, digest(b""))
        with pytest.raises(Damaged):
            check(ref, 2**20)
            decode(ref, bomb)


def test_frame_without_a_size_and_frame_with_a_large_window_are_refused() -> None:
    raw = b"text " * 2000
    unsized = zstandard.ZstdCompressor(level=1, write_content_size=False).compress(raw)
    with pytest.raises(Damaged, match="declares"):
        decode(BlockRef(PACK, 12, len(unsized), len(raw), Codec.ZSTD, digest(raw)), unsized)
    parameters = zstandard.ZstdCompressionParameters(window_log=24, write_content_size=False)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    wide = stream.compress(raw) + stream.flush()
    with pytest.raises(Damaged):
        decode(BlockRef(PACK, 12, len(wide), len(raw), Codec.ZSTD, digest(raw)), wide)


@pytest.mark.parametrize(
    "change",
    [{"pack": b"short"}, {"hash": b""}, {"offset": -1}, {"offset": 10**9}, {"stored": 0}, {"raw": 0},
     {"raw": limits.MAX_BLOCK + 1}, {"codec": 7}, {"codec": Codec.STORED}],
)  # fmt: skip
def test_references_that_cannot_be_are_refused(change: dict[str, object]) -> None:
    good = BlockRef(PACK, 12, 100, 200, Codec.ZSTD, digest(b""))
    assert check(good, 112) == good
    with pytest.raises(Damaged):
        check(msgspec.structs.replace(good, **change), 112)


# --- packs ------------------------------------------------------------------------------------------------------------


def pack_of(*contents: bytes) -> bytes:
    writer = PackWriter()
    for raw in contents:
        codec, stored = encode(raw)
        writer.add(len(raw), codec, stored, digest(raw))
    return writer.seal()


def test_pack_tells_its_blocks() -> None:
    contents = [b"one " * 100, b"two " * 1000, random.Random(2).randbytes(500)]
    pack = pack_of(*contents)
    assert [decode(ref, pack[ref.offset : ref.offset + ref.stored]) for ref in read_table(pack)] == contents
    assert read_table(pack_of()) == []


def test_pack_fills_at_its_target() -> None:
    writer = PackWriter()
    piece = bytes(limits.MAX_BLOCK)
    while not writer.full:
        writer.add(len(piece), Codec.STORED, piece, digest(piece))
    assert limits.PACK_TARGET <= writer.size < limits.PACK_TARGET + limits.MAX_BLOCK < limits.MAX_PACK
    assert writer.raw == len(writer) * limits.MAX_BLOCK


def test_damaged_packs_are_refused() -> None:
    pack = pack_of(b"one " * 100, b"two " * 100)
    for broken in (b"", pack[:-1], pack[1:], b"x" * len(pack), pack[:20], pack + b"x"):
        with pytest.raises(Damaged):
            read_table(broken)
    newer = pack[:8] + struct.pack("<I", 2) + pack[12:]
    with pytest.raises(Unsupported, match="newer Portico"):
        read_table(newer)
    longer = pack[:-12] + struct.pack("<I", len(pack)) + pack[-8:]
    with pytest.raises(Damaged, match="longer"):
        read_table(longer)


def test_table_with_a_gap_is_refused() -> None:
    raw = b"one " * 100
    codec, stored = encode(raw)
    writer = PackWriter()
    writer.add(len(raw), codec, stored, digest(raw))
    writer._pieces.append(b"nobody's bytes")
    with pytest.raises(Damaged, match="does not cover"):
        read_table(writer.seal())


@given(st.binary(max_size=300))
def test_garbage_is_no_pack(garbage: bytes) -> None:
    with pytest.raises(FormatError):
        read_table(garbage)


# --- segments ---------------------------------------------------------------------------------------------------------


def folder(name: bytes, **more: object) -> Entry:
    return Entry(name, Kind.FOLDER, 0o755, 0, 0, 1, **more)  # type: ignore[arg-type]


def file(name: bytes, *extents: Extent, size: int | None = None, **more: object) -> Entry:
    total = sum(extent.length for extent in extents) if size is None else size
    return Entry(name, Kind.FILE, 0o644, 0, 0, 1, total, list(extents), **more)  # type: ignore[arg-type]


BLOCK = BlockRef(PACK, 12, 50, 100, Codec.ZSTD, digest(b"x"))


def read_back(*groups: Group, blocks: tuple[BlockRef, ...] = (BLOCK,)) -> Order:
    segment = decode_segment(encode_segment(blocks, groups))
    assert segment == Segment(1, list(blocks), list(groups))
    order = Order()
    order.take(segment.groups)
    order.finish()
    return order


def test_segment_is_read_back_with_every_field() -> None:
    order = read_back(
        Group(b"", [folder(SELF), folder(b"a"), file(b"b\xff\n", Extent(0, 10, 90), Extent(HOLE, 0, 5), link=2**63)]),
        Group(
            b"a",
            [
                Entry(b"l", Kind.SYMLINK, 0o777, 1, 2, -5, target=b"/x"),
                Entry(b"p", Kind.FIFO, 0o640, 4294967295, 0, 2**62, xattrs=[(b"user.a", b"\0"), (b"user.b", b"")]),
                Entry(b"q", Kind.LINK, 0, 0, 0, 0, link=2**63),
                Entry(b"w", Kind.WHITEOUT, 0, 0, 0, 0),
            ],
        ),
    )
    assert (order.entries, order.content_bytes) == (7, 90)


def test_file_goes_on_over_segments() -> None:
    first = decode_segment(
        encode_segment([BLOCK], [Group(b"", [folder(SELF), file(b"f", Extent(0, 0, 60), size=160)])])
    )
    more = Entry(b"f", Kind.MORE, 0o644, 0, 0, 1, 0, [Extent(0, 0, 100)])
    second = decode_segment(encode_segment([BLOCK], [Group(b"", [more])]))
    order = Order()
    order.take(first.groups)
    order.take(second.groups)
    order.finish()
    assert (order.entries, order.content_bytes) == (2, 160)
    short = Order()
    short.take(first.groups)
    with pytest.raises(Damaged, match="less content"):
        short.finish()


HOSTILE_ENTRIES = {
    "parent": folder(b".."),
    "empty name": folder(b""),
    "slash": folder(b"a/b"),
    "zero byte": folder(b"a\0b"),
    "long name": folder(b"n" * 256),
    "kind": Entry(b"x", 9, 0, 0, 0, 0),
    "mode": Entry(b"x", Kind.FIFO, 0o10644, 0, 0, 0),
    "owner": Entry(b"x", Kind.FIFO, 0, -1, 0, 0),
    "time": Entry(b"x", Kind.FIFO, 0, 0, 0, 2**63),
    "size": Entry(b"x", Kind.FILE, 0, 0, 0, 0, -1),
    "huge": Entry(b"x", Kind.FILE, 0, 0, 0, 0, 2**61),
    "content of a folder": folder(b"x", extents=[Extent(0, 0, 1)]),
    "target of a file": file(b"x", target=b"y"),
    "no target": Entry(b"x", Kind.SYMLINK, 0, 0, 0, 0),
    "long target": Entry(b"x", Kind.SYMLINK, 0, 0, 0, 0, target=b"x" * 4096),
    "zero in target": Entry(b"x", Kind.SYMLINK, 0, 0, 0, 0, target=b"a\0"),
    "link to nothing": Entry(b"x", Kind.LINK, 0, 0, 0, 0),
    "attributes": file(b"x", xattrs=[(b"user.%d" % n, b"") for n in range(limits.MAX_XATTRS + 1)]),
    "attribute": file(b"x", xattrs=[(b"user.a", bytes(limits.MAX_XATTR_VALUE + 1))]),
    "attribute's name": file(b"x", xattrs=[(b"a\0b", b"")]),
    "unknown block": file(b"x", Extent(1, 0, 1)),
    "negative block": file(b"x", Extent(-2, 0, 1)),
    "beyond the block": file(b"x", Extent(0, 50, 51)),
    "negative offset": file(b"x", Extent(0, -1, 1)),
    "no length": file(b"x", Extent(0, 0, 0)),
    "negative length": file(b"x", Extent(0, 0, -5), size=0),
}


@pytest.mark.parametrize("what", sorted(HOSTILE_ENTRIES))
def test_hostile_entry_is_refused(what: str) -> None:
    raw = encode_segment([BLOCK], [Group(b"", [HOSTILE_ENTRIES[what]])])
    with pytest.raises(Damaged):
        decode_segment(raw)


@pytest.mark.parametrize("path", [b"/", b"/etc", b"a//b", b"a/../b", b"..", b".", b"a/", b"a\0", b"x/" * 40_000 + b"x"])
def test_hostile_path_is_refused(path: bytes) -> None:
    with pytest.raises(Damaged):
        decode_segment(encode_segment([], [Group(path, [])]))


ROOT = Group(b"", [folder(SELF), folder(b"a"), file(b"f"), Entry(b"s", Kind.SYMLINK, 0, 0, 0, 0, target=b"/etc")])
HOSTILE_ORDERS = {
    "no root first": [Group(b"a", [])],
    "below a file": [ROOT, Group(b"f", [file(b"x")])],
    "below a symlink": [ROOT, Group(b"s", [file(b"passwd")])],
    "below nothing": [ROOT, Group(b"b", [])],
    "backwards": [ROOT, Group(b"a", []), Group(b"", [file(b"z")])],
    "twice": [Group(b"", [folder(SELF), file(b"x"), file(b"x")])],
    "twice over groups": [Group(b"", [folder(SELF), file(b"x")]), Group(b"", [folder(b"x")])],
    "second root": [Group(b"", [folder(SELF), folder(SELF)])],
    "root inside": [ROOT, Group(b"a", [folder(SELF)])],
    "link first": [Group(b"", [folder(SELF), Entry(b"l", Kind.LINK, 0, 0, 0, 0, link=5), file(b"m", link=5)])],
    "two firsts": [Group(b"", [folder(SELF), file(b"l", link=5), file(b"m", link=5)])],
    "linked folder": [Group(b"", [folder(SELF), folder(b"l", link=5)])],
    "more without a file": [Group(b"", [folder(SELF), Entry(b"m", Kind.MORE, 0, 0, 0, 0)])],
    "more of another": [Group(b"", [folder(SELF), file(b"f"), Entry(b"m", Kind.MORE, 0, 0, 0, 0)])],
    "too short": [Group(b"", [folder(SELF), file(b"f", Extent(0, 0, 5), size=6), file(b"g")])],
    "too long": [Group(b"", [folder(SELF), file(b"f", Extent(0, 0, 5), size=4)])],
}  # fmt: skip


@pytest.mark.parametrize("what", sorted(HOSTILE_ORDERS))
def test_hostile_order_is_refused(what: str) -> None:
    with pytest.raises(Damaged):
        read_back(*HOSTILE_ORDERS[what])


def test_newer_segment_says_so() -> None:
    with pytest.raises(Unsupported):
        decode_segment(msgspec.msgpack.encode([2, [], []]))


@given(st.binary(max_size=400))
@settings(max_examples=300)
def test_garbage_is_no_segment(garbage: bytes) -> None:
    try:
        Order().take(decode_segment(garbage).groups)
    except FormatError:
        pass


def test_mutated_segment_is_read_or_refused_never_worse() -> None:
    raw = bytearray(encode_segment([BLOCK], [ROOT, Group(b"a", [file(b"x", Extent(0, 0, 50))])]))
    dice = random.Random(3)
    for _ in range(3000):
        broken = bytearray(raw)
        for _ in range(dice.randrange(1, 4)):
            broken[dice.randrange(len(broken))] = dice.randrange(256)
        try:
            Order().take(decode_segment(bytes(broken)).groups)
        except FormatError:
            pass


# --- heads ------------------------------------------------------------------------------------------------------------


def head_of(**changes: object) -> Head:
    segment = SegmentRef.of(BLOCK)
    layer = Layer(entries=3, content_bytes=10, segments=(segment,))
    good = Head(root="overlay", lower="ab", layers=(layer,), packs=((PACK.hex(), 112),))
    return msgspec.structs.replace(good, **changes)


def test_head_is_read_back_and_says_the_same_for_the_same() -> None:
    head = head_of()
    data = encode_head(head)
    assert decode_head(data) == head
    assert encode_head(decode_head(data)) == data
    assert data.startswith(b'{"format":"portico-checkpoint","version":1,')
    assert (head.entries, head.content_bytes) == (3, 10)


def test_two_layers_are_allowed_for() -> None:
    layer = head_of().layers[0]
    assert decode_head(encode_head(head_of(layers=(layer, layer)))).entries == 6


def test_unknown_keys_are_passed_over() -> None:
    data = encode_head(head_of()).replace(b'"lower"', b'"later":[1,2],"lower"')
    assert decode_head(data) == head_of()


LAYER = head_of().layers[0]
SEGMENT = LAYER.segments[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "something-else"},
        {"layers": ()},
        {"layers": (LAYER,) * 17},
        {"packs": ()},
        {"packs": ((PACK.hex(), 61),)},
        {"packs": ((PACK.hex(), 112), (PACK.hex(), 112))},
        {"packs": (("f" * 64, 5), ("e" * 64, 5), (PACK.hex(), 112))},
        {"packs": ((PACK.hex().upper(), 112),)},
        {"packs": ((PACK.hex(), 0),)},
        {"packs": ((PACK.hex(), 2**40),)},
        {"layers": (msgspec.structs.replace(LAYER, entries=0),)},
        {"layers": (msgspec.structs.replace(LAYER, entries=2**40),)},
        {"layers": (msgspec.structs.replace(LAYER, content_bytes=-1),)},
        {"layers": (msgspec.structs.replace(LAYER, segments=(msgspec.structs.replace(SEGMENT, pack="x"),)),)},
        {"layers": (msgspec.structs.replace(LAYER, segments=(msgspec.structs.replace(SEGMENT, raw=2**30),)),)},
        {"root": "nothing"},
    ],
)
def test_hostile_head_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(Damaged):
        decode_head(encode_head(head_of(**changes)))


def test_newer_head_says_so() -> None:
    with pytest.raises(Unsupported, match="version 2"):
        decode_head(encode_head(head_of(version=2)))


@given(st.binary(max_size=200))
def test_garbage_is_no_head(garbage: bytes) -> None:
    with pytest.raises(FormatError):
        decode_head(garbage)


def test_nesting_without_end_is_refused() -> None:
    with pytest.raises(Damaged):
        decode_head(b'{"format":"portico-checkpoint","version":1,"later":' + b"[" * 200_000)
    with pytest.raises(Damaged):
        decode_segment(b"\x93\x01" + b"\x91" * 200_000)


def test_entries_may_not_refer_to_packs_the_head_does_not_name() -> None:
    check_refs([BLOCK], {PACK: 112})
    with pytest.raises(Damaged, match="does not name"):
        check_refs([BLOCK], {digest(b"other"): 112})


# --- names, attributes ------------------------------------------------------------------------------------------------


def test_names_are_hashes_of_contents() -> None:
    name = name_of(b"content")
    require_name(b"content", name, "packs/x")
    with pytest.raises(Damaged, match="packs/x: its content"):
        require_name(b"other", name, "packs/x")
    assert is_name(name) and not is_name(name.upper()) and not is_name(name[1:]) and not is_name("../" + name[3:])


@pytest.mark.parametrize(
    ("name", "value", "folder_", "overlay", "kept"),
    [
        (b"user.anything", b"", False, True, True),
        (b"system.posix_acl_access", b"x", True, False, True),
        (b"security.capability", b"x", False, True, True),
        (b"security.capability", b"x", True, True, False),
        (b"trusted.overlay.opaque", b"y", True, True, True),
        (b"trusted.overlay.opaque", b"x", True, True, False),
        (b"trusted.overlay.opaque", b"y", False, True, False),
        (b"trusted.overlay.opaque", b"y", True, False, False),
        (b"trusted.overlay.redirect", b"/etc", True, True, False),
        (b"trusted.overlay.metacopy", b"", False, True, False),
        (b"trusted.overlay.origin", b"x", False, True, False),
        (b"trusted.anything", b"x", False, True, False),
        (b"security.selinux", b"x", False, True, False),
        (b"system.other", b"x", False, True, False),
    ],
)
def test_attributes_that_mean_something_are_kept(
    name: bytes, value: bytes, folder_: bool, overlay: bool, kept: bool
) -> None:
    assert is_kept(name, value, folder=folder_, overlay=overlay) is kept
