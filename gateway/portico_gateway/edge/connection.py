"""One client connection: its requests one after the other, each decided by its own head."""

import asyncio
import logging
from typing import Protocol, cast

from portico_gateway.edge import answers, head
from portico_gateway.edge.head import BadHead, Head
from portico_gateway.proxy.exchange import Exchange
from portico_gateway.proxy.upgrade import WebSocketExchange

HEAD_SECONDS = 10.0
KEEP_ALIVE_SECONDS = 75.0
RESPONSE_SECONDS = 600.0
"""Silence of a tool before its response head; long polls and slow reports stay well below."""
STUCK_SECONDS = 120.0
"""A client that takes not one byte for so long is gone."""
LINGER_SECONDS = 30.0
HIGH_WATER = 256 * 1024
CACHED_HEADS = 16
END = b"\r\n\r\n"
log = logging.getLogger("portico.edge")


class Dispatcher(Protocol):
    """Decides what becomes of a request; ends in `start_exchange`, `answer` or `hand_over` of the connection."""

    def opened(self, connection: "ClientConnection") -> bool: ...

    def closed(self, connection: "ClientConnection") -> None: ...

    def dispatch(self, connection: "ClientConnection", request: Head) -> None: ...

    def exchanged(self, connection: "ClientConnection", exchange: Exchange) -> None: ...

    def monotonic(self) -> float: ...


class ClientConnection(asyncio.Protocol):
    def __init__(self, dispatcher: Dispatcher) -> None:
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set in connection_made
        self.peer = ""
        self.local = False
        self.exchange: Exchange | None = None
        self.requests = 0
        self.session_id = ""
        self.visitor: object = None
        self.draining = False
        self._dispatcher = dispatcher
        self._buffer = b""
        self._deciding = False
        self._request: Head | None = None
        self._heads: dict[bytes, Head] = {}
        self._since = 0.0
        self._paused_at: float | None = None
        self._closing = False
        self._ended = False

    # --- asyncio ------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop has transports of its own kind
        self.transport = transport
        peer = transport.get_extra_info("peername")
        self.local = not isinstance(peer, tuple)
        self.peer = peer[0] if isinstance(peer, tuple) else "unix"
        self._since = self._dispatcher.monotonic()
        transport.set_write_buffer_limits(HIGH_WATER)
        if not self._dispatcher.opened(self):
            self._closing = True
            transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        if self.exchange is not None:
            self.exchange.client_data(data)
            return
        self._buffer = self._buffer + data if self._buffer else data
        if self._deciding:
            if len(self._buffer) > 2 * head.MAX_HEAD:
                self.transport.pause_reading()
            return
        self._next()

    def eof_received(self) -> bool:
        if self.exchange is not None:
            return self.exchange.client_eof()
        self._ended = True
        return self._deciding

    def connection_lost(self, error: Exception | None) -> None:
        self._closing = True
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.cancel()
            self._dispatcher.exchanged(self, exchange)
        self._dispatcher.closed(self)

    def pause_writing(self) -> None:
        self._paused_at = self._dispatcher.monotonic()
        if self.exchange is not None:
            self.exchange.client_pause()

    def resume_writing(self) -> None:
        self._paused_at = None
        if self.exchange is not None:
            self.exchange.client_resume()

    # --- requests -----------------------------------------------------------------------------------------------

    def _next(self) -> None:
        """Read the next head, if it is there, and have it decided."""
        end = self._buffer.find(END)
        if end < 0 or end > head.MAX_HEAD:
            if len(self._buffer) > head.MAX_HEAD:
                self.refuse(431, "the request's head is larger than 32 KiB")
            elif (wrong := head.hopeless(self._buffer)) is not None:
                self.refuse(wrong.status, str(wrong))
            return
        block, self._buffer = self._buffer[:end], self._buffer[end + len(END) :]
        request = self._heads.get(block)
        if request is None:
            try:
                request = head.parse(block)
            except BadHead as error:
                self.refuse(error.status, str(error))
                return
            if len(self._heads) >= CACHED_HEADS:
                self._heads.clear()
            if not request.upgrade:
                self._heads[block] = request
        self.requests += 1
        self._request = request
        self._deciding = True
        self._dispatcher.dispatch(self, request)

    def start_exchange(self, exchange: Exchange) -> None:
        """The request goes upstream."""
        self._deciding = False
        self.exchange = exchange
        self._since = self._dispatcher.monotonic()
        if not exchange.request_done and not exchange.head.length:
            self.transport.resume_reading()
        early, self._buffer = self._buffer, b""
        if early:
            exchange.client_data(early)
        if self._paused_at is not None:
            exchange.client_pause()
        if self.exchange is exchange:
            exchange.start()

    def answer(self, response: bytes, keep_alive: bool) -> None:
        """The request is answered here. One with a body is the connection's last: the body is not read."""
        self._deciding = False
        request, self._request = self._request, None
        if self._closing:
            return
        self.transport.write(response)
        if not keep_alive or self._ended or self.draining or (request is not None and request.length != 0):
            self._close()
            return
        self._after()

    def hand_over(self) -> tuple[asyncio.Transport, bytes]:
        """The connection leaves HTTP: whoever takes it owns transport and what was read beyond the head."""
        self._closing = True
        self._deciding = False
        self._dispatcher.closed(self)
        rest, self._buffer = self._buffer, b""
        return self.transport, rest

    def refuse(self, status: int, message: str) -> None:
        """A request that cannot be read: said, and the connection closed."""
        self._deciding = False
        if not self._closing:
            self.transport.write(answers.problem(status, message, for_people=False, keep_alive=False))
            self._close()

    def _after(self) -> None:
        """Ready for the next request; it may be here already."""
        self._since = self._dispatcher.monotonic()
        if not self.transport.is_closing() and not self.transport.is_reading():
            self.transport.resume_reading()
        if self._buffer:
            self._next()

    def _close(self) -> None:
        self._closing = True
        self._since = self._dispatcher.monotonic()
        self.transport.close()

    # --- the client side of an exchange ---------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        self.transport.write(data)

    def pause_reading(self) -> None:
        if not self.transport.is_closing() and self.transport.is_reading():
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if not self.transport.is_closing() and not self.transport.is_reading():
            self.transport.resume_reading()

    def finished(self, keep_alive: bool, rest: bytes) -> None:
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            self._dispatcher.exchanged(self, exchange)
        if not keep_alive or self.draining:
            self._close()
            return
        self._buffer = rest
        self._after()

    def failed(self, status: int, message: str) -> None:
        exchange, self.exchange = self.exchange, None
        if self._closing:
            return
        request = self._request
        for_people = request is not None and b"text/html" in (request.get(b"accept") or b"")
        keep_alive = (
            request is not None
            and request.keep_alive
            and (exchange is None or exchange.request_done)
            and not isinstance(exchange, WebSocketExchange)
            and status != 400
        )
        self.transport.write(answers.problem(status, message, for_people=for_people, keep_alive=keep_alive))
        if exchange is not None:
            self._dispatcher.exchanged(self, exchange)
        if keep_alive and not self.draining:
            self._after()
        else:
            self._close()

    def broken(self) -> None:
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            self._dispatcher.exchanged(self, exchange)
        self._closing = True
        self.transport.abort()

    # --- time ---------------------------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """Called every half second or so: ends what is overdue."""
        waited = now - self._since
        if self._closing:
            if waited > LINGER_SECONDS:
                self.transport.abort()
        elif self._paused_at is not None and now - self._paused_at > STUCK_SECONDS:
            self.broken()
        elif self.exchange is not None:
            if self.exchange.waiting_for_head and waited > RESPONSE_SECONDS:
                exchange = self.exchange
                exchange.cancel()
                self.failed(504, "The studio's tool has not answered for ten minutes.")
        elif self._deciding:
            return
        elif self._buffer or not self.requests:
            if waited > HEAD_SECONDS:
                self.refuse(408, "the request's head took longer than 10 s")
        elif waited > KEEP_ALIVE_SECONDS:
            self._close()

    def drain(self, code: int) -> None:
        """The gateway is leaving: finish what is under way, take nothing new."""
        self.draining = True
        if self.exchange is not None:
            self.exchange.drain(code)
        elif not self._deciding and not self._closing:
            self._close()
