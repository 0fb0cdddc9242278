"""How a client connection behaves: in order, within limits, told why when it ends."""

import asyncio
import socket

from portico_shared.clock import JumpingClock
from support.edge_world import edge_world, read_response
from support.roads import until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def test_thousands_of_pipelined_requests_are_answered_in_order():
    async with edge_world() as world:
        reader, writer = await world.connect()
        one = world.head("GET /healthz HTTP/1.1", host="1.1.1.1")
        writer.write(one * 5000 + world.head("GET /last HTTP/1.1", host="1.1.1.1"))
        for _ in range(5000):
            assert (await read_response(reader)).status == 200
        assert (await read_response(reader)).status == 421


async def test_client_that_sends_and_never_reads_is_not_read_for_ever():
    async with edge_world() as world:
        _, writer = await world.connect()
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        one = world.head("GET /healthz HTTP/1.1", host="1.1.1.1") * 2000
        for _ in range(200):  # 9 MB of requests, 80 MB of answers
            writer.write(one)
            await asyncio.sleep(0)
        await until(lambda: any(c._paused_at is not None for c in world.worker.edge.connections))
        (connection,) = (c for c in world.worker.edge.connections if c._paused_at is not None)
        handled = connection.requests
        for _ in range(50):
            await asyncio.sleep(0.002)
        assert connection.requests == handled < 100_000
        assert connection.transport.get_write_buffer_size() < 2 * 1024 * 1024
        assert len(connection._buffer) < 512 * 1024
        writer.transport.abort()


async def test_pipelined_requests_to_a_studio_go_one_at_a_time():
    async with edge_world() as world:
        heads = await world.saying(OK)
        reader, writer = await world.connect()
        post = world.head("POST /2 HTTP/1.1", "Content-Length: 3") + b"abc"
        writer.write(world.head("GET /1 HTTP/1.1") + post + world.head("GET /3 HTTP/1.1"))
        assert [(await read_response(reader)).status for _ in range(2)] == [200, 200]
        assert [head.split(b" ")[1] for head in heads[:2]] == [b"/1", b"/2"]


async def test_one_empty_line_ahead_of_a_request_is_tolerated():
    async with edge_world() as world:
        assert (await world.ask(b"\r\n" + world.head("GET /healthz HTTP/1.1", host="1.1.1.1"))).status == 200
        assert (await world.ask(b"\r\n\r\n" + world.head(host="1.1.1.1"))).status == 400


async def test_refused_upload_gets_to_read_why():
    async with edge_world() as world:
        reader, writer = await world.connect()
        writer.write(world.head("POST / HTTP/1.1", "Content-Length: 4000000", cookie=False))
        for _ in range(40):
            writer.write(b"x" * 100_000)
        response = await read_response(reader)
        assert (response.status, response.get("connection"), response.whole) == (401, "close", True)
        assert await reader.read() == b""


async def test_refused_head_gets_to_read_why():
    async with edge_world() as world:
        for request, status in (
            (b"GET / HTTP/1.1\r\nX: " + b"a" * 300_000, 431),
            (b"\x16\x03\x01\x02\x00\r\n", 400),
            (b"GET / HTTP/1.1\nHost: x\n\n", 400),
            (b"GET /\r\n", 400),
        ):
            reader, writer = await world.connect()
            writer.write(request)
            assert (await read_response(reader)).status == status
            assert await reader.read() == b""


async def test_slow_head_is_timed_out():
    clock = JumpingClock()
    async with edge_world(clock) as world:
        reader, writer = await world.connect()
        writer.write(b"GET / HTTP/1.1\r\nHo")
        await until(lambda: any(c._head_began for c in world.worker.edge.connections))
        await clock.jump(9)
        writer.write(b"st: ")
        await clock.jump(2)
        assert (await read_response(reader)).status == 408


async def test_idle_connection_is_kept_for_75_seconds_and_a_head_after_it_has_its_own_ten():
    clock = JumpingClock()
    async with edge_world(clock) as world:
        request = world.head("GET /healthz HTTP/1.1", host="1.1.1.1")
        reader, writer = await world.connect()
        writer.write(request)
        await read_response(reader)
        await clock.jump(70)
        writer.write(request[:20])
        await until(lambda: any(c._head_began for c in world.worker.edge.connections))
        await clock.jump(9)
        writer.write(request[20:])
        assert (await read_response(reader)).status == 200
        await clock.jump(76)
        assert await reader.read() == b""


async def test_client_that_stops_in_the_middle_of_a_body_is_let_go():
    clock = JumpingClock()
    async with edge_world(clock) as world:
        ended = asyncio.Event()

        async def handler(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
            await reader.read()
            ended.set()

        await world.tool(handler)
        reader, writer = await world.connect()
        writer.write(world.head("POST / HTTP/1.1", "Content-Length: 10") + b"abc")
        await until(lambda: any(c.exchange is not None for c in world.worker.edge.connections))
        await clock.jump(1)
        writer.write(b"d")
        await until(lambda: any(c.exchange and c.exchange.client_bytes == 4 for c in world.worker.edge.connections))
        await clock.jump(58)
        assert not reader.at_eof() and not ended.is_set()
        await clock.jump(65)
        await ended.wait()


async def test_tool_that_never_answers_is_given_up_after_ten_minutes():
    clock = JumpingClock()
    async with edge_world(clock) as world:
        heads = await world.saying(b"")
        reader, writer = await world.connect()
        writer.write(world.head())
        await until(lambda: len(heads) == 1)
        await clock.jump(590)
        assert any(c.exchange for c in world.worker.edge.connections)
        await clock.jump(12)
        assert (await read_response(reader)).status == 504


async def test_half_closed_client_still_gets_its_answer():
    async with edge_world() as world:
        await world.saying(OK)
        reader, writer = await world.connect()
        writer.write(world.head())
        writer.write_eof()
        assert (await read_response(reader)).body == b"ok"
        assert await reader.read() == b""


async def test_crowd_beyond_the_limit_is_turned_away():
    async with edge_world() as world:
        world.worker.edge._limits._most_of_one = world.worker.edge._limits._of["127.0.0.1"] + 2
        kept = [await world.connect() for _ in range(2)]
        reader, _ = await world.connect()
        assert await reader.read() == b""
        for keeper, writer in kept:
            writer.write(world.head("GET /healthz HTTP/1.1", "Connection: close", host="1.1.1.1"))
            assert (await read_response(keeper)).status == 200
            assert await keeper.read() == b""
        reader, writer = await world.connect()
        writer.write(world.head("GET /healthz HTTP/1.1", host="1.1.1.1"))
        assert (await read_response(reader)).status == 200


async def test_draining_worker_finishes_what_is_under_way_and_takes_nothing_new():
    async with edge_world() as world:
        asked, may_answer = asyncio.Event(), asyncio.Event()

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            asked.set()
            await may_answer.wait()
            writer.write(OK)
            await writer.drain()

        await world.tool(handler)
        idle_reader, idle_writer = await world.connect()
        idle_writer.write(world.head("GET /healthz HTTP/1.1", host="1.1.1.1"))
        await read_response(idle_reader)
        fresh_reader, fresh_writer = await world.connect()
        reader, writer = await world.connect()
        writer.write(world.head())
        await asked.wait()
        await until(lambda: len(world.worker.edge.connections) == 3)
        world.worker.leaving.set()
        assert await idle_reader.read() == b""
        fresh_writer.write(world.head("GET /readyz HTTP/1.1", host="1.1.1.1"))
        assert (await read_response(fresh_reader)).status == 503
        assert await fresh_reader.read() == b""
        may_answer.set()
        response = await read_response(reader)
        assert (response.status, response.get("connection")) == (200, "close")
        assert await reader.read() == b""
