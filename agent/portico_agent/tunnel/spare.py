"""What the agent understands on a tunnel connection before it becomes a raw pipe. Pure: bytes in, events out."""

import re
from dataclasses import dataclass
from enum import Enum

from portico_shared.tunnel import MAX_CLAIM, BadClaim, Claim, parse_claim

MAX_HEAD = 8 * 1024
"""Bytes of the answer to the upgrade; ours is about 100, a balancer in front may add to it."""
_STATUS = re.compile(rb"HTTP/1\.1 ([0-9]{3})(?: [^\r\n]*)?\r\n")


class Stage(Enum):
    ASKED = "asked"
    SPARE = "spare"
    CLAIMED = "claimed"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Accepted:
    """The gateway took the connection: it is a spare now."""


@dataclass(frozen=True, slots=True)
class Declined:
    """The gateway answered the upgrade with another status; the connection is over."""

    status: int


@dataclass(frozen=True, slots=True)
class Claimed:
    claim: Claim


class Fault(ValueError):
    """What answers is not a gateway that speaks our protocol; the connection is over."""


Event = Accepted | Declined | Claimed


class SpareReader:
    """`feed` the bytes as they come, in any pieces."""

    def __init__(self) -> None:
        self.stage = Stage.ASKED
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Event]:
        """What these bytes complete. Raises Fault."""
        self._buffer += data
        events: list[Event] = []
        if self.stage is Stage.ASKED and (head := self._head()) is not None:
            events.append(head)
        if self.stage is Stage.SPARE and (claimed := self._claim()) is not None:
            events.append(claimed)
        if self.stage is Stage.CLAIMED and self._buffer:
            self.stage = Stage.OVER
            raise Fault("bytes after a claim that was not accepted yet")
        return events

    def _head(self) -> Event | None:
        try:
            status = read_status(self._buffer)
        except Fault:
            self.stage = Stage.OVER
            raise
        if status is None:
            return None
        if status != 101:
            self.stage = Stage.OVER
            self._buffer.clear()
            return Declined(status)
        self.stage = Stage.SPARE
        return Accepted()

    def _claim(self) -> Event | None:
        start = len(self._buffer) - len(self._buffer.lstrip(b"\n"))
        del self._buffer[:start]
        end = self._buffer.find(b"\n", 0, MAX_CLAIM)
        if end < 0:
            if len(self._buffer) >= MAX_CLAIM:
                self.stage = Stage.OVER
                raise Fault(f"a claim of more than {MAX_CLAIM} bytes")
            return None
        line = bytes(self._buffer[: end + 1])
        del self._buffer[: end + 1]
        try:
            claim = parse_claim(line)
        except BadClaim as error:
            self.stage = Stage.OVER
            raise Fault(str(error)) from error
        self.stage = Stage.CLAIMED
        return Claimed(claim)


def read_status(buffer: bytearray) -> int | None:
    """The status of an HTTP/1.1 answer; its head is cut off the buffer. None = not whole yet. Raises Fault."""
    end = buffer.find(b"\r\n\r\n", 0, MAX_HEAD)
    if end < 0:
        if len(buffer) >= MAX_HEAD:
            raise Fault(f"an answer of more than {MAX_HEAD} bytes to the upgrade")
        return None
    status = _STATUS.match(bytes(buffer[: end + 2]))
    del buffer[: end + 4]
    if status is None:
        raise Fault("no HTTP/1.1 answer to the upgrade")
    return int(status[1])
