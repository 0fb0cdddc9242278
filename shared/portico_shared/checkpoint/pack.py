"""Packs: blocks one after the other, then a table of them, then a footer.

    magic "PTCOPACK" | version u32 | blocks … | table (MessagePack) | table's length u32 | magic "PTCOPEND"

All numbers little-endian. A checkpoint is read through its segments, which say where each block lies; the table lets a
pack be checked or salvaged on its own.
"""

import struct

import msgspec

from portico_shared.checkpoint import limits
from portico_shared.checkpoint.block import BlockRef, Codec, check
from portico_shared.checkpoint.digest import SIZE
from portico_shared.checkpoint.faults import Damaged, Unsupported

VERSION = 1
_HEAD = struct.Struct("<8sI")
_FOOT = struct.Struct("<I8s")
_MAGIC, _END = b"PTCOPACK", b"PTCOPEND"


class TableRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One block: where it begins and what it is. An array in this order."""

    offset: int
    stored: int
    raw: int
    codec: int
    hash: bytes


class PackWriter:
    """Collects encoded blocks in memory; `seal` gives the object's bytes."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = [_HEAD.pack(_MAGIC, VERSION)]
        self._rows: list[TableRow] = []
        self.size = _HEAD.size
        """Bytes so far, without table and footer."""
        self.raw = 0

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, raw: int, codec: Codec, stored: bytes, digest: bytes) -> int:
        """Append a block of `raw` raw bytes; where it begins."""
        offset = self.size
        self._rows.append(TableRow(offset, len(stored), raw, codec, digest))
        self._pieces.append(stored)
        self.size += len(stored)
        self.raw += raw
        return offset

    @property
    def full(self) -> bool:
        return self.size >= limits.PACK_TARGET

    def seal(self) -> bytes:
        table = msgspec.msgpack.encode(self._rows)
        return b"".join([*self._pieces, table, _FOOT.pack(len(table), _END)])


def read_table(pack: bytes | memoryview, name: bytes = b"\0" * SIZE) -> list[BlockRef]:
    """The blocks of a whole pack, in order. Raises Damaged, Unsupported."""
    view = memoryview(pack)
    if not _HEAD.size + _FOOT.size <= len(view) <= limits.MAX_PACK:
        raise Damaged(f"a pack has no {len(view)} bytes")
    magic, version = _HEAD.unpack(view[: _HEAD.size])
    length, end = _FOOT.unpack(view[-_FOOT.size :])
    if magic != _MAGIC or end != _END:
        raise Damaged("it is no pack")
    if version != VERSION:
        raise Unsupported(f"packs of version {version} need a newer Portico")
    start = len(view) - _FOOT.size - length
    if start < _HEAD.size:
        raise Damaged("its table is longer than the pack")
    try:
        rows = msgspec.msgpack.decode(view[start : len(view) - _FOOT.size], type=list[TableRow])
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
        raise Damaged(f"its table makes no sense: {error}") from None
    refs, position = [], _HEAD.size
    for row in rows:
        if row.offset != position:
            raise Damaged(f"its table has a gap at {position}")
        refs.append(check(BlockRef(name, row.offset, row.stored, row.raw, row.codec, row.hash), start))
        position += row.stored
    if position != start:
        raise Damaged("its table does not cover it")
    return refs
