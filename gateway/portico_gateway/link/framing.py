"""Frames of the link: 4 bytes big-endian length, then msgpack of one struct. Pure: bytes in, messages out."""

import struct
from typing import Generic, TypeVar

import msgspec

from portico_gateway.link.messages import MAX_FRAME, ControlMessage, EdgeMessage

_LENGTH = struct.Struct(">I")
_encoder = msgspec.msgpack.Encoder()
T = TypeVar("T")


class BadFrame(ValueError):
    """The peer sent something that is no frame of ours; the connection is of no use any more."""


def pack(message: EdgeMessage | ControlMessage) -> bytes:
    """One frame. Raises BadFrame when the message is larger than MAX_FRAME: the peer would hang up on it."""
    body = _encoder.encode(message)
    if len(body) > MAX_FRAME:
        raise BadFrame(f"a {type(message).__name__} of {len(body)} bytes is over the limit of {MAX_FRAME}")
    return _LENGTH.pack(len(body)) + body


class Frames(Generic[T]):
    """Puts the pieces that arrive together again; holds at most one unfinished frame beside what was just fed."""

    def __init__(self, decoder: "msgspec.msgpack.Decoder[T]") -> None:
        self._decoder = decoder
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[T]:
        """The messages that `data` completes, in order. Raises BadFrame."""
        self._buffer += data
        messages: list[T] = []
        start = 0
        while len(self._buffer) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer, start)
            if length > MAX_FRAME:
                raise BadFrame(f"a frame of {length} bytes is over the limit of {MAX_FRAME}")
            end = start + _LENGTH.size + length
            if len(self._buffer) < end:
                break
            messages.append(self._decode(bytes(self._buffer[start + _LENGTH.size : end])))
            start = end
        del self._buffer[:start]
        return messages

    def _decode(self, body: bytes) -> T:
        try:
            return self._decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadFrame(f"cannot decode a frame of {len(body)} bytes: {error}") from error


def from_edge() -> Frames[EdgeMessage]:
    """What control reads."""
    return Frames(msgspec.msgpack.Decoder(EdgeMessage))


def from_control() -> Frames[ControlMessage]:
    """What an edge worker reads."""
    return Frames(msgspec.msgpack.Decoder(ControlMessage))
