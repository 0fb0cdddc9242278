"""An edge worker with everything around it on loopback: `async with edge_world() as world`.

The worker, its link, registry and acceptor are the real ones, and so are the agent's dialer and the tunnel between;
control is a double that answers the link from a table, and serves a small application on its Unix socket.
"""

import asyncio
import base64
import contextlib
import hashlib
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from portico_agent.tunnel.dialer import Dialer
from portico_gateway.auth.studio_cookies import StudioCookies
from portico_gateway.errors import NotFound, Unauthenticated
from portico_gateway.link.client import Question
from portico_gateway.link.messages import (
    STUDIO_COOKIE,
    CheckRun,
    CheckToken,
    ControlMessage,
    Hello,
    Keys,
    Presence,
    RedeemCode,
    Renew,
    Route,
    Routes,
    Tunnels,
    Verdict,
)
from portico_gateway.link.server import LinkServer
from portico_gateway.settings import Settings
from portico_gateway.worker import Worker
from portico_shared.backoff import Backoff
from portico_shared.clock import Clock, SystemClock
from support.roads import RUN, STUDIO, TOKEN, GatewayStub, until

OTHER = "00000002"
PAT, SIGN_IN, USER = "pat-of-ann", "s1", 7
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class ControlDouble:
    """Answers the link from a table and keeps what it was asked and told."""

    def __init__(self, clock: Clock) -> None:
        self.key = Ed25519PrivateKey.generate()
        self.cookies = StudioCookies(self.key, clock)
        self.routes = [Route(session_id=STUDIO, state="running", run=RUN, port=1)]
        self.codes: dict[str, tuple[str, str]] = {}  # code -> (nonce, location)
        self.signed_in = True
        self.asked: list[Question] = []
        self.told_us: list[Hello | Tunnels | Presence] = []
        self.generation = 1
        self.ready = 200

    def cookie(self, session_id: str = STUDIO, user: int = USER, sign_in: str = SIGN_IN) -> str:
        value, _ = self.cookies.mint(
            session_id=session_id, user_id=user, user_name="ann", sign_in=sign_in, generation=self.generation
        )
        return value

    async def answer(self, message: Question) -> Verdict:
        self.asked.append(message)
        match message:
            case CheckRun(token=token):
                if token != TOKEN:
                    raise Unauthenticated("not a run's token")
                return Verdict(id=0, status=200, session_id=STUDIO, run=RUN)
            case CheckToken(token=token, session_id=session_id):
                if token != PAT:
                    raise Unauthenticated("this token is unknown, expired or revoked")
                return self._yes(session_id)
            case RedeemCode(code=code, nonce=nonce, session_id=session_id):
                known = self.codes.pop(code, None)
                if known is None or known[0] != nonce:
                    raise Unauthenticated("this code is spent")
                return self._yes(session_id, location=known[1])
            case Renew(session_id=session_id, cookie=cookie):
                self.cookies.read(cookie, session_id)
                if not self.signed_in:
                    raise Unauthenticated("signed out")
                return self._yes(session_id)

    def _yes(self, session_id: str, location: str = "") -> Verdict:
        if session_id != STUDIO:
            raise NotFound("no such studio")
        value, expires = self.cookies.mint(
            session_id=session_id, user_id=USER, user_name="ann", sign_in=SIGN_IN, generation=self.generation
        )
        return Verdict(
            id=0,
            status=200,
            user_id=USER,
            session_id=session_id,
            sign_in=SIGN_IN,
            expires_at=expires,
            generation=self.generation,
            cookie=value,
            location=location,
        )

    def told(self, worker: str, message: Hello | Tunnels | Presence) -> None:
        self.told_us.append(message)

    def snapshot(self) -> Sequence[ControlMessage]:
        keys = Keys(public_keys=(self.cookies.public_key,), generation=0)
        return (keys, Routes(routes=tuple(self.routes)))

    def application(self) -> web.Application:
        """Says what reached it, as JSON."""

        async def echo(request: web.Request) -> web.Response:
            if request.path == "/readyz":
                return web.Response(status=self.ready)
            body = await request.text()
            seen = {"path": request.raw_path, "method": request.method, "body": body}
            return web.json_response({**seen, "headers": [[k.lower(), v] for k, v in request.headers.items()]})

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", echo)
        return app


@dataclass
class Response:
    status: int
    headers: list[tuple[str, str]]
    body: bytes
    whole: bool
    """Whether the body ended as its framing says."""

    def get(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]


@dataclass
class EdgeWorld:
    worker: Worker
    control: ControlDouble
    link: LinkServer
    dialer: Dialer
    port: int
    settings: Settings
    application: web.AppRunner
    _writers: list[asyncio.StreamWriter] = field(default_factory=list)
    _servers: list[asyncio.Server] = field(default_factory=list)
    _tool_ends: list[asyncio.StreamWriter] = field(default_factory=list)

    @property
    def host(self) -> str:
        """The studio's."""
        return f"a{STUDIO}.studio.localhost:{self.port}"

    @property
    def management(self) -> str:
        return f"portico.localhost:{self.port}"

    def route(self, state: Any = "running", port: int | None = None) -> None:
        """Push the studio's route."""
        previous = self.control.routes[0]
        route = Route(session_id=STUDIO, state=state, run=RUN, port=previous.port if port is None else port)
        self.control.routes[0] = route
        self.link.push(route)

    async def tool(self, handler: Handler) -> int:
        """A tool on a port of its own, which becomes the studio's; `handler` has each connection."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._tool_ends.append(writer)
            try:
                with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                    await handler(reader, writer)
            finally:
                writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 24)
        self._servers.append(server)
        port = int(server.sockets[0].getsockname()[1])
        self.route(port=port)
        await until(lambda: (r := self.worker.routes.get(STUDIO)) is not None and r.port == port)
        return port

    async def saying(self, *answers: bytes, then_close: bool = False) -> list[bytes]:
        """A tool that answers each request's head with the next of `answers` (the last one again and again).

        Returns the list to which the heads are added as they come."""
        heads: list[bytes] = []

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                heads.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(answers[min(len(heads), len(answers)) - 1])
                await writer.drain()
                if then_close:
                    return

        await self.tool(handler)
        return heads

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 24)
        self._writers.append(writer)
        return reader, writer

    def head(self, line: str = "GET / HTTP/1.1", *fields: str, host: str | None = None, cookie: bool = True) -> bytes:
        """A request's head to the studio (or `host`), signed in unless told otherwise."""
        lines = [line, f"Host: {host or self.host}", *fields]
        if cookie and host is None:
            lines.append(f"Cookie: {STUDIO_COOKIE}={self.control.cookie()}")
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"

    async def ask(self, request: bytes, method: str = "GET") -> Response:
        """One request on a connection of its own."""
        reader, writer = await self.connect()
        writer.write(request)
        return await read_response(reader, method)

    async def get(
        self, line: str = "GET / HTTP/1.1", *fields: str, host: str | None = None, cookie: bool = True
    ) -> Response:
        return await self.ask(self.head(line, *fields, host=host, cookie=cookie), line.split(" ")[0])

    async def websocket(
        self, *fields: str, origin: str | None = None, line: str = "GET /ws HTTP/1.1", cookie: bool = True
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, Response]:
        """Ask for a WebSocket as this studio's own pages do (`origin` "" = without Origin)."""
        if origin is None:
            origin = f"http://{self.host}"
        wanted = [*WEBSOCKET, *fields, *([f"Origin: {origin}"] if origin else [])]
        reader, writer = await self.connect()
        writer.write(self.head(line, *wanted, cookie=cookie))
        return reader, writer, await read_response(reader)

    async def echo_tool(self) -> list[str]:
        """A tool that accepts WebSockets and sends back the bytes it gets. Returns what happened to it, as it happens:
        'open', then 'eof' or 'lost'."""
        events: list[str] = []

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(accepting(head))
            events.append("open")
            try:
                while data := await reader.read(65536):
                    writer.write(data)
                events.append("eof")
            except ConnectionError:
                events.append("lost")

        await self.tool(handler)
        return events

    async def close(self) -> None:
        """Every end of ours, at once."""
        for server in self._servers:
            server.close()
        for writer in [*self._writers, *self._tool_ends]:
            writer.transport.abort()
        await until(lambda: not self.worker.edge.connections)


WEBSOCKET = (
    "Connection: keep-alive, Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


def accepting(head: bytes) -> bytes:
    """The 101 to a WebSocket's handshake."""
    key = next(line[19:] for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key: "))
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )


async def read_response(reader: asyncio.StreamReader, method: str = "GET", seconds: float = 5.0) -> Response:
    """The next response; EOFError when the connection ends before its head."""
    async with asyncio.timeout(seconds):
        try:
            block = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise EOFError(getattr(error, "partial", b"")) from error
        line, *lines = block[:-4].decode("latin-1").split("\r\n")
        headers = [(name.lower(), value.strip()) for name, _, value in (each.partition(":") for each in lines)]
        response = Response(int(line.split(" ")[1]), headers, b"", True)
        if method == "HEAD" or response.status in (204, 304) or response.status < 200:
            return response
        try:
            response.body = await _body(reader, response)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            response.body, response.whole = getattr(error, "partial", b""), False
        return response


async def _body(reader: asyncio.StreamReader, response: Response) -> bytes:
    if response.get("transfer-encoding") == "chunked":
        body = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readuntil(b"\r\n")
        return body
    length = response.get("content-length")
    return await reader.readexactly(int(length)) if length is not None else await reader.read()


@contextlib.asynccontextmanager
async def edge_world(clock: Clock | None = None, **options: Any) -> AsyncIterator[EdgeWorld]:
    """A worker whose one studio is running, its agent's spares in place."""
    clock = clock or SystemClock()
    with tempfile.TemporaryDirectory(prefix="portico-edge-") as folder:
        data = Path(folder)
        (data / "run").mkdir()
        control = ControlDouble(clock)
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        port = int(listener.getsockname()[1])
        settings = Settings(data=data, listen=f"127.0.0.1:{port}", **options)
        worker = Worker(settings, clock)
        runner = web.AppRunner(control.application(), shutdown_timeout=0.1)
        await runner.setup()
        await web.UnixSite(runner, str(data / "run" / "control.sock")).start()
        async with LinkServer(data / "run" / "link.sock", control) as link, asyncio.TaskGroup() as group:
            serving = group.create_task(worker.serve([listener]))
            stub = GatewayStub(f"http://127.0.0.1:{port}", host=settings.host)
            dialer = Dialer(stub, lambda port: True, backoff=Backoff(base=0.01, cap=0.05))
            dialing = group.create_task(dialer.run())
            world = EdgeWorld(worker, control, link, dialer, port, settings, runner)
            try:
                await until(lambda: worker.routes.known and dialer.connected.is_set())
                yield world
            finally:
                await world.close()
                dialing.cancel()
                worker.leaving.set()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(2):
                        await asyncio.wait([serving])
                serving.cancel()
                await runner.cleanup()
