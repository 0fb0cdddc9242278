"""Putting a layer's entries into an empty folder that nobody else sees yet.

The manifest is hostile until proven: names are checked where they are decoded, every folder is opened one component at
a time without following links, and each name is created, never replaced. What a head may not bring is dropped here:
attributes that `is_kept` does not know and, outside an overlay's upper, set-user-id bits and file capabilities.
"""

import contextlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from portico_shared.checkpoint.attributes import is_kept
from portico_shared.checkpoint.block import BlockRef
from portico_shared.checkpoint.digest import digest
from portico_shared.checkpoint.entries import HOLE, SELF, Entry, Group, Kind
from portico_shared.checkpoint.faults import Damaged

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
CACHED = 128
"""Folders each thread keeps open."""


@dataclass(slots=True, eq=False)
class File:
    """A file whose content is still to come."""

    folder: bytes
    entry: Entry


@dataclass(frozen=True, slots=True)
class Run:
    """Bytes of a block that belong into a file."""

    file: File
    at: int
    offset: int
    length: int


@dataclass(slots=True)
class Wanted:
    """A block and everything it is needed for."""

    ref: BlockRef
    runs: list[Run] = field(default_factory=list)


class Folders:
    """Folders below a root by path, opened without following any link; each thread keeps its last ones open."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._local = threading.local()
        self._all: list[OrderedDict[bytes, int]] = []
        self._lock = threading.Lock()

    def open(self, path: bytes) -> int:
        """A descriptor that stays ours; good until CACHED others were asked for in this thread."""
        if not path:
            return self._root
        cache = self._cache()
        found = cache.get(path)
        if found is not None:
            cache.move_to_end(path)
            return found
        found = self._open(path, cache)
        cache[path] = found
        while len(cache) > CACHED:
            os.close(cache.popitem(last=False)[1])
        return found

    def _open(self, path: bytes, cache: OrderedDict[bytes, int]) -> int:
        """Down from the nearest folder that is open."""
        missing: list[bytes] = []
        here, near = path, self._root
        while here:
            here, _, name = here.rpartition(b"/")
            missing.append(name)
            if here in cache:
                near = cache[here]
                break
        opened = -1
        for name in reversed(missing):
            following = os.open(name, _FOLDER, dir_fd=near)
            if opened >= 0:
                os.close(opened)
            near = opened = following
        return opened

    def _cache(self) -> OrderedDict[bytes, int]:
        cache: OrderedDict[bytes, int] | None = getattr(self._local, "cache", None)
        if cache is None:
            cache = self._local.cache = OrderedDict()
            with self._lock:
                self._all.append(cache)
        return cache

    def close(self) -> None:
        """When no thread uses it any more."""
        for cache in self._all:
            for descriptor in cache.values():
                os.close(descriptor)
            cache.clear()


class Landing:
    """One layer. `place` its groups in order (one thread), `write` blocks (any threads), then `finish`."""

    def __init__(self, root: int, *, overlay: bool) -> None:
        self._folders = Folders(root)
        self._overlay = overlay
        self._late: list[tuple[bytes, Entry]] = []
        """Folders: their times and rights come last."""
        self._first: dict[int, tuple[bytes, bytes]] = {}
        self._links: list[tuple[bytes, Entry]] = []
        self._open: File | None = None
        self._position = 0
        self._pieced: list[File] = []
        """Files of several runs: which one comes last is nobody's business, so they are dressed at the end."""
        self.digests: dict[tuple[bytes, bytes], bytes] = {}
        """Of files written at once, by folder and name."""
        self.wanted: dict[tuple[bytes, int], Wanted] = {}
        """By pack and offset."""
        self.owners_lost = 0
        """Entries whose owner could not be set: this process may not."""

    def place(self, groups: list[Group], blocks: list[BlockRef]) -> None:
        """Raises OSError, Damaged."""
        for group in groups:
            folder = self._folders.open(group.path)
            for entry in group.entries:
                try:
                    self._place(group.path, folder, entry, blocks)
                except FileExistsError:
                    raise Damaged(f"{entry.name[:80]!r} comes twice") from None

    def _place(self, path: bytes, folder: int, entry: Entry, blocks: list[BlockRef]) -> None:
        if entry.link and entry.kind != Kind.LINK:
            self._first[entry.link] = (path, entry.name)
        match entry.kind:
            case Kind.FOLDER:
                if entry.name != SELF:
                    os.mkdir(entry.name, 0o700, dir_fd=folder)
                self._late.append((path, entry))
            case Kind.FILE:
                self._begin_file(path, folder, entry, blocks)
            case Kind.MORE:
                assert self._open is not None, "the order was checked"
                self._plan(self._open, entry, blocks)
            case Kind.SYMLINK:
                os.symlink(entry.target, entry.name, dir_fd=folder)
                self._dress(folder, entry)
            case Kind.FIFO:
                os.mkfifo(entry.name, 0o600, dir_fd=folder)
                self._dress(folder, entry)
            case Kind.WHITEOUT:
                if not self._overlay:
                    raise Damaged("a whiteout outside an overlay")
                os.mknod(entry.name, 0o20000, os.makedev(0, 0), dir_fd=folder)
                self._dress(folder, entry)
            case _:
                self._links.append((path, entry))

    # --- files --------------------------------------------------------------------------------------------------------

    def _begin_file(self, path: bytes, folder: int, entry: Entry, blocks: list[BlockRef]) -> None:
        file = self._open = File(path, entry)
        self._position = 0
        whole = len(entry.extents) == 1 and entry.extents[0].block != HOLE and entry.extents[0].length == entry.size
        if not whole:
            self._pieced.append(file)
            descriptor = os.open(entry.name, _NEW, 0o600, dir_fd=folder)
            try:
                os.ftruncate(descriptor, entry.size)
            finally:
                os.close(descriptor)
        self._plan(file, entry, blocks)

    def _plan(self, file: File, entry: Entry, blocks: list[BlockRef]) -> None:
        for extent in entry.extents:
            if extent.block != HOLE:
                ref = blocks[extent.block]
                wanted = self.wanted.get((ref.pack, ref.offset))
                if wanted is None:
                    wanted = self.wanted[ref.pack, ref.offset] = Wanted(ref)
                elif wanted.ref != ref:
                    raise Damaged(f"two different blocks at {ref.offset} of pack {ref.pack.hex()[:16]}…")
                wanted.runs.append(Run(file, self._position, extent.offset, extent.length))
            self._position += extent.length

    def write(self, wanted: Wanted, raw: bytes) -> None:
        """A verified block's bytes, to wherever they belong. Any thread. Raises OSError."""
        for run in wanted.runs:
            content = memoryview(raw)[run.offset : run.offset + run.length]
            folder, entry = self._folders.open(run.file.folder), run.file.entry
            whole = run.length == entry.size
            descriptor = os.open(entry.name, _NEW if whole else _WRITE, 0o600, dir_fd=folder)
            try:
                _write_all(descriptor, content, run.at)
                if whole:
                    self.digests[run.file.folder, entry.name] = digest(content)
                    self._dress_open(descriptor, entry)
            finally:
                os.close(descriptor)

    # --- rights, attributes, times ------------------------------------------------------------------------------------

    def finish(self) -> None:
        """What waits for everything else: files of several runs, links, folders from the inside out. Raises OSError."""
        for file in self._pieced:
            descriptor = os.open(file.entry.name, _WRITE, dir_fd=self._folders.open(file.folder))
            try:
                self._dress_open(descriptor, file.entry)
            finally:
                os.close(descriptor)
        for path, entry in self._links:
            first_path, first_name = self._first[entry.link]
            # the second one asked for may push the first out of the cache: hold it by a duplicate
            source = os.dup(self._folders.open(first_path))
            try:
                folder = self._folders.open(path)
                os.link(first_name, entry.name, src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False)
            finally:
                os.close(source)
        for path, entry in reversed(self._late):
            full = path if entry.name == SELF else path + b"/" + entry.name if path else entry.name
            self._dress_open(self._folders.open(full), entry)

    def close(self) -> None:
        self._folders.close()

    def _dress_open(self, descriptor: int, entry: Entry) -> None:
        """Owner first, for it takes set-user-id bits and capabilities off; times last, for all else moves them."""
        info = os.fstat(descriptor)
        if (info.st_uid, info.st_gid) != (entry.uid, entry.gid):
            self._own(lambda: os.fchown(descriptor, entry.uid, entry.gid))
        for name, value in entry.xattrs:
            if self._is_kept(entry, name, value):
                with contextlib.suppress(PermissionError):
                    os.setxattr(descriptor, name, value)
        os.fchmod(descriptor, self._mode(entry))
        os.utime(descriptor, ns=(entry.mtime_ns, entry.mtime_ns))

    def _dress(self, folder: int, entry: Entry) -> None:
        """The same for what is not opened: nothing that is followed, nothing that blocks."""
        self._own(lambda: os.chown(entry.name, entry.uid, entry.gid, dir_fd=folder, follow_symlinks=False))
        if entry.kind != Kind.SYMLINK:
            below = b"/proc/self/fd/%d/%s" % (folder, entry.name)
            for name, value in entry.xattrs:
                if self._is_kept(entry, name, value):
                    with contextlib.suppress(PermissionError):
                        os.setxattr(below, name, value, follow_symlinks=False)
            os.chmod(entry.name, self._mode(entry), dir_fd=folder)
        os.utime(entry.name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=folder, follow_symlinks=False)

    def _own(self, change: Callable[[], None]) -> None:
        try:
            change()
        except PermissionError:
            self.owners_lost += 1

    def _is_kept(self, entry: Entry, name: bytes, value: bytes) -> bool:
        return is_kept(name, value, folder=entry.kind == Kind.FOLDER, overlay=self._overlay) and (
            self._overlay or name != b"security.capability"
        )

    def _mode(self, entry: Entry) -> int:
        keeps = self._overlay or entry.kind == Kind.FOLDER
        return entry.mode if keeps else entry.mode & ~0o6000


def _write_all(descriptor: int, content: memoryview, at: int) -> None:
    while content:
        count = os.pwrite(descriptor, content, at)
        content, at = content[count:], at + count
