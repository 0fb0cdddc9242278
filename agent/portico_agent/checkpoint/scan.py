"""One pass over a tree: what changed is read and packed, what did not is taken over from the pass before.

Folders come in walk order and are written to the index in that order; the small files of several folders are being
read ahead in threads meanwhile. A record of the index is the whole truth about one folder.
"""

import os
import stat
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from portico_agent.checkpoint.blocks import BlockTable
from portico_agent.checkpoint.index import Content, IndexReader, IndexWriter, Record, Seen, contents, record_bytes
from portico_agent.checkpoint.packing import Packer
from portico_agent.checkpoint.reading import (
    SMALL,
    LargeFile,
    SmallFile,
    attributes,
    open_file,
    path_below,
    pieces,
    read_small,
)
from portico_agent.checkpoint.walk import Listing, Note, Walk
from portico_shared.checkpoint.digest import digest
from portico_shared.checkpoint.entries import HOLE, SELF, Entry, Extent, Kind
from portico_shared.checkpoint.limits import BLOCK_TARGET

AHEAD = 8 * 1024 * 1024
"""Bytes of small files being read ahead of the packer."""
AHEAD_FOLDERS = 128
BATCH = 48
"""Small files read by one call in a thread: enough to pay for the hand-over, few enough to share the work."""
YOUNG = 20_000_000
"""Nanoseconds: a file changed that shortly before a pass could change again without its ctime moving (the kernel's
clock ticks every 1 to 10 ms)."""


@dataclass(slots=True)
class _Folder:
    """A folder on its way: entries are complete but for what is still being read."""

    path: bytes
    seen: list[Seen]
    entries: list[Entry]
    digests: list[bytes]
    linked: bool
    reads: list[tuple[Future[list[SmallFile | OSError]], list[int]]] = field(default_factory=list)
    large: list[tuple[int, int]] = field(default_factory=list)
    """Place in `entries` and an open descriptor."""
    old: dict[bytes, tuple[Entry, bytes]] = field(default_factory=dict)
    lost: set[int] = field(default_factory=set)
    """Places whose content could not be read: left out, and looked at again the next time."""
    weight: int = 0


class Scan:
    """`run` does it once. `young`: ctimes from here on (ns) are not trusted the next time."""

    def __init__(
        self,
        table: BlockTable,
        packer: Packer,
        pool: ThreadPoolExecutor,
        *,
        overlay: bool,
        young: int,
        check: Callable[[int], None],
        note: Note,
    ) -> None:
        self._table = table
        self._packer = packer
        self._pool = pool
        self._overlay = overlay
        self._young = young
        self._check = check
        self._note = note
        self._waiting: deque[_Folder | Record] = deque()
        self._ahead = 0
        self._links: dict[int, int] = {}
        """Inodes with several names that came already, and the number their names share."""
        self._solid = bytearray()
        self._solid_number = -1
        self.entries = 0
        self.read = 0
        """Bytes read because they changed or were not known."""
        self.fresh = 0
        """Folders that were not exactly as before."""

    def run(self, walk: Walk, before: IndexReader | None, writer: IndexWriter) -> None:
        """Every folder goes into `writer`. Raises OSError, and whatever `check` or the packer's receiver raises."""
        usable = before is not None and (before.trailer is None or not before.trailer.thinned)
        for listing in walk:
            self._check(self.read)
            record = None if before is None else before.folder(listing.path)
            seen = self._seen(listing)
            self.entries += len(seen)
            as_before = usable and record is not None and not record.linked and record.seen == seen
            if as_before and record is not None and not any(map(_shares, listing.stats)):
                self._waiting.append(record)
            else:
                self._take(listing, seen, record)
            while len(self._waiting) > AHEAD_FOLDERS or self._ahead > AHEAD:
                self._emit(writer)
        while self._waiting:
            self._emit(writer)
        self._close_solid()

    # --- what a folder holds ------------------------------------------------------------------------------------------

    def _seen(self, listing: Listing) -> list[Seen]:
        """What tells whether the folder changed. A young ctime becomes a number that no other pass comes to."""
        young = self._young
        return [
            (name, s.st_ino, s.st_ctime_ns if s.st_ctime_ns < young else -young, s.st_mtime_ns, s.st_size)
            for name, s in zip(listing.names, listing.stats, strict=True)
        ]

    def _take(self, listing: Listing, seen: list[Seen], record: Record | None) -> None:
        """Begin a folder: entries of what is as before, reads begun for the rest."""
        content = Content([], []) if record is None else contents(record)
        before = {} if record is None else {row[0]: row for row in record.seen}
        old = {each.name: (each, known) for each, known in zip(content.entries, content.digests, strict=True)}
        folder = _Folder(listing.path, seen, [], [], linked=False, old=old)
        small: list[bytes] = []
        places: list[int] = []
        differs = record is None or record.seen != seen
        for row, info in zip(seen, listing.stats, strict=True):
            name = row[0]
            entry, known = self._same(row, before.get(name), old.get(name), info)
            if entry is None:
                differs = True
                entry = self._fresh(listing, name, info)
                if entry is None:
                    continue
                if entry.kind == Kind.FILE and info.st_size > SMALL:
                    self._open_large(folder, listing, name)
                elif entry.kind == Kind.FILE and info.st_size:
                    small.append(name)
                    places.append(len(folder.entries))
                    folder.weight += info.st_size
            folder.linked |= bool(entry.link)
            folder.entries.append(entry)
            folder.digests.append(known)
        if not differs and record is not None:
            self._waiting.append(record)
            return
        self.fresh += 1
        for start in range(0, len(small), BATCH):
            part = slice(start, start + BATCH)
            reading = self._pool.submit(read_small, listing.handle.hold(), small[part], self._overlay)
            folder.reads.append((reading, places[part]))
        self._ahead += folder.weight
        self._waiting.append(folder)

    def _same(
        self, row: Seen, before: Seen | None, old: tuple[Entry, bytes] | None, info: os.stat_result
    ) -> tuple[Entry | None, bytes]:
        """The entry of the pass before, when it still says everything."""
        if before is None or old is None or row != before:
            return None, b""
        entry, known = old
        if not all(self._table.usable(extent.block) for extent in entry.extents):
            return None, b""
        if _shares(info) or entry.link:
            number = self._links.get(info.st_ino)
            role = (Kind.LINK, number) if number else (_kind(info), entry.link)
            if not _shares(info) or not entry.link or (entry.kind, entry.link) != role:
                return None, b""
            self._links[info.st_ino] = entry.link
        return entry, known

    def _fresh(self, listing: Listing, name: bytes, info: os.stat_result) -> Entry | None:
        """A new entry without content; None for what no checkpoint holds, or what is gone meanwhile."""
        kind = _kind(info)
        if kind is None:
            if not stat.S_ISSOCK(info.st_mode):
                self._note("a device", listing.path + b"/" + name)
            return None
        entry = Entry(name, kind, stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, info.st_mtime_ns)
        if _shares(info):
            number = self._links.get(info.st_ino)
            if number is not None:
                entry.kind, entry.link = Kind.LINK, number
                return entry
            entry.link = self._links[info.st_ino] = _link_number(listing.path + b"/" + name)
        folder = listing.handle.number
        if kind == Kind.SYMLINK:
            try:
                entry.target = os.readlink(name, dir_fd=folder)
            except FileNotFoundError:
                return None
        elif name == SELF:
            entry.xattrs = attributes(folder, folder=True, overlay=self._overlay)
        elif kind == Kind.FOLDER or (kind in (Kind.FILE, Kind.FIFO) and not info.st_size):
            entry.xattrs = attributes(path_below(folder, name), folder=kind == Kind.FOLDER, overlay=self._overlay)
        return entry

    def _open_large(self, folder: _Folder, listing: Listing, name: bytes) -> None:
        place = len(folder.entries)
        try:
            descriptor = open_file(listing.handle.number, name)
        except OSError as error:
            self._lost(folder, place, error, name)
        else:
            folder.large.append((place, descriptor))
            folder.weight += BLOCK_TARGET  # what counts is that few are open at once

    # --- content ------------------------------------------------------------------------------------------------------

    def _emit(self, writer: IndexWriter) -> None:
        """The oldest folder on its way is complete: write it."""
        folder = self._waiting.popleft()
        if isinstance(folder, Record):
            writer.add_raw(record_bytes(folder))
            return
        self._ahead -= folder.weight
        for reading, places in folder.reads:
            for place, found in zip(places, reading.result(), strict=True):
                if isinstance(found, OSError):
                    self._lost(folder, place, found, folder.entries[place].name)
                else:
                    self._small(folder, place, found)
        while folder.large:
            place, descriptor = folder.large.pop(0)
            self._large(folder.entries[place], descriptor)
        self._drop_lost(folder)
        writer.add(folder.path, folder.linked, folder.seen, folder.entries, folder.digests)

    def _lost(self, folder: _Folder, place: int, error: OSError, name: bytes) -> None:
        folder.lost.add(place)
        if not isinstance(error, FileNotFoundError):
            self._note(f"it cannot be read: {error.strerror}", folder.path + b"/" + name)

    def _drop_lost(self, folder: _Folder) -> None:
        if not folder.lost:
            return
        names = {folder.entries[place].name for place in folder.lost}
        kept = [place for place in range(len(folder.entries)) if place not in folder.lost]
        folder.seen = [(*row[:2], -self._young, *row[3:]) if row[0] in names else row for row in folder.seen]
        folder.entries = [folder.entries[place] for place in kept]
        folder.digests = [folder.digests[place] for place in kept]

    def _small(self, folder: _Folder, place: int, found: SmallFile) -> None:
        entry = folder.entries[place]
        entry.xattrs, entry.size = found.attributes, len(found.content)
        folder.digests[place] = found.digest
        self.read += entry.size
        if not entry.size:
            return
        old, known = folder.old.get(entry.name, (None, b""))
        if old is not None and known == found.digest and all(self._table.usable(e.block) for e in old.extents):
            entry.extents = old.extents
            return
        if len(self._solid) + entry.size > BLOCK_TARGET:
            self._close_solid()
        if self._solid_number < 0:
            self._solid_number = self._table.reserve()
        entry.extents = [Extent(self._solid_number, len(self._solid), entry.size)]
        self._solid += found.content

    def _close_solid(self) -> None:
        if self._solid_number >= 0:
            content = bytes(self._solid)
            self._packer.add(lambda: content, self._solid_number)
            self._solid.clear()
            self._solid_number = -1

    def _large(self, entry: Entry, descriptor: int) -> None:
        """Block by block, the same cuts every time: a block that did not change is found again by its hash."""
        file = LargeFile(descriptor)
        try:
            entry.xattrs = attributes(descriptor, overlay=self._overlay)
            info = os.fstat(descriptor)
            entry.size, entry.extents = info.st_size, []
            for piece in pieces(descriptor, info):
                if piece.hole:
                    entry.extents.append(Extent(HOLE, 0, piece.length))
                    continue
                self._check(self.read)
                number = self._packer.add(file.source(piece))
                entry.extents.append(Extent(number, 0, piece.length))
                self.read += piece.length
        finally:
            file.close()

    def close(self) -> None:
        """After a failure: descriptors of what was not read any more."""
        for folder in self._waiting:
            for _, descriptor in [] if isinstance(folder, Record) else folder.large:
                os.close(descriptor)
        self._waiting.clear()


def _kind(info: os.stat_result) -> Kind | None:
    match stat.S_IFMT(info.st_mode):
        case stat.S_IFREG:
            return Kind.FILE
        case stat.S_IFDIR:
            return Kind.FOLDER
        case stat.S_IFLNK:
            return Kind.SYMLINK
        case stat.S_IFIFO:
            return Kind.FIFO
        case stat.S_IFCHR if info.st_rdev == 0:
            return Kind.WHITEOUT
    return None


def _shares(info: os.stat_result) -> bool:
    """Whether the file has several names that mean anything. Overlayfs links its whiteouts to save inodes."""
    return info.st_nlink > 1 and not stat.S_ISDIR(info.st_mode) and not stat.S_ISCHR(info.st_mode)


def _link_number(path: bytes) -> int:
    """From the first name's path, so that the same tree gives the same numbers on any disk. Never 0."""
    return int.from_bytes(digest(path)[:7], "big") + 1
