"""Acceptor, registry and the agent's dialer over real sockets, with a real tool behind."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from portico_agent.tunnel.dialer import Dialer
from portico_gateway.errors import TooMany, Unavailable
from portico_gateway.link.messages import Probe, Revoke, Route, RouteGone, Routes
from portico_gateway.tunnel.connection import TunnelConnection
from portico_gateway.tunnel.pool import FLOOR, MAX_WAITERS
from portico_gateway.tunnel.probe import probe
from portico_gateway.tunnel.registry import ToolRefused
from portico_shared.backoff import Backoff
from support.roads import RUN, STUDIO, GatewayStub, Roads, gatehouse, roads, until


@pytest.fixture(params=["unix", "tcp"])
async def road(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Roads]:
    async with roads(tmp_path / "edge.sock" if request.param == "unix" else None) as made:
        await until(lambda: made.registry.statistics()[STUDIO].spare == FLOOR)
        yield made


@pytest.fixture
async def tool() -> AsyncIterator[int]:
    """A real web server; its port."""

    async def hello(request: web.Request) -> web.Response:
        return web.json_response({"path": request.path, "bytes": len(await request.read())})

    async def big(request: web.Request) -> web.Response:
        return web.Response(body=b"\0" * int(request.query["bytes"]))

    app = web.Application(client_max_size=2**30)
    app.router.add_get("/big", big)
    app.router.add_route("*", "/{tail:.*}", hello)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    await runner.cleanup()


@contextlib.asynccontextmanager
async def raw_tool(handler) -> AsyncIterator[int]:  # type: ignore[no-untyped-def]
    """A tool that is no HTTP server."""
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


class Pipe(asyncio.Protocol):
    """What an exchange does with a claimed connection, as plain as can be."""

    def __init__(self, connection: TunnelConnection) -> None:
        self.connection = connection
        self.received = bytearray(connection.attach(self))
        self.total = len(self.received)
        self.keep = True
        self.changed = asyncio.Event()
        self.ended = connection.transport.is_closing()
        self.writable = asyncio.Event()
        self.writable.set()

    def data_received(self, data: bytes) -> None:
        self.total += len(data)
        if self.keep:
            self.received += data
        self.changed.set()

    def eof_received(self) -> bool:
        self.ended = True
        self.changed.set()
        return True

    def connection_lost(self, error: Exception | None) -> None:
        self.ended = True
        self.changed.set()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    async def read_until(self, mark: bytes) -> bytes:
        async with asyncio.timeout(10):
            while mark not in self.received:
                assert not self.ended, bytes(self.received)
                self.changed.clear()
                await self.changed.wait()
        found, _, rest = bytes(self.received).partition(mark)
        self.received = bytearray(rest)
        return found + mark

    async def read_end(self) -> bytes:
        async with asyncio.timeout(10):
            while not self.ended:
                self.changed.clear()
                await self.changed.wait()
        return bytes(self.received)

    def write(self, data: bytes) -> None:
        self.connection.transport.write(data)


async def get(road: Roads, port: int, path: str) -> bytes:
    """One exchange with keep-alive, as the proxy would do it."""
    connection = road.registry.take(STUDIO, port) or await road.registry.claim(STUDIO, port)
    pipe = Pipe(connection)
    pipe.write(f"GET {path} HTTP/1.1\r\nHost: t\r\n\r\n".encode())
    await pipe.read_until(b"\r\n\r\n")
    body = await pipe.read_until(b"}")
    road.registry.give_back(connection)
    return body


async def test_a_request_reaches_the_tool_and_its_answer_comes_back(road: Roads, tool: int) -> None:
    assert await get(road, tool, "/lab") == b'{"path": "/lab", "bytes": 0}'


async def test_a_connection_is_used_again_for_the_same_port(road: Roads, tool: int) -> None:
    for n in range(5):
        await get(road, tool, f"/{n}")
    stats = road.registry.statistics()[STUDIO]
    assert (stats.idle, stats.busy) == (1, 0)
    connection = road.registry.take(STUDIO, tool)
    assert connection is not None and connection.uses == 6
    road.registry.drop(connection)


async def test_a_burst_of_a_hundred_streams_is_served(road: Roads, tool: int) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(get(road, tool, f"/{n}")) for n in range(100)]
    assert [t.result() for t in tasks] == [b'{"path": "/%d", "bytes": 0}' % n for n in range(100)]


async def test_a_hundred_connections_can_be_open_at_once(road: Roads, tool: int) -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(road.registry.claim(STUDIO, tool)) for _ in range(100)]
    held = [task.result() for task in tasks]
    assert len({id(c) for c in held}) == 100
    await until(lambda: road.registry.statistics()[STUDIO].spare >= FLOOR)
    for connection in held:
        road.registry.drop(connection)
    await until(lambda: road.dialer.statistics().streams == 0)


async def test_a_claimed_spare_is_replaced_at_once(road: Roads, tool: int) -> None:
    connection = await road.registry.claim(STUDIO, tool)
    await until(lambda: road.registry.statistics()[STUDIO].spare == FLOOR)
    road.registry.drop(connection)


async def test_nothing_listening_is_said_at_once(road: Roads, unused_tcp_port: int) -> None:
    with pytest.raises(ToolRefused, match=f"port {unused_tcp_port}"):
        await road.registry.claim(STUDIO, unused_tcp_port)
    await until(lambda: road.registry.statistics()[STUDIO].spare == FLOOR)


async def test_a_port_that_is_not_allowed_is_refused(tmp_path: Path, tool: int) -> None:
    async with roads(tmp_path / "edge.sock", allowed=lambda port: port == 1) as road:
        with pytest.raises(ToolRefused):
            await road.registry.claim(STUDIO, tool)


async def test_a_killed_tool_ends_the_stream_and_the_next_one_is_refused(road: Roads) -> None:
    accepted: list[asyncio.StreamWriter] = []

    async def tool(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(writer)
        await reader.read()

    async with raw_tool(tool) as port:
        pipe = Pipe(await road.registry.claim(STUDIO, port, "raw"))
        await until(lambda: bool(accepted))
        accepted[0].transport.abort()
        assert await pipe.read_end() == b""
        road.registry.drop(pipe.connection)
    with pytest.raises(ToolRefused):
        await road.registry.claim(STUDIO, port)


async def test_a_tool_that_speaks_first_is_heard(road: Roads) -> None:
    async def tool(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-tool\r\n")
        await reader.read()
        writer.close()

    async with raw_tool(tool) as port:
        pipe = Pipe(await road.registry.claim(STUDIO, port, "raw"))
        assert await pipe.read_until(b"\r\n") == b"SSH-2.0-tool\r\n"
        road.registry.drop(pipe.connection)
        await until(lambda: road.dialer.statistics().streams == 0)


async def test_a_half_close_passes_and_the_other_direction_goes_on(road: Roads) -> None:
    async def tool(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        everything = await reader.read()
        writer.write(everything[::-1])
        writer.close()

    async with raw_tool(tool) as port:
        pipe = Pipe(await road.registry.claim(STUDIO, port, "raw"))
        pipe.write(b"abc")
        pipe.connection.transport.write_eof()
        assert await pipe.read_end() == b"cba"
        road.registry.drop(pipe.connection)
        await until(lambda: road.dialer.statistics().streams == 0)


async def test_a_large_upload_arrives_whole(road: Roads, tool: int) -> None:
    size = 48 * 2**20
    pipe = Pipe(await road.registry.claim(STUDIO, tool))
    pipe.write(f"POST /up HTTP/1.1\r\nHost: t\r\nContent-Length: {size}\r\n\r\n".encode())
    piece = b"\1" * 2**20
    for _ in range(size // len(piece)):
        await pipe.writable.wait()
        pipe.write(piece)
    assert f'"bytes": {size}'.encode() in await pipe.read_until(b"}")
    road.registry.drop(pipe.connection)


async def test_a_large_download_arrives_whole(road: Roads, tool: int) -> None:
    size = 48 * 2**20
    pipe = Pipe(await road.registry.claim(STUDIO, tool))
    pipe.write(f"GET /big?bytes={size} HTTP/1.1\r\nHost: t\r\n\r\n".encode())
    await pipe.read_until(b"\r\n\r\n")
    pipe.total, pipe.keep = len(pipe.received), False
    await until(lambda: pipe.total >= size, 20)
    assert pipe.total == size
    road.registry.drop(pipe.connection)


async def test_a_reader_that_stops_holds_the_tool_back_and_nobody_else(road: Roads, tool: int) -> None:
    sent = 0
    flowing = asyncio.Event()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(b"\0" * 65536)
                sent += 65536
                flowing.set()
                await writer.drain()

    async with raw_tool(endless) as port:
        pipe = Pipe(await road.registry.claim(STUDIO, port, "raw"))
        pipe.keep = False
        pipe.connection.transport.pause_reading()
        await flowing.wait()
        before = -1
        while before != sent:  # it comes to a stand once every buffer on the way is full
            before = sent
            for n in range(20):
                await get(road, tool, f"/{n}")
        assert sent < 32 * 2**20
        pipe.connection.transport.resume_reading()
        await until(lambda: pipe.total > 64 * 2**20, 20)
        road.registry.drop(pipe.connection)
        await until(lambda: road.dialer.statistics().streams == 1)  # the idle one of the other requests


async def test_the_gateway_dies_and_the_agent_comes_back(tmp_path: Path, tool: int) -> None:
    path = tmp_path / "edge.sock"
    async with gatehouse(path) as house, asyncio.TaskGroup() as group:
        gateway = GatewayStub(house.address)
        dialer = Dialer(gateway, lambda port: True, backoff=Backoff(base=0.01, cap=0.05))
        task = group.create_task(dialer.run())
        await dialer.connected.wait()
        await house.die()
        await until(lambda: not dialer.connected.is_set())
        await until(lambda: dialer.statistics().failures > 2)
        await house.listen(path)
        await dialer.connected.wait()
        await until(lambda: dialer.statistics().spares == FLOOR)
        assert await get(Roads(house, dialer, gateway), tool, "/again") == b'{"path": "/again", "bytes": 0}'
        task.cancel()


async def test_a_gateway_that_is_away_is_asked_by_one_connection_at_a_time(tmp_path: Path) -> None:
    async with asyncio.TaskGroup() as group:
        dialer = Dialer(GatewayStub(f"unix:{tmp_path}/none"), lambda p: True, backoff=Backoff(base=0.001, cap=0.002))
        task = group.create_task(dialer.run())
        await until(lambda: dialer.statistics().failures >= FLOOR + 10)
        assert dialer.statistics().dialling <= 1
        task.cancel()


async def test_a_request_that_comes_before_the_tunnel_waits_for_it(tmp_path: Path, tool: int) -> None:
    async with gatehouse(tmp_path / "edge.sock") as house, asyncio.TaskGroup() as group:
        waiting = group.create_task(house.registry.claim(STUDIO, tool))
        dialer = Dialer(GatewayStub(house.address), lambda port: True)
        task = group.create_task(dialer.run())
        house.registry.drop(await waiting)
        task.cancel()


async def test_a_refused_token_is_forgotten_and_the_next_one_used(tmp_path: Path) -> None:
    async with gatehouse(tmp_path / "edge.sock") as house, asyncio.TaskGroup() as group:
        gateway = GatewayStub(house.address, current="expired")
        dialer = Dialer(gateway, lambda port: True, backoff=Backoff(base=0.01, cap=0.02))
        task = group.create_task(dialer.run())
        await until(lambda: "expired" in gateway.forgotten)
        gateway.current = next(iter(house.tokens))
        await dialer.connected.wait()
        task.cancel()


async def test_a_run_that_is_not_the_studios_is_refused(tmp_path: Path) -> None:
    async with gatehouse(tmp_path / "edge.sock") as house:
        house.tokens["other"] = (STUDIO, "r" + "9" * 16)
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "edge.sock"))
        writer.write(b"GET /t HTTP/1.1\r\nUpgrade: portico-tunnel\r\nAuthorization: Bearer other\r\n\r\n")
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 409 ") and b'{"message": "this run is not' in answer
        writer.close()


async def test_bytes_before_the_answer_to_the_upgrade_are_refused(tmp_path: Path) -> None:
    async with gatehouse(tmp_path / "edge.sock") as house:
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "edge.sock"))
        token = next(iter(house.tokens))
        writer.write(f"GET /t HTTP/1.1\r\nUpgrade: portico-tunnel\r\nAuthorization: Bearer {token}\r\n\r\n+".encode())
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
        writer.close()


async def test_a_newer_run_fences_the_older_one(road: Roads, tool: int) -> None:
    pipe = Pipe(await road.registry.claim(STUDIO, tool))
    road.registry.apply(Route(session_id=STUDIO, state="starting", run="r" + "2" * 16))
    await pipe.read_end()
    assert road.registry.statistics()[STUDIO].spare == 0
    assert road.house.told[-1].run == RUN and road.house.told[-1].connections == 0
    before = road.house.requests
    await until(lambda: road.house.requests > before + 2)  # the old one dials on, and is turned away
    assert road.registry.statistics()[STUDIO].spare == 0


@pytest.mark.parametrize(
    "message",
    [
        Revoke(generation=2, run=RUN),
        RouteGone(session_id=STUDIO),
        Routes(routes=()),
        Route(session_id=STUDIO, state="stopped"),
    ],
)
async def test_a_run_that_counts_no_more_is_cut_off(road: Roads, tool: int, message) -> None:  # type: ignore[no-untyped-def]
    pipe = Pipe(await road.registry.claim(STUDIO, tool))
    road.registry.apply(message)
    await pipe.read_end()
    road.registry.drop(pipe.connection)
    with pytest.raises(Unavailable):
        await road.registry.claim(STUDIO, tool)


async def test_the_same_routes_again_change_nothing(road: Roads, tool: int) -> None:
    connection = await road.registry.claim(STUDIO, tool)
    road.registry.apply(Routes(routes=(Route(session_id=STUDIO, state="running", run=RUN, port=tool),)))
    assert not connection.transport.is_closing() and road.registry.statistics()[STUDIO].busy == 1
    road.registry.drop(connection)


async def test_only_so_many_streams_may_wait(tmp_path: Path) -> None:
    async with gatehouse(tmp_path / "edge.sock") as house, asyncio.TaskGroup() as group:
        waiting = [group.create_task(_given_up(house.registry.claim(STUDIO, 80))) for _ in range(MAX_WAITERS)]
        await until(lambda: house.registry.statistics()[STUDIO].waiting == MAX_WAITERS)
        with pytest.raises(TooMany):
            await house.registry.claim(STUDIO, 80)
        for task in waiting:
            task.cancel()


async def _given_up(claim) -> None:  # type: ignore[no-untyped-def]
    with contextlib.suppress(asyncio.CancelledError):
        await claim


async def test_who_stops_waiting_leaves_a_connection_for_the_next(road: Roads, tool: int) -> None:
    asked = asyncio.ensure_future(road.registry.claim(STUDIO, tool))
    await asyncio.sleep(0)  # it runs up to where it waits
    assert road.registry.statistics()[STUDIO].claiming == 1
    asked.cancel()
    await until(lambda: road.registry.statistics()[STUDIO].idle == 1)
    await get(road, tool, "/")
    assert road.registry.statistics()[STUDIO].idle == 1


async def test_contact_is_told_when_it_begins_and_when_it_ends(tmp_path: Path) -> None:
    async with roads(tmp_path / "edge.sock") as road:
        await until(lambda: bool(road.house.told))
        assert (road.house.told[0].run, road.house.told[0].session_id) == (RUN, STUDIO)
        assert road.house.told[0].connections == 1
        await until(lambda: road.house.told[-1].connections == FLOOR)
        assert [t.connections for t in road.registry.contacts()] == [FLOOR]
    await until(lambda: road.house.told[-1].connections == 0)


async def test_a_probe_says_what_the_tool_answered(road: Roads, tool: int) -> None:
    reply = await probe(road.registry, Probe(id=5, session_id=STUDIO, port=tool, path="/api", timeout=5))
    assert (reply.id, reply.status) == (5, 200)
    await until(lambda: road.dialer.statistics().streams == 0)


@pytest.mark.parametrize(
    ("says", "detail"),
    [
        (b"SSH-2.0-x\r\n", "not HTTP"),
        (b"HTTP/1.1 999 no\r\n", "not HTTP"),
        (b"x" * 5000, "not HTTP"),
        (b"", "without an answer"),
    ],
)
async def test_a_probe_takes_only_http_for_an_answer(road: Roads, says: bytes, detail: str) -> None:
    async def tool(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(says)
        writer.close()

    async with raw_tool(tool) as port:
        reply = await probe(road.registry, Probe(id=1, session_id=STUDIO, port=port, path="/", timeout=5))
        assert reply.status == 0 and detail in reply.detail


async def test_a_probe_of_a_port_where_nothing_listens_is_quick(road: Roads, unused_tcp_port: int) -> None:
    reply = await probe(road.registry, Probe(id=1, session_id=STUDIO, port=unused_tcp_port, path="/", timeout=5))
    assert reply.status == 0 and "Nothing listens" in reply.detail


@pytest.mark.parametrize("path", ["", "lab", "/a b", "/a\r\nX: y", "/" + "x" * 2000])
async def test_a_probe_sends_no_path_that_is_not_one(tmp_path: Path, path: str) -> None:
    async with gatehouse(tmp_path / "e.sock") as house:
        reply = await probe(house.registry, Probe(id=1, session_id=STUDIO, port=80, path=path, timeout=5))
        assert (reply.status, reply.detail) == (0, "the path is not one")


async def test_a_tcp_connection_watches_for_a_peer_that_vanishes() -> None:
    async with roads() as road:
        connection = next(iter(road.registry._pools[STUDIO].connections))
        ours = connection.transport.get_extra_info("socket")
        for sock in (ours, *(s.transport.get_extra_info("socket") for s in road.dialer._spares if s.transport)):
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 15_000
