"""From the index's records to a layer: segments cut where the same folders give the same cuts, so that they repeat."""

import zlib
from collections.abc import Iterable, Iterator

from portico_agent.checkpoint.blocks import BlockTable
from portico_agent.checkpoint.index import Record, contents
from portico_agent.checkpoint.packing import Packer
from portico_shared.checkpoint.entries import HOLE, Entry, Extent, Group, Kind, encode_segment
from portico_shared.checkpoint.head import Layer, SegmentRef
from portico_shared.checkpoint.limits import MAX_EXTENTS, MAX_GROUP, SEGMENT_TARGET

LEAST = SEGMENT_TARGET // 4
CUT_MASK = 7
"""Above LEAST one group in eight ends a segment, by its path's checksum: what a change moves ends at the next cut."""
GROUP_SPAN = 1024
"""Entries after which a large folder's group may end, by the name's checksum."""
_EXTENT_BYTES, _BLOCK_BYTES, _ENTRY_BYTES = 8, 90, 40


class LayerWriter:
    """`write` consumes the records once; `layer` is known after the packer's flush."""

    def __init__(self, table: BlockTable, packer: Packer) -> None:
        self._table = table
        self._packer = packer
        self._groups: list[Group] = []
        self._numbers: dict[int, int] = {}
        self._size = 0
        self._segments: list[tuple[int, int]] = []
        self._entries = 0
        self._content = 0
        self.used: set[int] = set()
        """Block numbers the records refer to, as they are written there."""

    def write(self, records: Iterable[Record]) -> None:
        for record in records:
            for group, stable in _groups(record):
                self._add(group)
                if self._size >= SEGMENT_TARGET or (stable and self._size >= LEAST):
                    self._close()
        self._close()

    def layer(self) -> Layer:
        refs = []
        for number, length in self._segments:
            number = self._table.resolve(number)
            self._table.use(number, length)
            refs.append(SegmentRef.of(self._table.blocks[number].ref()))
        return Layer(entries=self._entries, content_bytes=self._content, segments=tuple(refs))

    def _add(self, group: Group) -> None:
        self._groups.append(group)
        self._size += len(group.path) + 8
        for entry in group.entries:
            self._entries += entry.kind != Kind.MORE
            self._size += _weight(entry)
            for extent in entry.extents:
                self._renumber(extent)
            if len(entry.extents) > 1:
                entry.extents = _holes_joined(entry.extents)

    def _renumber(self, extent: Extent) -> None:
        """From the table's number to the place in this segment's list of blocks."""
        if extent.block == HOLE:
            return
        self.used.add(extent.block)
        number = self._table.resolve(extent.block)
        if number == HOLE:
            extent.block, extent.offset = HOLE, 0
            return
        self._content += extent.length
        self._table.use(number, extent.length)
        place = self._numbers.get(number)
        if place is None:
            place = self._numbers[number] = len(self._numbers)
            self._size += _BLOCK_BYTES
        extent.block = place

    def _close(self) -> None:
        if not self._groups:
            return
        raw = encode_segment([self._table.blocks[number].ref() for number in self._numbers], self._groups)
        self._segments.append((self._packer.add(lambda: raw), len(raw)))
        self._groups, self._numbers, self._size = [], {}, 0


def _holes_joined(extents: list[Extent]) -> list[Extent]:
    """Zeros that were read block by block are the same as a hole that was there: one extent."""
    joined = extents[:1]
    for extent in extents[1:]:
        if extent.block == HOLE and joined[-1].block == HOLE:
            joined[-1].length += extent.length
        else:
            joined.append(extent)
    return joined


def _groups(record: Record) -> Iterator[tuple[Group, bool]]:
    """A folder's groups, and whether a segment may end after each however full it is."""
    entries: list[Entry] = []
    size = 0
    for entry in contents(record).entries:
        entries.extend(_split(entry))
        size += _weight(entry)
        stable = len(entries) >= GROUP_SPAN and zlib.crc32(entry.name) & 0xFF == 0
        if stable or len(entries) >= MAX_GROUP // 2 or size >= SEGMENT_TARGET:
            yield Group(record.path, entries), stable
            entries, size = [], 0
    if entries or not record.path:
        yield Group(record.path, entries), zlib.crc32(record.path) & CUT_MASK == 0


def _weight(entry: Entry) -> int:
    """About how many bytes it takes, without its blocks."""
    attributes = sum(len(name) + len(value) + 6 for name, value in entry.xattrs)
    return _ENTRY_BYTES + len(entry.name) + len(entry.target) + attributes + _EXTENT_BYTES * len(entry.extents)


def _split(entry: Entry) -> Iterator[Entry]:
    """A file with more extents than one entry takes goes on in others."""
    if len(entry.extents) <= MAX_EXTENTS:
        yield entry
        return
    rest = entry.extents
    entry.extents = rest[:MAX_EXTENTS]
    yield entry
    for start in range(MAX_EXTENTS, len(rest), MAX_EXTENTS):
        part = rest[start : start + MAX_EXTENTS]
        yield Entry(entry.name, Kind.MORE, entry.mode, entry.uid, entry.gid, entry.mtime_ns, 0, part)
