"""As much of MQTT 3.1.1 as the door must read: where packets end, and what a CONNECT says. Pure.

packet  = type<<4|flags, length (1-4 bytes, 7 bits each, low first), body
CONNECT = "MQTT" 4 flags keepalive, then client id [will topic, will message] [user name] [password]
"""

import struct
from dataclasses import dataclass
from enum import IntEnum

from portico_shared.messages import MAX_MESSAGE

MAX_PACKET = MAX_MESSAGE + 1024
"""The largest payload, and a topic and header beside it."""


class PacketType(IntEnum):
    CONNECT = 1
    PUBLISH = 3
    PUBACK = 4
    SUBSCRIBE = 8
    UNSUBSCRIBE = 10
    PINGREQ = 12
    DISCONNECT = 14


FROM_CLIENT = frozenset(PacketType)
"""What a client of ours sends. Quality of service 2 (types 5 to 7) is not used by anyone here."""

REFUSED = bytes((0x20, 2, 0, 5))
"""CONNACK: not authorised."""

_WILL, _WILL_QOS, _WILL_RETAIN, _CLEAN = 0x04, 0x18, 0x20, 0x02
_USER, _PASSWORD = 0x80, 0x40


class BadPacket(ValueError):
    """The client does not speak our MQTT; the connection is over."""


@dataclass(frozen=True, slots=True)
class Connect:
    client_id: str
    clean_session: bool
    keepalive: int
    """Seconds; 0 = the client promises nothing."""
    user: str
    password: str
    will_topic: str | None
    will_message: bytes


class Packets:
    """Puts packets together again from the pieces that arrive; holds at most one unfinished one."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def take(self) -> bytes | None:
        """The next whole packet, or None. Raises BadPacket for a type no client sends, and for one too large."""
        if len(self._buffer) < 2:
            return None
        if self._buffer[0] >> 4 not in FROM_CLIENT:
            raise BadPacket(f"a packet of type {self._buffer[0] >> 4}")
        length, start = self._length()
        if length > MAX_PACKET:
            raise BadPacket(f"a packet of {length} bytes; at most {MAX_PACKET} are taken")
        if start == 0 or len(self._buffer) < start + length:
            return None
        packet = bytes(self._buffer[: start + length])
        del self._buffer[: start + length]
        return packet

    def _length(self) -> tuple[int, int]:
        """The body's length and where it begins; (0, 0) while that is not known yet."""
        length = 0
        for index in range(1, 5):
            if index >= len(self._buffer):
                return 0, 0
            length |= (self._buffer[index] & 0x7F) << 7 * (index - 1)
            if not self._buffer[index] & 0x80:
                return length, index + 1
        raise BadPacket("a packet length of more than four bytes")


def body(packet: bytes) -> bytes:
    """A whole packet without its header."""
    start = 1
    while packet[start] & 0x80:
        start += 1
    return packet[start + 1 :]


def publish_topic(packet: bytes) -> str:
    """Where a PUBLISH goes. Raises BadPacket."""
    if (packet[0] >> 1) & 3 > 1:
        raise BadPacket("quality of service 2")
    return _Reader(body(packet)).text()


def parse_connect(packet: bytes) -> Connect:
    """Raises BadPacket for anything but a well-formed MQTT 3.1.1 CONNECT with user name and password."""
    if packet[0] != PacketType.CONNECT << 4:
        raise BadPacket("the first packet is not CONNECT")
    reader = _Reader(body(packet))
    if reader.text() != "MQTT" or reader.byte() != 4:
        raise BadPacket("not MQTT 3.1.1")
    flags = reader.byte()
    keepalive = reader.number()
    has_will = bool(flags & _WILL)
    if flags & 1 or (not has_will and flags & (_WILL_QOS | _WILL_RETAIN)) or not (flags & _USER and flags & _PASSWORD):
        raise BadPacket("CONNECT flags that are reserved, contradictory, or without user name and password")
    client_id = reader.text()
    will_topic, will_message = (reader.text(), reader.binary()) if has_will else (None, b"")
    connect = Connect(
        client_id=client_id,
        clean_session=bool(flags & _CLEAN),
        keepalive=keepalive,
        user=reader.text(),
        password=reader.text(),
        will_topic=will_topic,
        will_message=will_message,
    )
    if reader.rest:
        raise BadPacket("bytes after the end of CONNECT")
    return connect


class _Reader:
    """Walks over a packet's body."""

    def __init__(self, data: bytes) -> None:
        self.rest = data

    def byte(self) -> int:
        return self._take(1)[0]

    def number(self) -> int:
        (value,) = struct.unpack(">H", self._take(2))
        return int(value)

    def binary(self) -> bytes:
        return self._take(self.number())

    def text(self) -> str:
        try:
            text = self.binary().decode()
        except UnicodeDecodeError as error:
            raise BadPacket("text that is not UTF-8") from error
        if "\0" in text:
            raise BadPacket("text with a NUL")
        return text

    def _take(self, count: int) -> bytes:
        if len(self.rest) < count:
            raise BadPacket("a packet that is shorter than it says")
        taken, self.rest = self.rest[:count], self.rest[count:]
        return taken
