"""Blocks: the unit of compression and of verification."""

import threading
from enum import IntEnum

import msgspec
import zstandard

from portico_shared.checkpoint import limits
from portico_shared.checkpoint.digest import SIZE, digest
from portico_shared.checkpoint.faults import Damaged

LEVEL = 1
"""zstd's fastest regular level: on two cores compression is what a full capture waits for."""
WORTH = 0.97
"""A block that zstd cannot bring below this share is stored as it is, which makes reading it back free."""


class Codec(IntEnum):
    STORED = 0
    ZSTD = 1


class BlockRef(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Where a block lies and what it must turn out to be. On the wire an array in this order."""

    pack: bytes
    """The pack's name, 32 bytes."""
    offset: int
    stored: int
    raw: int
    codec: int
    hash: bytes
    """Of the raw content."""


_local = threading.local()


def encode(raw: bytes | bytearray | memoryview, level: int = LEVEL) -> tuple[Codec, bytes]:
    """How to store `raw`. Any thread; releases the interpreter while it works."""
    compressor = getattr(_local, "compressor", None)
    if compressor is None or _local.level != level:
        _local.level = level
        compressor = _local.compressor = zstandard.ZstdCompressor(
            level=level, write_content_size=True, write_checksum=False, write_dict_id=False
        )
    stored: bytes = compressor.compress(raw)
    if len(stored) > WORTH * len(raw):
        return Codec.STORED, bytes(raw)
    return Codec.ZSTD, stored


def decode(ref: BlockRef, stored: bytes | memoryview) -> bytes:
    """The verified raw content. Raises Damaged."""
    raw = _unpacked(ref, stored)
    if len(raw) != ref.raw or digest(raw) != ref.hash:
        raise Damaged(f"the block at {ref.offset} does not match its hash")
    return raw


def check(ref: BlockRef, pack_size: int) -> BlockRef:
    """Raises Damaged for a reference that no pack of `pack_size` bytes can satisfy."""
    sane = (
        len(ref.pack) == SIZE
        and len(ref.hash) == SIZE
        and 0 < ref.raw <= limits.MAX_BLOCK
        and 0 < ref.stored <= limits.MAX_BLOCK
        and 0 <= ref.offset <= pack_size - ref.stored
        and ref.codec in (Codec.STORED, Codec.ZSTD)
        and (ref.codec != Codec.STORED or ref.stored == ref.raw)
    )
    if not sane:
        raise Damaged(f"a block at {ref.offset} cannot be: {ref.stored} stored, {ref.raw} raw bytes")
    return ref


def _unpacked(ref: BlockRef, stored: bytes | memoryview) -> bytes:
    if len(stored) != ref.stored:
        raise Damaged(f"the block at {ref.offset} is cut short")
    if ref.codec == Codec.STORED:
        return bytes(stored)
    try:
        frame = zstandard.get_frame_parameters(stored)
        if frame.content_size != ref.raw or frame.window_size > limits.ZSTD_WINDOW:
            raise Damaged(f"the block at {ref.offset} declares {frame.content_size} bytes, its reference {ref.raw}")
        decompressor = getattr(_local, "decompressor", None)
        if decompressor is None:
            decompressor = _local.decompressor = zstandard.ZstdDecompressor(max_window_size=limits.ZSTD_WINDOW)
        raw: bytes = decompressor.decompress(stored, max_output_size=ref.raw, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise Damaged(f"the block at {ref.offset} cannot be unpacked: {error}") from None
    return raw
