"""One request and its response through edge, tunnel and agent, with tools that behave well and badly."""

import asyncio
import contextlib
import hashlib
import socket
import struct

import pytest

from portico_gateway.link.messages import Revoke
from portico_shared.clock import JumpingClock
from support.edge_world import EdgeWorld, Handler, Response, edge_world, read_response
from support.roads import RUN, until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
EVIL = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Evil: 1\r\n\r\nEVIL"


def answering(raw: bytes) -> Handler:
    """A tool that answers '/bad' with `raw` and closes, everything else with OK."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            bad = head.split(b" ")[1] == b"/bad"
            writer.write(raw if bad else OK)
            await writer.drain()
            if bad and not raw.endswith(EVIL):
                return

    return handler


async def fetch(world: EdgeWorld, *fields: str, line: str = "GET /bad HTTP/1.1") -> Response:
    response = await world.get(line, *fields)
    after = await world.get("GET /good HTTP/1.1")
    assert after.body == b"ok" and after.get("x-evil") is None
    return response


@pytest.mark.parametrize(
    "raw",
    [
        b"<html>not http</html>",
        b"HTTP/1.1 99 x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\nY: b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000,
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + EVIL,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 100 + OK,
        b"",
    ],
)
async def test_answer_that_is_none_becomes_502(raw: bytes):
    async with edge_world() as world:
        await world.tool(answering(raw))
        response = await fetch(world)
        assert response.status == 502 and b"message" in response.body


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
    ],
)
async def test_truncated_answer_never_looks_whole(raw: bytes):
    async with edge_world() as world:
        await world.tool(answering(raw))
        response = await fetch(world)
        assert response.status == 502 or not response.whole


@pytest.mark.parametrize(
    "raw",
    [
        OK + EVIL,
        b"HTTP/1.1 204 No Content\r\n\r\n" + EVIL,
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 60\r\n\r\n" + EVIL,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + EVIL,
    ],
)
async def test_bytes_beyond_the_answer_reach_nobody(raw: bytes):
    async with edge_world() as world:
        await world.tool(answering(raw))
        reader, writer = await world.connect()
        writer.write(world.head("GET /bad HTTP/1.1"))
        assert (await read_response(reader)).get("x-evil") is None
        writer.write(world.head("GET /good HTTP/1.1"))
        assert (await read_response(reader)).body == b"ok"


async def test_answer_that_ends_with_its_connection_ends_ours():
    async with edge_world() as world:
        await world.saying(b"HTTP/1.0 200 OK\r\n\r\nto the end", then_close=True)
        response = await world.get()
        assert (response.body, response.get("connection"), response.get("content-length")) == (
            b"to the end",
            "close",
            None,
        )


async def test_chunks_are_framed_anew_and_trailers_dropped():
    async with edge_world() as world:
        await world.saying(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nX-Evil: 1\r\n\r\n"
        )
        reader, writer = await world.connect()
        writer.write(world.head())
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(15) == b"5\r\nhello\r\n0\r\n\r\n"
        old = await world.get("GET / HTTP/1.0")
        assert (old.body, old.get("transfer-encoding"), old.get("connection")) == (b"hello", None, "close")


async def test_head_request_and_its_errors_have_no_body():
    async with edge_world() as world:
        await world.saying(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n", b"garbage\r\n\r\n", OK)
        reader, writer = await world.connect()
        writer.write(world.head("HEAD / HTTP/1.1"))
        assert (await read_response(reader, "HEAD")).get("content-length") == "500"
        writer.write(world.head("HEAD / HTTP/1.1") + world.head("GET / HTTP/1.1"))
        assert (await read_response(reader, "HEAD")).status == 502
        assert (await read_response(reader)).body == b"ok"


async def test_connection_to_the_tool_serves_one_request_after_the_other():
    async with edge_world() as world:
        opened = 0

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal opened
            opened += 1
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(OK)

        await world.tool(handler)
        for _ in range(5):
            assert (await world.get()).status == 200
        assert opened == 1


async def test_request_on_a_connection_that_died_meanwhile_is_tried_once_more():
    async with edge_world() as world:
        seen: list[bytes] = []

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(OK)
            seen.append(await reader.readuntil(b"\r\n\r\n"))  # and closes without an answer

        await world.tool(handler)
        assert (await world.get("GET /1 HTTP/1.1")).status == 200
        assert (await world.get("GET /2 HTTP/1.1")).status == 200
        assert [head.split(b" ")[1] for head in seen] == [b"/1", b"/2", b"/2"]
        assert (await world.get("POST /3 HTTP/1.1", "Content-Length: 0")).status == 502
        assert [head.split(b" ")[1] for head in seen[3:]] == [b"/3"]


async def test_early_hints_pass_and_unasked_continue_does_not():
    async with edge_world() as world:
        hints = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
        await world.saying(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + hints + OK)
        reader, writer = await world.connect()
        writer.write(world.head())
        first, second = await read_response(reader), await read_response(reader)
        assert (first.status, first.get("link"), second.status) == (103, "</x>", 200)
        assert (await world.get("GET / HTTP/1.0")).status == 200


async def test_client_that_expects_waits_for_the_tools_word():
    async with edge_world() as world:

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            assert b"Expect: 100-continue" in await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            assert await reader.readexactly(5) == b"hello"
            writer.write(OK)

        await world.tool(handler)
        reader, writer = await world.connect()
        writer.write(world.head("PUT / HTTP/1.1", "Content-Length: 5", "Expect: 100-continue"))
        assert (await read_response(reader)).status == 100
        writer.write(b"hello")
        assert (await read_response(reader)).status == 200


async def test_tool_that_refuses_an_upload_is_heard_and_the_rest_is_dropped():
    async with edge_world() as world:

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
            await reader.read()

        await world.tool(handler)
        reader, writer = await world.connect()
        writer.write(world.head("PUT / HTTP/1.1", "Content-Length: 50000000"))
        for _ in range(30):
            writer.write(b"x" * 100_000)
        response = await read_response(reader)
        assert (response.status, response.body, response.get("connection")) == (413, b"big", "close")
        assert await reader.read() == b""


async def test_upload_waits_for_a_tool_that_does_not_read_yet():
    size = 48 * 1024 * 1024
    async with edge_world() as world:
        may_read, digest = asyncio.Event(), hashlib.sha256()

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            await may_read.wait()
            writer.transport.resume_reading()  # type: ignore[attr-defined]
            left = size
            while left:
                data = await reader.read(1 << 20)
                digest.update(data)
                left -= len(data)
            writer.write(OK)

        await world.tool(handler)
        reader, writer = await world.connect()
        body = bytes(range(256)) * (size // 256)
        writer.write(world.head("PUT / HTTP/1.1", f"Content-Length: {size}"))
        writer.write(body)
        await until(lambda: any(c.exchange and not c.transport.is_reading() for c in world.worker.edge.connections))
        assert writer.transport.get_write_buffer_size() > size // 2
        may_read.set()
        assert (await read_response(reader, seconds=30)).status == 200
        assert digest.digest() == hashlib.sha256(body).digest()


async def test_download_waits_for_a_client_that_does_not_read_yet():
    size = 48 * 1024 * 1024
    async with edge_world() as world:
        ends: list[asyncio.StreamWriter] = []

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            ends.append(writer)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(range(256)) * (size // 256))
            await writer.drain()

        await world.tool(handler)
        reader, writer = await world.connect()
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(world.head())
        await until(lambda: any(c._paused_at is not None for c in world.worker.edge.connections))
        await until(lambda: bool(ends))
        assert ends[0].transport.get_write_buffer_size() > size // 2
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        response = await read_response(reader, seconds=30)
        assert response.whole and response.body == bytes(range(256)) * (size // 256)


async def test_chunked_upload_is_framed_anew_and_bad_chunks_end_it():
    async with edge_world() as world:
        bodies: list[bytes] = []

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            bodies.append(await reader.read(1000))
            if bodies[-1].endswith(b"0\r\n\r\n"):
                writer.write(OK)
            else:
                await reader.read()

        await world.tool(handler)
        head = world.head("POST / HTTP/1.1", "Transfer-Encoding: chunked")
        assert (await world.ask(head + b"2;a=b\r\nhi\r\n0\r\nX-Evil: 1\r\n\r\n")).status == 200
        assert bodies == [b"2\r\nhi\r\n0\r\n\r\n"]
        for bad in (b"zz\r\nGET /smuggled HTTP/1.1\r\n\r\n", b"2\nhi\n0\n\n", b'1;a="\r\nx\r\n0\r\n\r\n'):
            response = await world.ask(head + bad)
            assert (response.status, response.get("connection")) == (400, "close")


def reset(writer: asyncio.StreamWriter) -> None:
    """As a client that is killed with an answer unread."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def test_client_that_leaves_ends_the_tools_work():
    async with edge_world() as world:
        gone = asyncio.Event()

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                await reader.read()
            gone.set()

        await world.tool(handler)
        _, writer = await world.connect()
        writer.write(world.head())
        await until(lambda: any(c.exchange for c in world.worker.edge.connections))
        reset(writer)
        async with asyncio.timeout(5):
            await gone.wait()
        await until(lambda: not world.worker.edge.connections)


async def test_client_that_ended_quietly_is_taken_for_gone_after_a_while():
    clock = JumpingClock()
    async with edge_world(clock) as world:
        heads = await world.saying(b"HTTP/1.1 200 OK\r\n\r\nstart")
        reader, writer = await world.connect()
        writer.write(world.head())
        await reader.readuntil(b"start")
        writer.write_eof()
        await until(lambda: any(c._ended for c in world.worker.edge.connections))
        await clock.jump(29)
        assert len(heads) == 1 and any(c.exchange for c in world.worker.edge.connections)
        await clock.jump(3)
        with pytest.raises(ConnectionResetError):
            await reader.read()


async def test_answer_to_the_end_of_its_connection_is_reset_when_it_cannot_be_finished():
    async with edge_world() as world:
        await world.saying(b"HTTP/1.1 200 OK\r\n\r\nstart")
        reader, writer = await world.connect()
        writer.write(world.head())
        await reader.readuntil(b"start")
        world.link.push(Revoke(generation=2, run=RUN))
        with pytest.raises(ConnectionResetError):
            await reader.read()
