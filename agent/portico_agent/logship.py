"""Sends a log that portico-init keeps to the gateway, piece by piece, and goes on where an earlier agent stopped."""

import logging
from typing import Protocol

from portico_agent.errors import GatewayAway, Refused
from portico_agent.keeper import LogPiece
from portico_shared.clock import Clock

POLL_SECONDS = 1.0
"""People watch the log while a studio starts; a second feels live and costs one small local call."""
_log = logging.getLogger(__name__)


class LogSource(Protocol):
    async def log(self, stream: str, offset: int) -> LogPiece: ...


class LogSink(Protocol):
    async def post_log(self, stream: str, offset: int, data: bytes) -> int: ...


class LogShipper:
    """One stream's way. `ship` sends what is there; `follow` does so for ever."""

    def __init__(self, stream: str, source: LogSource, sink: LogSink) -> None:
        self._stream = stream
        self._source = source
        self._sink = sink
        self._offset: int | None = None

    async def follow(self, clock: Clock) -> None:
        while True:
            try:
                await self.ship()
            except GatewayAway:
                pass  # what is kept is sent later; what is gone by then, init's bound has taken
            except Refused as refused:
                _log.warning("the log '%s' is no longer sent: %s", self._stream, refused)
                return
            await clock.sleep(POLL_SECONDS)

    async def ship(self) -> None:
        """Raises GatewayAway or Refused."""
        if self._offset is None:
            self._offset = await self._sink.post_log(self._stream, 0, b"")
        while True:
            piece = await self._source.log(self._stream, self._offset)
            if not piece.data:
                return
            self._offset = await self._sink.post_log(self._stream, piece.offset, piece.data)
