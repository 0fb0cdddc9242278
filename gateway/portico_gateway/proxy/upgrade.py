"""A WebSocket: an exchange until the 101, then two directions of raw bytes that end together."""

import base64
import binascii
import hashlib
from collections.abc import Callable

from portico_gateway.edge.head import Head
from portico_gateway.proxy.exchange import MAX_EARLY, Exchange
from portico_gateway.proxy.frames import FrameCounter, close_frame
from portico_gateway.proxy.response_head import BadResponse, ResponseHead

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
GOING_AWAY, LOST = 1012, 1011


def refusal(head: Head, origin: bytes, bearer: bool) -> tuple[int, str] | None:
    """Why this upgrade is not a WebSocket we open: its status and sentence; None = it is one.

    `origin` is what Origin must be; it may be missing only when a bearer token came along (no browser sends that).
    """
    key = head.values(b"sec-websocket-key")
    try:
        key_is_good = len(key) == 1 and len(base64.b64decode(key[0], validate=True)) == 16
    except binascii.Error:
        key_is_good = False
    if head.method != b"GET" or head.minor != 1 or head.length != 0 or not key_is_good:
        return 400, "this is not a WebSocket handshake"
    if head.values(b"sec-websocket-version") != [b"13"]:
        return 426, "a WebSocket handshake has version 13"
    origins = head.values(b"origin")
    if not origins and bearer:
        return None
    if len(origins) != 1 or origins[0].lower() != origin:
        return 403, "a WebSocket is opened from this studio's own pages only"
    return None


class WebSocketExchange(Exchange):
    """`open` once the 101 has passed. Closes of ours fall between two frames of the studio's, or the connection is
    aborted: never half a frame."""

    open = False
    on_open: Callable[[], None] | None = None
    _client_ended = False

    def client_data(self, data: bytes) -> None:
        if self.open:
            if self.upstream_connection is not None:
                self.upstream_connection.transport.write(data)
            return
        self.rest += data  # ahead of the 101: sent after it, or dropped with the connection
        if len(self.rest) > MAX_EARLY:
            self.client.pause_reading()

    def client_eof(self) -> bool:
        self._client_ended = True
        if self.open and self.upstream_connection is not None:
            transport = self.upstream_connection.transport
            if transport.can_write_eof() and not transport.is_closing():
                transport.write_eof()
        return True

    def _final_head(self, head: ResponseHead) -> bytes:
        self._keep_alive = False  # refused: what the client sent ahead is dropped with the connection
        if head.status != 101:
            self.rest = b""
            return super()._final_head(head)
        self._check(head)
        self.open, self.status = True, 101
        if self.on_open is not None:
            self.on_open()
        self._response, self._frames = head, FrameCounter()
        assert self.upstream_connection is not None
        if self.rest:
            self.upstream_connection.transport.write(self.rest)
            self.rest = b""
        if self._client_ended:
            self.client_eof()
        self.client.resume_reading()
        return self._switching(head)

    def _check(self, head: ResponseHead) -> None:
        key = self.head.get(b"sec-websocket-key") or b""
        accept = base64.b64encode(hashlib.sha1(key + GUID, usedforsecurity=False).digest())
        if head.upgrade != b"websocket" or head.get(b"sec-websocket-accept") != accept:
            raise BadResponse("its WebSocket handshake is wrong")

    def _switching(self, head: ResponseHead) -> bytes:
        lines = [b"HTTP/1.1 101 Switching Protocols", b"Upgrade: websocket", b"Connection: Upgrade"]
        lines += [raw + b": " + value for raw, name, value in head.fields if name.startswith(b"sec-websocket-")]
        lines += self._add
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def _read_body(self, data: bytes) -> bytes:
        if not self.open:
            return super()._read_body(data)
        self._frames.feed(data)
        return data

    @property
    def _response_done(self) -> bool:
        return False if self.open else super()._response_done

    def eof_received(self) -> bool:
        if not self.open or self._done:
            return super().eof_received()
        self._end(LOST, "the studio's tool closed the connection")
        return False

    def connection_lost(self, error: Exception | None) -> None:
        if self.open and not self._done:
            self._end(LOST, "the connection to the studio was lost")
        else:
            super().connection_lost(error)

    def cut(self) -> None:
        if self.open and not self._done:
            self._end(1008, "access was withdrawn")
        else:
            super().cut()

    def drain(self, code: int) -> None:
        if self.open and not self._done:
            self._end(code, "the gateway is restarting")

    def _end(self, code: int, reason: str) -> None:
        """Both directions end. The browser gets a close frame if one may stand here."""
        self._done = True
        self._drop()
        if self._frames.closed and self._frames.at_boundary:
            self.client.finished(False, b"")
        elif self._frames.at_boundary:
            self.client.write(close_frame(code, reason))
            self.client.finished(False, b"")
        else:
            self.client.broken()
