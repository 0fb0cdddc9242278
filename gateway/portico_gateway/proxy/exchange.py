"""One request and its response: bytes pass as they come, framing is ours, and who is slow slows the other."""

import asyncio
from typing import Protocol

from portico_gateway.edge.head import Head
from portico_gateway.errors import PorticoError
from portico_gateway.proxy import chunked, response_head
from portico_gateway.proxy.response_head import MAX_INTERIM, BadResponse, ResponseHead
from portico_gateway.proxy.upstream import Upstream, UpstreamConnection
from portico_shared.tasks import spawn

MAX_EARLY = 64 * 1024
"""Bytes of a request body held while the upstream connection is being claimed; then the client is not read."""
RETRIED = frozenset({b"GET", b"HEAD"})
END = b"\r\n\r\n"


class Client(Protocol):
    """The side an exchange answers."""

    def write(self, data: bytes) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def finished(self, keep_alive: bool, rest: bytes) -> None:
        """The response has been written whole; `rest` of what the client sent belongs to its next request."""
        ...

    def failed(self, status: int, message: str) -> None:
        """Nothing was written yet: answer this, then close."""
        ...

    def broken(self) -> None:
        """Something was written, and the rest cannot come: abort, so that nobody takes it for whole."""
        ...


class Exchange(asyncio.Protocol):
    """Listens to the upstream connection; the client side calls `client_data`, `client_eof` and `cancel`."""

    def __init__(
        self,
        client: Client,
        head: Head,
        upstream: Upstream,
        request: bytes,
        *,
        from_studio: bool,
        add: tuple[bytes, ...] = (),
    ) -> None:
        self.client = client
        self.head = head
        self.status = 0
        self.sent = 0
        """Bytes written to the client."""
        self.client_bytes = 0
        """Bytes the client has sent of its request's body, or after it."""
        self.rest = b""
        """What the client sent beyond this request."""
        self.upstream_connection: UpstreamConnection | None = None
        self._upstream = upstream
        self._request = request
        self._from_studio = from_studio
        self._add = add
        # request body
        self._request_left = head.length
        self._request_chunks = chunked.ChunkReader() if head.length < 0 else None
        self._early: list[bytes] = []
        self._early_size = 0
        # response
        self._buffer = b""
        self._response: ResponseHead | None = None
        self._response_left = 0
        self._response_chunks: chunked.ChunkReader | None = None
        self._interim = 0
        self._received = False
        self._done = False
        self._retried = False
        self._claiming: asyncio.Task[None] | None = None
        self._keep_alive = head.keep_alive

    @property
    def request_done(self) -> bool:
        return self._request_left == 0 if self._request_chunks is None else self._request_chunks.done

    @property
    def waiting_for_head(self) -> bool:
        return self._response is None and self.request_done

    # --- upstream connection ------------------------------------------------------------------------------------

    def start(self) -> None:
        connection = self._upstream.take()
        if connection is not None:
            self._connected(connection)
        else:
            self._claiming = spawn(self._claim(), name="claim upstream")

    async def _claim(self) -> None:
        try:
            connection = await self._upstream.claim()
        except PorticoError as error:
            self._claiming = None
            if not self._done:
                self._fail(error.status, error.message)
            return
        self._claiming = None
        if self._done:
            self._upstream.drop(connection)
        else:
            self._connected(connection)

    def _connected(self, connection: UpstreamConnection) -> None:
        self.upstream_connection = connection
        if connection.attach(self) or connection.transport.is_closing():
            self._lost()
            return
        early, self._early = b"".join(self._early), []
        if not self.request_done:
            self.client.resume_reading()  # before the write, which may pause it again
        connection.transport.write(self._request + early if early else self._request)

    # --- from the client ----------------------------------------------------------------------------------------

    def client_data(self, data: bytes) -> None:
        """More of what the client sends: this request's body, then perhaps the next request (kept as rest)."""
        self.client_bytes += len(data)
        if self.request_done:
            self.rest += data
            if len(self.rest) > MAX_EARLY:
                self.client.pause_reading()
            return
        if self._request_chunks is None:
            body, self.rest = data[: self._request_left], data[self._request_left :]
            self._request_left -= len(body)
            self._send_up(body)
            return
        try:
            body = b"".join([chunked.frame(piece) for piece in self._request_chunks.feed(data)])
        except chunked.BadChunk as error:
            self._keep_alive = False
            self._fail(400, str(error))
            return
        if self._request_chunks.done:
            body += chunked.LAST
            self.rest = self._request_chunks.rest
        self._send_up(body)

    def _send_up(self, body: bytes) -> None:
        if not body:
            return
        if self.upstream_connection is not None:
            self.upstream_connection.transport.write(body)
            return
        self._early.append(body)
        self._early_size += len(body)
        if self._early_size > MAX_EARLY:
            self.client.pause_reading()

    def client_eof(self) -> bool:
        """The client will send no more. Returns whether its response is still worth writing."""
        self._keep_alive = False
        if not self.request_done:
            self.cancel()
            return False
        return True

    def cancel(self) -> None:
        """The client is gone, or cut off: whatever was under way ends here."""
        if self._done:
            return
        self._done = True
        if self._claiming is not None:
            self._claiming.cancel()
        self._drop()

    def cut(self) -> None:
        """A right was withdrawn: end at once, in a way nobody takes for a whole response."""
        self.cancel()
        self.client.broken()

    def drain(self, code: int) -> None:
        """The gateway is leaving: finish this one, then close."""
        self._keep_alive = False

    def client_pause(self) -> None:
        if self.upstream_connection is not None and not self.upstream_connection.transport.is_closing():
            self.upstream_connection.transport.pause_reading()

    def client_resume(self) -> None:
        if self.upstream_connection is not None and not self.upstream_connection.transport.is_closing():
            self.upstream_connection.transport.resume_reading()

    # --- from the upstream ----------------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        self.client.pause_reading()

    def resume_writing(self) -> None:
        self.client.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self._done:
            return
        self._received = True
        try:
            out = self._read_head(data) if self._response is None else self._read_body(data)
        except (BadResponse, chunked.BadChunk) as error:
            self._bad(str(error))
            return
        if out:
            self.sent += len(out)
            self.client.write(out)
        self._maybe_finish()

    def _read_head(self, data: bytes) -> bytes:
        self._buffer += data
        out = b""
        while self._response is None:
            end = self._buffer.find(END)
            if end < 0:
                if len(self._buffer) > response_head.MAX_HEAD:
                    raise BadResponse("its head is too large")
                return out
            if end > response_head.MAX_HEAD:
                raise BadResponse("its head is too large")
            head = response_head.parse(self._buffer[:end], self.head.method)
            self._buffer = self._buffer[end + len(END) :]
            if head.status >= 200 or head.status == 101:
                out += self._final_head(head)
            else:
                out += self._interim_head(head)
        rest, self._buffer = self._buffer, b""
        return out + self._read_body(rest)

    def _interim_head(self, head: ResponseHead) -> bytes:
        self._interim += 1
        if self._interim > MAX_INTERIM:
            raise BadResponse("too many interim responses")
        relayed = (head.status == 100 and self.head.expects) or head.status == 103
        if not relayed or self.head.minor == 0:
            return b""
        return response_head.forward(
            head, from_studio=self._from_studio, http10=False, keep_alive=True, method=self.head.method
        )

    def _final_head(self, head: ResponseHead) -> bytes:
        if head.status == 101:
            raise BadResponse("it switched protocols unasked")
        http10 = self.head.minor == 0
        if head.length == -2 or (http10 and head.length == -1) or not self.request_done:
            self._keep_alive = False
        self._response, self.status = head, head.status
        self._response_left = head.length
        if head.length == -1:
            self._response_chunks = chunked.ChunkReader()
        return response_head.forward(
            head,
            from_studio=self._from_studio,
            http10=http10,
            keep_alive=self._keep_alive,
            method=self.head.method,
            add=self._add,
        )

    def _read_body(self, data: bytes) -> bytes:
        if self._response_chunks is not None:
            pieces = list(self._response_chunks.feed(data)) if data else []
            if self.head.minor == 0:
                return b"".join(pieces)
            out = b"".join([chunked.frame(piece) for piece in pieces])
            if self._response_chunks.done:
                out += chunked.LAST
                self._buffer = self._response_chunks.rest
            return out
        if self._response_left == -2:
            return data
        body, self._buffer = data[: self._response_left], data[self._response_left :]
        self._response_left -= len(body)
        return body

    @property
    def _response_done(self) -> bool:
        if self._response is None or self._response_left == -2:
            return False
        return self._response_chunks.done if self._response_chunks is not None else self._response_left == 0

    def _maybe_finish(self) -> None:
        if self._done or not self._response_done:
            return
        assert self._response is not None
        self._done = True
        exact = self.request_done and not self._buffer and self._response.keep_alive
        connection, self.upstream_connection = self.upstream_connection, None
        if connection is not None:
            if exact:
                self._upstream.give_back(connection)
            else:
                self._upstream.drop(connection)
        self.client.finished(self._keep_alive and self.request_done, self.rest)

    def eof_received(self) -> bool:
        if self._done:
            return False
        if self._response is not None and self._response_left == -2:
            self._done = True
            self._drop()
            self.client.finished(False, b"")
        else:
            self._lost()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        if not self._done:
            self._lost()

    def _lost(self) -> None:
        """The upstream ended too early. A connection that died while idle gives one more try."""
        connection = self.upstream_connection
        if (
            connection is not None
            and connection.uses > 1
            and not self._received
            and not self._retried
            and self.head.length == 0
            and self.head.method in RETRIED
        ):
            self._retried = True
            connection.transport.set_protocol(asyncio.Protocol())  # its end is no news any more
            self._drop()
            self._claiming = spawn(self._claim(), name="claim upstream again")
            return
        self._bad("it closed the connection before the response was whole")

    def _bad(self, why: str) -> None:
        who = "The studio's tool" if self._from_studio else "Portico's control process"
        self._fail(502, f"{who} gave no valid answer: {why}.")

    def _fail(self, status: int, message: str) -> None:
        self._done = True
        self._drop()
        if self.sent:
            self.client.broken()
        else:
            self.status = status
            self.client.failed(status, message)

    def _drop(self) -> None:
        connection, self.upstream_connection = self.upstream_connection, None
        if connection is not None:
            self._upstream.drop(connection)
