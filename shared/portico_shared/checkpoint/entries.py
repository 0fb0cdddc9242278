"""Entries: what a layer consists of, and the segments that hold them.

A segment is the MessagePack array `[version, blocks, groups]`; a group is `[path, entries]` with the path of a folder
(b"" is the layer's own root, no leading slash); an entry's fields are those of `Entry`, in order. Groups come in
depth-first order with names sorted as bytes: a folder's entry always comes before the group of what is in it, a hard
link's first name before the others.
"""

from collections.abc import Iterable, Sequence
from enum import IntEnum

import msgspec

from portico_shared.checkpoint import limits
from portico_shared.checkpoint.block import BlockRef
from portico_shared.checkpoint.faults import Damaged, Unsupported

VERSION = 1
HOLE = -1
"""In place of a block's number: bytes that are zero and take no room."""
SELF = b"."
"""The name of the layer's own root, allowed only as the first entry of the first group."""


class Kind(IntEnum):
    FOLDER = 1
    FILE = 2
    SYMLINK = 3
    FIFO = 4
    WHITEOUT = 5
    """What the layer below has under this name is deleted: a character device 0/0 in an overlay's upper."""
    LINK = 6
    """Another name of the entry with the same `link` number that came before."""
    MORE = 7
    """Further extents of the file just before, which has the same name."""


class Extent(msgspec.Struct, array_like=True, gc=False):
    """A run of a file's bytes: `length` of them from `offset` in the block with this number, or a hole.

    Extents follow each other without gaps. Not frozen: a capture renumbers the blocks of millions of them.
    """

    block: int
    offset: int
    length: int


class Entry(msgspec.Struct, array_like=True, gc=False):
    """One name in a folder. Not frozen for the sake of `Extent`."""

    name: bytes
    kind: int
    mode: int
    """Permission bits with set-user-id, set-group-id, sticky: 0o7777 at most."""
    uid: int
    gid: int
    mtime_ns: int
    size: int = 0
    """Of a file: all its extents, those in MORE included."""
    extents: list[Extent] = []
    target: bytes = b""
    """Of a symlink."""
    xattrs: list[tuple[bytes, bytes]] = []
    """Sorted by name; ACLs as the kernel's `system.posix_acl_*`."""
    link: int = 0
    """Not 0: entries of the layer with this number are names of one file."""


class Group(msgspec.Struct, array_like=True, gc=False):
    path: bytes
    entries: list[Entry]


class Segment(msgspec.Struct, array_like=True, gc=False):
    version: int
    blocks: list[BlockRef]
    groups: list[Group]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Segment)


def encode_segment(blocks: Sequence[BlockRef], groups: Sequence[Group]) -> bytes:
    return _encoder.encode(Segment(VERSION, list(blocks), list(groups)))


def decode_segment(raw: bytes) -> Segment:
    """A segment each of whose entries is sane by itself. Raises Damaged, Unsupported.

    What needs the segments before it (folders, links) is `Order`'s to check; blocks are checked against their packs.
    """
    if len(raw) > limits.MAX_SEGMENT:
        raise Damaged(f"a segment has no {len(raw)} bytes")
    if len(raw) > 1 and raw[1] != VERSION:
        raise Unsupported(f"segments of version {raw[1]} need a newer Portico")
    try:
        segment = _decoder.decode(raw)
    except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
        raise Damaged(f"a segment makes no sense: {error}") from None
    for group in segment.groups:
        _check_path(group.path)
        if len(group.entries) > limits.MAX_GROUP:
            raise Damaged(f"a group has no {len(group.entries)} entries")
        for entry in group.entries:
            _check_entry(entry, segment.blocks)
    return segment


def _check_path(path: bytes) -> None:
    if len(path) > limits.MAX_PATH:
        raise Damaged("a path is too long")
    if path and not all(_is_name(name) for name in path.split(b"/")):
        raise Damaged(f"{path[:80]!r} is no path inside a layer")


def _is_name(name: bytes) -> bool:
    return 0 < len(name) <= limits.MAX_NAME and name not in (b".", b"..") and b"/" not in name and b"\0" not in name


def _check_entry(entry: Entry, blocks: Sequence[BlockRef]) -> None:
    def refuse(why: str) -> Damaged:
        return Damaged(f"entry {entry.name[:80]!r}: {why}")

    if not _is_name(entry.name) and entry.name != SELF:
        raise refuse("no name")
    if entry.kind not in _KINDS:
        raise refuse(f"unknown kind {entry.kind}")
    if not (0 <= entry.mode <= 0o7777 and 0 <= entry.uid < 2**32 and 0 <= entry.gid < 2**32):
        raise refuse("mode or owner out of range")
    if not (-(2**63) <= entry.mtime_ns < 2**63 and 0 <= entry.link < 2**64 and 0 <= entry.size <= limits.MAX_FILE):
        raise refuse("a number out of range")
    if entry.kind == Kind.LINK and not entry.link:
        raise refuse("a link to nothing")
    if entry.extents and entry.kind not in (Kind.FILE, Kind.MORE):
        raise refuse("only files have content")
    if (entry.kind == Kind.SYMLINK) != bool(entry.target) or len(entry.target) > limits.MAX_TARGET:
        raise refuse("a symlink, and nothing else, has a target")
    if b"\0" in entry.target or len(entry.extents) > limits.MAX_EXTENTS or len(entry.xattrs) > limits.MAX_XATTRS:
        raise refuse("over a limit")
    for name, value in entry.xattrs:
        if not 0 < len(name) <= limits.MAX_NAME or b"\0" in name or len(value) > limits.MAX_XATTR_VALUE:
            raise refuse("an attribute over a limit")
    for extent in entry.extents:
        if not 0 < extent.length <= limits.MAX_FILE:
            raise refuse("an extent of no length")
        if extent.block == HOLE:
            continue
        if not 0 <= extent.block < len(blocks) or not 0 <= extent.offset <= blocks[extent.block].raw - extent.length:
            raise refuse("an extent outside its block")


_KINDS = frozenset(Kind)


class Order:
    """Follows a layer's groups and holds what one segment cannot know: folders, first names, complete files."""

    def __init__(self) -> None:
        self._folders: set[bytes] = set()
        self._links: set[int] = set()
        self._last_key: bytes | None = None
        self._names: set[bytes] = set()
        self._open: tuple[bytes, bytes] | None = None
        self._missing = 0
        self.entries = 0
        self.content_bytes = 0
        """Bytes of all files, holes not counted."""

    def take(self, groups: Iterable[Group]) -> None:
        """The next groups. Raises Damaged at the first thing out of order."""
        for group in groups:
            self._enter(group.path)
            for entry in group.entries:
                self._entry(group.path, entry)

    def finish(self) -> None:
        """Raises Damaged when something is still missing."""
        self._closed()

    def _enter(self, path: bytes) -> None:
        key = path.replace(b"/", b"\0")
        if self._last_key is None:
            if path:
                raise Damaged("a layer begins with its root")
        elif path not in self._folders and path:
            raise Damaged(f"{path[:80]!r} is no folder of the layer")
        elif key < self._last_key:
            raise Damaged(f"{path[:80]!r} is out of order")
        if key != self._last_key:
            self._names.clear()
        self._last_key = key

    def _entry(self, path: bytes, entry: Entry) -> None:
        full = path + b"/" + entry.name if path else entry.name
        if entry.kind == Kind.MORE:
            if self._open != (path, entry.name):
                raise Damaged(f"{full[:80]!r} goes on without a beginning")
        else:
            self._closed()
            self._begin(full, entry)
        if entry.kind in (Kind.FILE, Kind.MORE):
            self._missing -= sum(extent.length for extent in entry.extents)
            self.content_bytes += sum(extent.length for extent in entry.extents if extent.block != HOLE)
            if self._missing < 0:
                raise Damaged(f"{full[:80]!r} has more content than its size")
            self._open = (path, entry.name)

    def _begin(self, full: bytes, entry: Entry) -> None:
        if entry.name == SELF:
            if self.entries or full != SELF or entry.kind != Kind.FOLDER:
                raise Damaged("a root that is not the first entry")
        elif entry.name in self._names:
            raise Damaged(f"{full[:80]!r} comes twice")
        self._names.add(entry.name)
        self.entries += 1
        if self.entries > limits.MAX_ENTRIES:
            raise Damaged("too many entries")
        if entry.kind == Kind.FOLDER and entry.name != SELF:
            if len(full) > limits.MAX_PATH:
                raise Damaged("a path is too long")
            self._folders.add(full)
        if entry.kind == Kind.LINK:
            if entry.link not in self._links:
                raise Damaged(f"{full[:80]!r} is a link to what never came")
        elif entry.link:
            if entry.link in self._links or entry.kind in (Kind.FOLDER, Kind.WHITEOUT):
                raise Damaged(f"{full[:80]!r} cannot be the first of linked names")
            self._links.add(entry.link)
        if entry.kind == Kind.FILE:
            self._missing = entry.size

    def _closed(self) -> None:
        if self._open is not None and self._missing:
            raise Damaged(f"{self._open[1][:80]!r} has less content than its size")
        self._open, self._missing = None, 0
