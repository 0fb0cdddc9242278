"""Is the tool up? One GET through the tunnel, of whose answer only the status line counts."""

import asyncio
import re

from portico_gateway.errors import PorticoError
from portico_gateway.link.messages import Probe, ProbeReply
from portico_gateway.tunnel.registry import Registry

MAX_SECONDS = 30.0
MAX_STATUS_LINE = 1024
MAX_PATH = 1024
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: [^\r\n]*)?\r\n")
_PATH = re.compile(r"/[!-~]*")


async def probe(registry: Registry, question: Probe) -> ProbeReply:
    """Never raises but by cancellation; status 0 with a detail when there was no answer."""
    if not _PATH.fullmatch(question.path) or len(question.path) > MAX_PATH:
        return ProbeReply(id=question.id, status=0, detail="the path is not one")
    try:
        async with asyncio.timeout(min(question.timeout, MAX_SECONDS)):
            status = await _ask(registry, question)
    except TimeoutError:
        return ProbeReply(id=question.id, status=0, detail="no answer in time")
    except (PorticoError, OSError, ValueError) as error:
        return ProbeReply(id=question.id, status=0, detail=str(error)[:300])
    return ProbeReply(id=question.id, status=status)


async def _ask(registry: Registry, question: Probe) -> int:
    connection = await registry.claim(question.session_id, question.port)
    reader = _StatusLine()
    try:
        if connection.attach(reader):
            raise ValueError("the tool speaks first: not HTTP")
        host = f"localhost:{question.port}"
        request = f"GET {question.path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: Portico\r\nConnection: close\r\n\r\n"
        connection.transport.write(request.encode())
        return await reader.status
    finally:
        reader.status.cancel()
        registry.drop(connection)


class _StatusLine(asyncio.Protocol):
    """Resolves `status` with the first line of the answer."""

    def __init__(self) -> None:
        self.status: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        if self.status.done():
            return
        self._buffer += data
        if (match := _STATUS.match(self._buffer)) is not None:
            self.status.set_result(int(match[1]))
        elif b"\r\n" in self._buffer or len(self._buffer) > MAX_STATUS_LINE:
            self.status.set_exception(ValueError("what answers on the tool's port is not HTTP"))

    def eof_received(self) -> bool:
        self._fail()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._fail()

    def _fail(self) -> None:
        if not self.status.done():
            self.status.set_exception(ConnectionResetError("the tool closed the connection without an answer"))
