"""The index of a tree that was just restored, so that its first checkpoint reads nothing.

Nobody else has seen the tree yet: every ctime in it can be trusted.
"""

import time
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

from portico_agent.checkpoint import moment
from portico_agent.checkpoint.blocks import BlockRow, PackRow
from portico_agent.checkpoint.exclusions import Exclusions, rules
from portico_agent.checkpoint.index import IndexWriter, Seen, Trailer
from portico_agent.checkpoint.reading import SMALL
from portico_agent.checkpoint.walk import Walk
from portico_shared.checkpoint.block import BlockRef
from portico_shared.checkpoint.entries import HOLE, Entry, Group, Kind, Segment
from portico_shared.checkpoint.head import Head

Digests = dict[tuple[bytes, bytes], bytes]


class _Numbers:
    """One number for each block, over all segments."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[bytes, int], int] = {}
        self.refs: list[BlockRef] = []

    def of(self, ref: BlockRef) -> int:
        number = self._numbers.get((ref.pack, ref.offset))
        if number is None:
            number = self._numbers[ref.pack, ref.offset] = len(self.refs)
            self.refs.append(ref)
        return number


def write_index(
    index: Path, root: Path, head: Head, content: bytes, segments: Iterable[Segment], digests: Digests
) -> None:
    """`segments` are the top layer's, in order; `content` is the head's own bytes. Raises OSError."""
    numbers, writer = _Numbers(), IndexWriter(index)
    try:
        folders = _folders(segments, numbers)
        ahead = next(folders, None)
        with moment.opened(root) as folder:
            for listing in Walk(folder, Exclusions(rules(head.root))):
                entries: list[Entry] = []
                if ahead is not None and ahead[0] == listing.path:
                    entries, ahead = ahead[1], next(folders, None)
                seen: list[Seen] = [
                    (name, s.st_ino, s.st_ctime_ns, s.st_mtime_ns, s.st_size)
                    for name, s in zip(listing.names, listing.stats, strict=True)
                ]
                known = [_digest(listing.path, entry, digests) for entry in entries]
                writer.add(listing.path, any(entry.link for entry in entries), seen, entries, known)
        for each in head.layers[0].segments:
            numbers.of(each.block)
        writer.finish(_trailer(head, content, numbers.refs))
    finally:
        writer.discard()


def _folders(segments: Iterable[Segment], numbers: _Numbers) -> Iterator[tuple[bytes, list[Entry]]]:
    """Each folder's entries as a scan would have made them: whole files, blocks by their numbers."""
    for path, groups in groupby(_numbered(segments, numbers), key=lambda group: group.path):
        entries: list[Entry] = []
        for group in groups:
            for entry in group.entries:
                if entry.kind == Kind.MORE:
                    entries[-1].extents.extend(entry.extents)
                else:
                    entries.append(entry)
        yield path, entries


def _numbered(segments: Iterable[Segment], numbers: _Numbers) -> Iterator[Group]:
    for segment in segments:
        for group in segment.groups:
            for entry in group.entries:
                for extent in entry.extents:
                    if extent.block != HOLE:
                        extent.block = numbers.of(segment.blocks[extent.block])
            yield group


def _digest(path: bytes, entry: Entry, digests: Digests) -> bytes:
    return digests.get((path, entry.name), b"") if entry.kind == Kind.FILE and entry.size <= SMALL else b""


def _trailer(head: Head, content: bytes, refs: list[BlockRef]) -> Trailer:
    """What of a pack nothing refers to counts as if it had not been compressed: near enough to tell a thin one."""
    sizes = head.pack_sizes()
    raw = dict(sizes)
    for ref in refs:
        raw[ref.pack] += ref.raw - ref.stored
    place = {name: number for number, name in enumerate(sizes)}
    return Trailer(
        packs=[PackRow(name, size, raw[name]) for name, size in sizes.items()],
        blocks=[
            BlockRow(number, place[ref.pack], ref.offset, ref.stored, ref.raw, ref.codec, ref.hash)
            for number, ref in enumerate(refs)
        ],
        aliases={},
        next_id=len(refs),
        head=content,
        committed={},
        taken_at=time.time(),
    )
