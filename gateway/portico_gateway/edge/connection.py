"""One client connection: its requests one after the other, each decided by its own head."""

import asyncio
import logging
import socket
import struct
from typing import Protocol, cast

from portico_gateway.edge import answers, head
from portico_gateway.edge.head import BadHead, Head, is_navigation
from portico_gateway.proxy.exchange import Exchange
from portico_gateway.proxy.upgrade import WebSocketExchange

HEAD_SECONDS = 10.0
KEEP_ALIVE_SECONDS = 75.0
BODY_SECONDS = 60.0
"""Silence of a client in the middle of its request's body."""
RESPONSE_SECONDS = 600.0
"""Silence of a tool before its response head; long polls and slow reports stay well below."""
STUCK_SECONDS = 120.0
"""A client that takes not one byte for so long is gone."""
LINGER_SECONDS = 30.0
"""To take the last bytes of a response whose connection then ends."""
DISCARD_SECONDS = 5.0
"""How long what a refused client still sends is read and dropped: closing at once would be a reset, and the client
might never see its answer."""
HALF_CLOSED_SECONDS = 30.0
"""A client that has ended its direction may be waiting for its answer, or be gone; after such a silence it is gone."""
HALF_CLOSED_WEBSOCKET_SECONDS = 5.0
MAX_AHEAD = 2 * head.MAX_HEAD
"""Bytes of later requests held while an earlier one is decided or answered; then the client is not read."""
TURN = 32
"""Pipelined requests answered before others have their turn."""
RESET = struct.pack("ii", 1, 0)
HIGH_WATER = 256 * 1024
CACHED_HEADS = 8
MAX_CACHED_HEAD = 4096
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
    """`exchange` is the request under way upstream; without one, a request is either being read or being decided."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # set in connection_made
        self.peer = ""
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
        self._since = 0.0  # of what the sweep measures now: head, idleness, silence, lingering
        self._head_began = False
        self._seen = 0  # bytes of the body, or of the response, at the last sweep
        self._turning = False
        self._paused_at: float | None = None
        self._closing = False
        self._discarding = False
        self._ended = False

    # --- asyncio ------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are not its children, only alike
        peer = transport.get_extra_info("peername")
        self.peer = peer[0] if isinstance(peer, tuple) else "unix"
        self._since = self._dispatcher.monotonic()
        self.transport.set_write_buffer_limits(HIGH_WATER)
        if not self._dispatcher.opened(self):
            self._closing = True
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        if self.exchange is not None:
            self.exchange.client_data(data)
            return
        if self._closing:
            return
        self._buffer = self._buffer + data if self._buffer else data
        if not self._deciding and self._paused_at is None:
            self._next()
        if len(self._buffer) > MAX_AHEAD:
            self.pause_reading()

    def eof_received(self) -> bool:
        self._ended = True
        if self.exchange is not None:
            self._since = self._dispatcher.monotonic()
            return self.exchange.client_eof()
        return not self._closing and (self._deciding or bool(self._buffer and not self._head_began))

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
        elif not self._deciding and not self._closing:
            self._after()

    # --- requests -----------------------------------------------------------------------------------------------

    def _next(self) -> None:
        """Read the next head, if it is there, and have it decided."""
        if self._buffer.startswith(b"\r\n"):
            self._buffer = self._buffer[2:]  # one empty line ahead of a request is tolerated (RFC 9112, 2.2)
        end = self._buffer.find(END)
        if end < 0 or end > head.MAX_HEAD:
            self._unfinished()
            return
        block, self._buffer = self._buffer[:end], self._buffer[end + len(END) :]
        request = self._heads.get(block)
        if request is None:
            try:
                request = self._parse(block)
            except BadHead as error:
                self.refuse(error.status, str(error))
                return
        self.requests += 1
        self._head_began = False
        self._request = request
        self._deciding = True
        self._dispatcher.dispatch(self, request)

    def _parse(self, block: bytes) -> Head:
        """Read a head that this connection has not seen lately: browsers repeat theirs."""
        request = head.parse(block)
        if len(self._heads) >= CACHED_HEADS:
            self._heads.clear()
        if not request.upgrade and len(block) <= MAX_CACHED_HEAD:
            self._heads[block] = request
        return request

    def _unfinished(self) -> None:
        if len(self._buffer) > head.MAX_HEAD:
            self.refuse(431, "the request's head is larger than 32 KiB")
        elif self._buffer and (wrong := head.hopeless(self._buffer)) is not None:
            self.refuse(wrong.status, str(wrong))
        elif self._ended:
            self._close()
        elif self._buffer and not self._head_began:
            self._head_began = True
            if self.requests:
                self._since = self._dispatcher.monotonic()

    def start_exchange(self, exchange: Exchange) -> None:
        """The request goes upstream."""
        self._deciding = False
        self.exchange = exchange
        self._since = self._dispatcher.monotonic()
        self._seen = 0
        early, self._buffer = self._buffer, b""
        if early:
            exchange.client_data(early)
        if self.draining and self.exchange is exchange:
            exchange.drain(0)
        if self._ended and self.exchange is exchange and not exchange.client_eof():
            self._close()
        if self.exchange is exchange:
            exchange.start()

    def answer(self, response: bytes, keep_alive: bool) -> None:
        """The request is answered here. One with a body is the connection's last: the body is not read."""
        self._deciding = False
        request, self._request = self._request, None
        if self._closing:
            return
        self.transport.write(response)
        unread = request is not None and request.length != 0
        if unread or not keep_alive or self.draining:
            self._close(unread=unread or bool(self._buffer))
        else:
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
            self._close(unread=True)

    def _after(self) -> None:
        """Ready for the next request; it may be here already."""
        self._since = self._dispatcher.monotonic()
        if len(self._buffer) <= MAX_AHEAD:
            self.resume_reading()
        if self._buffer:
            if not self._turning:  # not from here: a thousand small requests in one piece would be as many frames deep
                asyncio.get_running_loop().call_soon(self._go_on)
        elif self._ended:
            self._close()

    @property
    def _is_ready(self) -> bool:
        """Whether the next request may be read, and some of it is here."""
        busy = self.exchange is not None or self._deciding or self._closing or self._paused_at is not None
        return bool(self._buffer) and not busy

    def _go_on(self) -> None:
        """Answer what is here already, a few at a time."""
        self._turning = True
        for _ in range(TURN):
            before = len(self._buffer)
            if not self._is_ready:
                break
            self._next()
            if len(self._buffer) == before:  # a head that is not whole yet
                break
        else:
            asyncio.get_running_loop().call_soon(self._go_on)
        self._turning = False

    def _close(self, *, unread: bool = False) -> None:
        """End the connection once everything is written. `unread`: the client may still be sending."""
        self._closing = True
        self._buffer = b""
        self._since = self._dispatcher.monotonic()
        if unread and not self._ended and not self.transport.is_closing() and self.transport.can_write_eof():
            self._discarding = True
            self.transport.write_eof()
            self.resume_reading()
        else:
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
        unread = self._end_exchange()
        if keep_alive and not self.draining:
            self._buffer = rest
            self._after()
        else:
            self._close(unread=unread or bool(rest))

    def failed(self, status: int, message: str) -> None:
        request, exchange = self._request, self.exchange
        unread = self._end_exchange()
        if self._closing or request is None:
            return
        keep_alive = request.keep_alive and not unread and not isinstance(exchange, WebSocketExchange)
        people, head_only = is_navigation(request), request.method == b"HEAD"
        self.transport.write(
            answers.problem(status, message, for_people=people, keep_alive=keep_alive, head_only=head_only)
        )
        if keep_alive and not self.draining:
            self._buffer = exchange.rest if exchange is not None else b""
            self._after()
        else:
            self._close(unread=unread)

    def broken(self) -> None:
        self._end_exchange()
        self._closing = True
        self._reset()

    def _reset(self) -> None:
        """Abort with RST: a mere FIN would make a body that ends with its connection look whole."""
        sock = self.transport.get_extra_info("socket")
        if sock is not None and not self.transport.is_closing() and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.transport.abort()

    def _end_exchange(self) -> bool:
        """The exchange is over. Returns whether its request's body was not read to the end."""
        exchange, self.exchange = self.exchange, None
        if exchange is None:
            return False
        self._dispatcher.exchanged(self, exchange)
        return not exchange.request_done

    # --- time ---------------------------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """Called every half second or so: ends what is overdue."""
        waited = now - self._since
        if self._closing:
            limit = DISCARD_SECONDS if self._discarding else LINGER_SECONDS
            if waited > limit and (waited > LINGER_SECONDS or not self.transport.get_write_buffer_size()):
                self.transport.abort()
        elif self._paused_at is not None and now - self._paused_at > STUCK_SECONDS:
            self._give_up()
        elif self.exchange is not None:
            self._sweep_exchange(self.exchange, now, waited)
        elif self._deciding:
            return
        elif self._head_began or not self.requests:
            if waited > HEAD_SECONDS:
                self.refuse(408, "the request's head took longer than 10 s")
        elif waited > KEEP_ALIVE_SECONDS:
            self._close()

    def _sweep_exchange(self, exchange: Exchange, now: float, waited: float) -> None:
        if not exchange.request_done:
            if self._has_moved(exchange.client_bytes, now) or not self.transport.is_reading():
                self._since = now
            elif waited > BODY_SECONDS:
                self._give_up()
        elif self._ended:
            if isinstance(exchange, WebSocketExchange):
                overdue = waited > HALF_CLOSED_WEBSOCKET_SECONDS
            else:
                overdue = not self._has_moved(exchange.sent, now) and waited > HALF_CLOSED_SECONDS
            if overdue:
                self._give_up()
        elif exchange.waiting_for_head and waited > RESPONSE_SECONDS:
            exchange.cancel()
            self.failed(504, "The studio's tool has not answered for ten minutes.")

    def _has_moved(self, count: int, now: float) -> bool:
        if count == self._seen:
            return False
        self._seen, self._since = count, now
        return True

    def _give_up(self) -> None:
        if self.exchange is not None:
            self.exchange.cancel()
        self.broken()

    def drain(self, code: int) -> None:
        """The gateway is leaving: finish what is under way, take nothing new. Who has just come is served once."""
        self.draining = True
        if self.exchange is not None:
            self.exchange.drain(code)
        elif self.requests and not (self._deciding or self._closing or self._buffer):
            self._close()
