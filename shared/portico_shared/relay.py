"""Two transports, each the other's drain: a raw pipe with back-pressure both ways.

A half-close passes through as a half-close. When both directions have ended, or either transport is lost, both are
closed: what one side had written before is still delivered to the other, for at most LINGER_SECONDS.
"""

import asyncio
from collections.abc import Callable

HIGH_WATER = 256 * 1024
"""Bytes one side may be behind before the other is no longer read; uvloop reads up to 256 KiB at once."""
LINGER_SECONDS = 30.0


class RelayEnd(asyncio.BaseProtocol):
    """Hears one transport. `data_received` *is* the other transport's `write`: uvloop calls it from C, with no frame
    of ours between. Made in pairs by `join`."""

    def __init__(self, transport: asyncio.Transport, drain: asyncio.Transport, relay: "Relay") -> None:
        self.transport = transport
        self.data_received: Callable[[bytes], None] = drain.write
        self.ended = False
        self.lost = False
        self._relay = relay

    def pause_writing(self) -> None:
        self._relay.other(self).pause_reading()

    def resume_writing(self) -> None:
        self._relay.other(self).resume_reading()

    def pause_reading(self) -> None:
        if not (self.ended or self.transport.is_closing()):
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if not (self.ended or self.transport.is_closing() or self.transport.is_reading()):
            self.transport.resume_reading()

    def eof_received(self) -> bool:
        self.ended = True
        return self._relay.half_closed(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        self._relay.close()


class Relay:
    """Both ends of one pipe. `on_close` is called once, when both are closed or closing."""

    def __init__(self, first: asyncio.Transport, second: asyncio.Transport, on_close: Callable[[], None]) -> None:
        self.ends = (RelayEnd(first, second, self), RelayEnd(second, first, self))
        self._on_close = on_close
        self._closed = False
        self._linger: asyncio.TimerHandle | None = None

    def other(self, end: RelayEnd) -> RelayEnd:
        return self.ends[1] if end is self.ends[0] else self.ends[0]

    def half_closed(self, end: RelayEnd) -> bool:
        """`end` will send no more. Answers whether its transport stays open for the other direction."""
        drain = self.other(end)
        if drain.ended or drain.transport.is_closing() or not drain.transport.can_write_eof():
            self.close()  # both have ended, or TLS, which knows no half-close: better an end than waiting for ever
            return False
        drain.transport.write_eof()
        return True

    def close(self) -> None:
        """End both sides; what is written already is delivered. May be repeated."""
        if not self._closed:
            self._closed = True
            for end in self.ends:
                end.transport.close()
            if any(end.transport.get_write_buffer_size() for end in self.ends if not end.lost):
                self._linger = asyncio.get_running_loop().call_later(LINGER_SECONDS, self.abort)
            self._on_close()
        if self._linger is not None and all(end.lost for end in self.ends):
            self._linger.cancel()
            self._linger = None

    def abort(self) -> None:
        """End both sides at once."""
        for end in self.ends:
            end.transport.abort()
        self.close()


def join(
    first: asyncio.Transport,
    second: asyncio.Transport,
    *,
    early: bytes = b"",
    on_close: Callable[[], None] = lambda: None,
) -> Relay:
    """Pipe the two together, from now on. `early` was already read from `first` and goes to `second` before all."""
    relay = Relay(first, second, on_close)
    for end in relay.ends:
        end.transport.set_write_buffer_limits(high=HIGH_WATER)
        end.transport.set_protocol(end)
    if first.is_closing() or second.is_closing():
        relay.close()
        return relay
    if early:
        second.write(early)
    for end in relay.ends:
        end.resume_reading()
    return relay
