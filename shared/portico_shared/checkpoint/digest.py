"""Hashes: blake3, 32 bytes; in names of objects and in heads as 64 hex digits."""

import re

from blake3 import blake3

from portico_shared.checkpoint.faults import Damaged

SIZE = 32
_HEX = re.compile(r"[0-9a-f]{64}")


def digest(data: bytes | bytearray | memoryview) -> bytes:
    return blake3(data).digest()


def name_of(data: bytes | bytearray | memoryview) -> str:
    """The name of an object with this content."""
    return blake3(data).hexdigest()


def is_name(text: str) -> bool:
    return _HEX.fullmatch(text) is not None


def require_name(data: bytes, name: str, object_name: str) -> None:
    """Raises Damaged unless `data` is what `name` says."""
    if name_of(data) != name:
        raise Damaged("its content does not match its name", object_name)
