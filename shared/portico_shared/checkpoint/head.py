"""Heads: the one small object that names all that a checkpoint needs.

A head is JSON (UTF-8, no spaces) so that a person can read one. It says nothing about when or by whom it was made: the
same content gives the same head, and so the same name. The catalogue knows the rest.
"""

from collections.abc import Iterable
from typing import Literal

import msgspec

from portico_shared.checkpoint import limits
from portico_shared.checkpoint.block import BlockRef, check
from portico_shared.checkpoint.digest import is_name
from portico_shared.checkpoint.faults import Damaged, Unsupported

FORMAT = "portico-checkpoint"
VERSION = 1

RootKind = Literal["overlay", "folders"]


class SegmentRef(msgspec.Struct, frozen=True, gc=False):
    """Where a segment lies: a block of a pack."""

    pack: str
    offset: int
    stored: int
    raw: int
    codec: int
    hash: str

    @classmethod
    def of(cls, ref: BlockRef) -> "SegmentRef":
        return cls(ref.pack.hex(), ref.offset, ref.stored, ref.raw, ref.codec, ref.hash.hex())

    @property
    def block(self) -> BlockRef:
        return BlockRef(
            bytes.fromhex(self.pack), self.offset, self.stored, self.raw, self.codec, bytes.fromhex(self.hash)
        )


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    entries: int
    content_bytes: int
    """Bytes of its files, holes not counted."""
    segments: tuple[SegmentRef, ...]


class Head(msgspec.Struct, frozen=True, kw_only=True):
    format: str = FORMAT
    version: int = VERSION
    root: RootKind
    """What a layer is: the upper of an overlay, or the folders `home` and `workspace`."""
    lower: str
    """Fingerprint of the image root below; '' = not known."""
    layers: tuple[Layer, ...]
    """Topmost first, as overlayfs counts."""
    packs: tuple[tuple[str, int], ...]
    """Name and size of every pack that layers and files refer to, sorted by name."""

    @property
    def entries(self) -> int:
        return sum(layer.entries for layer in self.layers)

    @property
    def content_bytes(self) -> int:
        return sum(layer.content_bytes for layer in self.layers)

    def pack_sizes(self) -> dict[bytes, int]:
        return {bytes.fromhex(name): size for name, size in self.packs}


class _Stamp(msgspec.Struct):
    """What every version of the format has."""

    format: str
    version: int


def encode_head(head: Head) -> bytes:
    return msgspec.json.encode(head)


def decode_head(data: bytes) -> Head:
    """A head whose references are sane. Raises Damaged, Unsupported."""
    if len(data) > limits.MAX_HEAD:
        raise Damaged(f"a head has no {len(data)} bytes")
    try:
        stamp = msgspec.json.decode(data, type=_Stamp)
        if stamp.format != FORMAT:
            raise Damaged("it is no head")
        if stamp.version != VERSION:
            raise Unsupported(f"heads of version {stamp.version} need a newer Portico")
        head = msgspec.json.decode(data, type=Head)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
        raise Damaged(f"a head makes no sense: {error}") from None
    _check_packs(head)
    sizes = head.pack_sizes()
    if not 0 < len(head.layers) <= limits.MAX_LAYERS:
        raise Damaged(f"a head has no {len(head.layers)} layers")
    if sum(len(layer.segments) for layer in head.layers) > limits.MAX_SEGMENTS:
        raise Damaged("a head with too many segments")
    for layer in head.layers:
        if not 0 < layer.entries <= limits.MAX_ENTRIES or not 0 <= layer.content_bytes <= limits.MAX_FILE:
            raise Damaged("a head with impossible sums")
        check_refs((segment.block for segment in layer.segments if _hex(segment)), sizes)
    return head


def check_refs(refs: Iterable[BlockRef], pack_sizes: dict[bytes, int]) -> None:
    """Raises Damaged when a block is in none of these packs, or not wholly inside."""
    for ref in refs:
        size = pack_sizes.get(ref.pack)
        if size is None:
            raise Damaged(f"it refers to pack {ref.pack.hex()[:16]}… that its head does not name")
        check(ref, size)


def _check_packs(head: Head) -> None:
    if len(head.packs) > limits.MAX_PACKS:
        raise Damaged(f"a head names no {len(head.packs)} packs")
    if list(head.packs) != sorted(set(head.packs)) or len(head.packs) != len(dict(head.packs)):
        raise Damaged("packs out of order")
    for name, size in head.packs:
        if not is_name(name) or not 0 < size <= limits.MAX_PACK:
            raise Damaged("a pack that cannot be")


def _hex(segment: SegmentRef) -> bool:
    if not is_name(segment.pack) or not is_name(segment.hash):
        raise Damaged("a segment without a name")
    return True
