"""WebSockets through edge, tunnel and agent: whose they are, and how they end."""

import asyncio
import struct

import pytest

from portico_gateway.link.messages import Presence, Revoke
from portico_shared.clock import JumpingClock
from support.edge_world import PAT, SIGN_IN, USER, WEBSOCKET, EdgeWorld, accepting, edge_world, read_response
from support.roads import STUDIO, until

MESSAGE = b"\x82\x05hello"


async def close_code(reader: asyncio.StreamReader) -> int:
    """The code of the close frame that comes next, after which the connection ends."""
    head = await reader.readexactly(2)
    assert head[0] == 0x88
    payload = await reader.readexactly(head[1])
    assert await reader.read() == b""
    return int(struct.unpack("!H", payload[:2])[0])


def present(world: EdgeWorld) -> list[tuple[int, ...]]:
    told = [m for m in world.control.told_us if isinstance(m, Presence)]
    return [tuple(user for user, _ in message.users) for message in told]


async def test_bytes_pass_both_ways_as_they_are():
    async with edge_world() as world:
        events = await world.echo_tool()
        reader, writer, response = await world.websocket(
            "Sec-WebSocket-Protocol: v1.kernel", "Sec-WebSocket-Extensions: x"
        )
        assert response.status == 101
        assert response.get("sec-websocket-accept") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        for data in (
            MESSAGE,
            b"\x02\x01",
            b"a" + b"\x80\x00",
            b"\x82\x7f" + struct.pack("!Q", 300_000) + b"b" * 300_000,
        ):
            writer.write(data)
            assert await reader.readexactly(len(data)) == data
        writer.close()
        await until(lambda: events == ["open", "eof"])


async def test_bytes_ahead_of_the_answer_are_sent_after_it():
    async with edge_world() as world:
        await world.echo_tool()
        reader, writer = await world.connect()
        writer.write(world.head("GET /ws HTTP/1.1", *WEBSOCKET, f"Origin: http://{world.host}") + MESSAGE)
        assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(len(MESSAGE)) == MESSAGE


async def test_bytes_ahead_of_a_refusal_are_no_request():
    async with edge_world() as world:
        heads = await world.saying(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno")
        reader, writer = await world.connect()
        smuggled = world.head("GET /smuggled HTTP/1.1")
        writer.write(world.head("GET /ws HTTP/1.1", *WEBSOCKET, f"Origin: http://{world.host}") + smuggled)
        response = await read_response(reader)
        assert (response.status, response.get("connection")) == (200, "close")
        assert await reader.read() == b"" and len(heads) == 1


@pytest.mark.parametrize(
    "origin",
    ["null", "http://evil.test", "https://{host}", "http://{host}0", "http://x.{host}", "", "http://{management}"],
)
async def test_websocket_of_another_origin_is_refused(origin: str):
    async with edge_world() as world:
        events = await world.echo_tool()
        _, _, response = await world.websocket(origin=origin.format(host=world.host, management=world.management))
        assert response.status == 403 and not events


async def test_program_with_a_token_needs_no_origin_but_may_not_lie():
    async with edge_world() as world:
        await world.echo_tool()
        token = f"Authorization: Bearer {PAT}"
        assert (await world.websocket(token, origin="", cookie=False))[2].status == 101
        assert (await world.websocket(token, origin="http://evil.test", cookie=False))[2].status == 403


@pytest.mark.parametrize(
    ("line", "replaced", "status"),
    [
        ("POST /ws HTTP/1.1", {}, 400),
        ("GET /ws HTTP/1.0", {}, 400),
        ("GET /ws HTTP/1.1", {"Sec-WebSocket-Version": "12"}, 426),
        ("GET /ws HTTP/1.1", {"Sec-WebSocket-Key": "short"}, 400),
        ("GET /ws HTTP/1.1", {"Sec-WebSocket-Key": "!" * 24}, 400),
        ("GET /ws HTTP/1.1", {"Content-Length": "5"}, 400),
    ],
)
async def test_handshake_that_is_none_is_refused(line: str, replaced: dict[str, str], status: int):
    async with edge_world() as world:
        events = await world.echo_tool()
        fields = dict(field.split(": ", 1) for field in (*WEBSOCKET, f"Origin: http://{world.host}")) | replaced
        response = await world.get(line, *(f"{name}: {value}" for name, value in fields.items()))
        assert response.status == status and not events


async def test_other_upgrades_do_not_pass():
    async with edge_world() as world:
        heads = await world.saying(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        fields = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")
        assert (await world.get("GET / HTTP/1.1", *fields)).status == 200
        assert b"pgrade" not in heads[0] and b"HTTP2" not in heads[0]


async def test_tool_with_a_wrong_handshake_is_not_believed():
    async with edge_world() as world:
        good = accepting(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n")
        for answer in (good.replace(b"s3pP", b"S3pP"), good.replace(b"Upgrade: websocket", b"Upgrade: h2c")):
            await world.saying(answer)
            assert (await world.websocket())[2].status == 502


@pytest.mark.parametrize(
    "fields", [{"user_id": USER}, {"sign_in": SIGN_IN}, {"session_id": STUDIO}, {"user_id": USER, "session_id": STUDIO}]
)
async def test_revocation_closes_open_websockets_at_once(fields: dict[str, object]):
    async with edge_world() as world:
        events = await world.echo_tool()
        reader, writer, _ = await world.websocket()
        writer.write(MESSAGE)
        assert await reader.readexactly(len(MESSAGE)) == MESSAGE
        world.control.generation = 2
        world.link.push(Revoke(generation=2, **fields))  # type: ignore[arg-type]
        assert await close_code(reader) == 1008
        await until(lambda: events == ["open", "eof"])


async def test_revocation_of_somebody_else_leaves_websockets_alone():
    async with edge_world() as world:
        await world.echo_tool()
        reader, writer, _ = await world.websocket()
        for other in (
            Revoke(generation=2, user_id=USER + 1),
            Revoke(generation=3, user_id=USER, session_id="deadbeef"),
        ):
            world.link.push(other)
        writer.write(MESSAGE)
        assert await reader.readexactly(len(MESSAGE)) == MESSAGE


async def test_lost_revocation_is_found_by_asking_again():
    clock = JumpingClock()
    async with edge_world(clock) as world:
        await world.echo_tool()
        reader, writer, _ = await world.websocket()
        await world.worker.edge.recheck()
        writer.write(MESSAGE)
        assert await reader.readexactly(len(MESSAGE)) == MESSAGE
        world.control.signed_in = False
        await world.worker.edge.recheck()
        assert await close_code(reader) == 1008


async def test_revocation_cuts_a_download():
    async with edge_world() as world:
        await world.saying(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nstart")
        reader, writer = await world.connect()
        writer.write(world.head())
        await reader.readuntil(b"start")
        world.link.push(Revoke(generation=2, user_id=USER))
        with pytest.raises(ConnectionResetError):
            await reader.read()


async def test_drain_closes_between_two_frames():
    async with edge_world() as world:
        await world.echo_tool()
        reader, writer, _ = await world.websocket()
        writer.write(MESSAGE)
        assert await reader.readexactly(len(MESSAGE)) == MESSAGE
        world.worker.leaving.set()
        assert await close_code(reader) == 1012


async def test_frame_that_is_half_sent_is_never_followed_by_a_close():
    async with edge_world() as world:
        await world.echo_tool()
        reader, writer, _ = await world.websocket()
        writer.write(MESSAGE[:-1])
        assert await reader.readexactly(len(MESSAGE) - 1) == MESSAGE[:-1]
        world.worker.leaving.set()
        with pytest.raises(ConnectionResetError):
            await reader.read()


async def test_lost_tool_is_told_as_1011():
    async with edge_world() as world:

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(accepting(await reader.readuntil(b"\r\n\r\n")) + MESSAGE)
            await reader.readexactly(1)

        await world.tool(handler)
        reader, writer, _ = await world.websocket()
        assert await reader.readexactly(len(MESSAGE)) == MESSAGE
        writer.write(b"x")
        assert await close_code(reader) == 1011


async def test_close_of_the_tool_is_not_followed_by_another():
    async with edge_world() as world:
        bye = b"\x88\x02\x03\xe8"

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(accepting(await reader.readuntil(b"\r\n\r\n")) + bye)

        await world.tool(handler)
        reader, _, _ = await world.websocket()
        assert await reader.read() == bye


async def test_both_directions_end_together():
    clock = JumpingClock()
    async with edge_world(clock) as world:
        gone = asyncio.Event()

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(accepting(await reader.readuntil(b"\r\n\r\n")))
            await reader.read()  # a tool that hears the end and stays
            try:
                while True:
                    writer.write(MESSAGE)
                    await writer.drain()
                    await asyncio.sleep(0.005)
            finally:
                gone.set()

        await world.tool(handler)
        reader, writer, _ = await world.websocket()
        writer.write_eof()
        assert await reader.readexactly(len(MESSAGE)) == MESSAGE
        await clock.jump(6)
        async with asyncio.timeout(5):
            await gone.wait()


async def test_open_websocket_counts_as_presence():
    clock = JumpingClock()
    async with edge_world(clock) as world:
        await world.echo_tool()
        _, writer, _ = await world.websocket()
        await clock.jump(100)
        await until(lambda: present(world) == [(USER,)])
        writer.close()
        await until(lambda: not world.worker.edge.connections)
        await clock.jump(31)
        await until(lambda: present(world) == [(USER,), ()])


async def test_stopped_studio_lets_its_websockets_go():
    async with edge_world() as world:
        await world.echo_tool()
        reader, _, _ = await world.websocket()
        world.route("stopping")
        assert await close_code(reader) in (1008, 1011)
