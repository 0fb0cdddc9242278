"""The index: what the last capture (or restore) saw, in the order of a walk, so that the next one reads what changed.

    magic | u32 length, record | … | u32 0 | trailer (MessagePack) | u64 offset of the trailer | blake3 of all before

It never leaves the studio's volume and is trusted for speed alone: an index that is missing or damaged means that
everything is read anew. Numbers are little-endian.
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec
from blake3 import blake3

from portico_agent.checkpoint.blocks import BlockRow, PackRow
from portico_agent.checkpoint.spool import Spool
from portico_shared.checkpoint.entries import Entry
from portico_shared.checkpoint.head import Head

_MAGIC = b"PTCOIDX1"
_LENGTH = struct.Struct("<I")
_FOOT = struct.Struct("<Q32s")
_PIECE = 1024 * 1024

Seen = tuple[bytes, int, int, int, int]
"""Name, inode, ctime_ns (0 = too young to be trusted), mtime_ns, size."""


class Record(msgspec.Struct, array_like=True, gc=False):
    """One folder. The entries are decoded only where something changed."""

    path: bytes
    linked: bool
    """Some names in it share their file with others: which comes first depends on the whole walk."""
    seen: list[Seen]
    content: msgspec.Raw


class Content(msgspec.Struct, array_like=True, gc=False):
    entries: list[Entry]
    digests: list[bytes]
    """For each entry blake3 of a small file's content, else b""."""


class Trailer(msgspec.Struct, kw_only=True):
    packs: list[PackRow]
    blocks: list[BlockRow]
    aliases: dict[int, int]
    next_id: int
    head: bytes
    """The head's own bytes."""
    committed: dict[int, str]
    """Newest head by catalogue row."""
    taken_at: float
    run: str = ""
    """The run whose rows `committed` names."""
    thinned: bool = False
    """Some entries refer to blocks that are not used any more: every entry has to be looked at."""

    def parsed(self) -> Head | None:
        return msgspec.json.decode(self.head, type=Head) if self.head else None


_encode = msgspec.msgpack.Encoder().encode
_records = msgspec.msgpack.Decoder(Record)
_contents = msgspec.msgpack.Decoder(Content)
_trailers = msgspec.msgpack.Decoder(Trailer)


def sort_key(path: bytes) -> bytes:
    """Orders paths as a depth-first walk with sorted names visits them."""
    return path.replace(b"/", b"\0")


class IndexWriter:
    """Writes beside `path`; `finish` puts it in place of `path`."""

    def __init__(self, path: Path, suffix: str = ".new") -> None:
        self._path = path
        self._spool = Spool(path.with_name(path.name + suffix))
        self._hash = blake3()
        self._position = 0
        self._write(_MAGIC)

    def add(self, path: bytes, linked: bool, seen: list[Seen], entries: list[Entry], digests: list[bytes]) -> None:
        content = msgspec.Raw(_encode(Content(entries, digests)))
        self.add_raw(_encode(Record(path, linked, seen, content)))

    def add_raw(self, record: bytes) -> None:
        self._write(_LENGTH.pack(len(record)))
        self._write(record)

    def records(self) -> Iterator[Record]:
        """What was added so far."""
        with self._spool.reader() as source:
            source.seek(len(_MAGIC))
            yield from _read_records(source, self._position)

    def finish(self, trailer: Trailer) -> bool:
        """False when the disk is full: the index before it stays."""
        self._write(_LENGTH.pack(0))
        offset = self._position
        self._write(_encode(trailer))
        self._spool.write(_FOOT.pack(offset, self._hash.digest()))
        return self._spool.install(self._path)

    def discard(self) -> None:
        """After `finish` this does nothing."""
        self._spool.discard()

    def _write(self, data: bytes) -> None:
        self._spool.write(data)
        self._hash.update(data)
        self._position += len(data)


class IndexReader:
    """Made by `open_index` or over records that are still being written."""

    def __init__(self, records: Iterator[Record], trailer: Trailer | None = None) -> None:
        self._records = records
        self._ahead: Record | None = next(records, None)
        self.trailer = trailer

    def folder(self, path: bytes) -> Record | None:
        """The record of this folder. Ask in the order of a walk; what was passed over is gone."""
        key = sort_key(path)
        while self._ahead is not None and sort_key(self._ahead.path) < key:
            self._ahead = next(self._records, None)
        if self._ahead is None or self._ahead.path != path:
            return None
        found, self._ahead = self._ahead, next(self._records, None)
        return found


def contents(record: Record) -> Content:
    return _contents.decode(record.content)


def record_bytes(record: Record) -> bytes:
    return _encode(record)


def open_index(path: Path) -> IndexReader | None:
    """None when there is none that can be used."""
    try:
        trailer = _read_trailer(path)
        return IndexReader(_file_records(path), trailer)
    except (OSError, ValueError, struct.error, msgspec.MsgspecError):
        return None


def _read_trailer(path: Path) -> Trailer:
    with path.open("rb") as source:
        end = os.fstat(source.fileno()).st_size - _FOOT.size
        digest, position = blake3(), 0
        while position < end:
            piece = source.read(min(_PIECE, end - position))
            if not piece:
                raise ValueError("cut short")
            digest.update(piece)
            position += len(piece)
        offset, expected = _FOOT.unpack(source.read(_FOOT.size))
        if digest.digest() != expected:
            raise ValueError("damaged")
        source.seek(0)
        if source.read(len(_MAGIC)) != _MAGIC:
            raise ValueError("of another version")
        source.seek(offset)
        return _trailers.decode(source.read(end - offset))


def _file_records(path: Path) -> Iterator[Record]:
    with path.open("rb", buffering=_PIECE) as source:
        source.seek(len(_MAGIC))
        yield from _read_records(source, None)


def _read_records(source: BinaryIO, end: int | None) -> Iterator[Record]:
    while end is None or source.tell() < end:
        (length,) = _LENGTH.unpack(source.read(_LENGTH.size))
        if length == 0:
            return
        yield _records.decode(source.read(length))
