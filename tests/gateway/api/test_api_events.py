"""The stream of changes: told at once, ended with the reader, the right to read, or the gateway."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest

from portico_gateway.api import event_stream
from portico_gateway.auth.values import Role
from support.api_world import Api, ApiWorld
from support.studio_world import VIEWER, WORKSPACE

PATH = f"/workspaces/{WORKSPACE}/events"


@asynccontextmanager
async def listening(world: ApiWorld, api: Api, watchers: int = 1) -> AsyncIterator[aiohttp.ClientResponse]:
    async with api.open("GET", PATH) as response:
        assert (response.status, response.content_type) == (200, "text/event-stream")
        await settled(world, lambda: world.rooms.hub.watchers == watchers)
        yield response


async def settled(world: ApiWorld, done: Callable[[], bool]) -> None:
    """Until it is so; every wait gives the store, the sockets and the clock a turn."""
    for _ in range(500):
        if done():
            return
        await world.rooms.passes(event_stream.CHECK / 10, step=event_stream.CHECK / 10)
    raise AssertionError("it never came")


async def event(response: aiohttp.ClientResponse) -> dict[str, str] | None:
    """The next one; None = the stream has ended."""
    async with asyncio.timeout(20):
        while line := await response.content.readline():
            if line.startswith(b"data: "):
                return dict(json.loads(line[6:]))
    return None


async def test_a_change_is_told_at_once(world: ApiWorld) -> None:
    async with listening(world, world.api("vera")) as response:
        studio = await world.rooms.add()
        assert await event(response) == {"sessionId": studio.session_id, "kind": "added"}
        assert (await world.api("mia").put(f"/studios/{studio.session_id}", {"description": "x"})).status == 200
        assert await event(response) == {"sessionId": studio.session_id, "kind": "status"}


async def test_a_reader_who_leaves_is_forgotten(world: ApiWorld) -> None:
    async with listening(world, world.api("vera"), 1), listening(world, world.api("leo"), 2):
        pass
    await settled(world, lambda: world.rooms.hub.watchers == 0)


async def test_a_reader_who_leaves_while_events_come_is_forgotten(world: ApiWorld) -> None:
    async with listening(world, world.api("vera")) as response:
        response.close()
    for number in range(20):
        await world.rooms.add(f"studio {number}")
    await settled(world, lambda: world.rooms.hub.watchers == 0)


async def test_the_stream_shows_signs_of_life(world: ApiWorld) -> None:
    async with listening(world, world.api("vera")) as response:
        for _ in range(3):
            async with asyncio.timeout(20):
                assert await response.content.readline() == b":\n"
                assert await response.content.readline() == b"\n"
            await world.rooms.passes(event_stream.CHECK)


async def test_it_ends_when_the_token_is_deleted(world: ApiWorld) -> None:
    vera = world.api("vera")
    async with listening(world, vera) as response:
        number = (await vera.get("/tokens")).value["tokens"][0]["id"]
        assert (await vera.delete(f"/tokens/{number}")).status == 204
        await settled(world, lambda: world.rooms.hub.watchers == 0)
        assert await event(response) is None


async def test_it_ends_when_the_sign_in_does(world: ApiWorld) -> None:
    cookie = await world.sign_in(VIEWER)
    async with listening(world, world.with_cookie(cookie)) as response:
        await world.auth.sign_out(cookie)
        await settled(world, lambda: world.rooms.hub.watchers == 0)
        assert await event(response) is None


async def test_it_ends_when_the_reader_is_no_member_any_more(world: ApiWorld) -> None:
    async with listening(world, world.api("vera")) as response:
        assert (await world.api("olga").delete(f"/workspaces/{WORKSPACE}/members/{VIEWER.user.id}")).status == 204
        await settled(world, lambda: world.rooms.hub.watchers == 0)
        assert await event(response) is None
    await world.join(VIEWER, Role.VIEW)
    async with listening(world, world.api("vera")):
        pass


async def test_who_may_not_read_is_refused_before_the_first_byte(world: ApiWorld) -> None:
    refused = await world.api("stan").get(PATH)
    assert (refused.status, refused.headers["Content-Type"]) == (404, "application/json")
    assert refused.message
    assert world.rooms.hub.watchers == 0


async def test_there_are_only_so_many_streams(world: ApiWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "MAX_STREAMS", 1)
    async with listening(world, world.api("vera")):
        assert "too many" in (await world.api("leo").get(PATH)).message
    await settled(world, lambda: world.rooms.hub.watchers == 0)
    async with listening(world, world.api("leo")):
        pass


async def test_streams_end_when_the_gateway_stops(world: ApiWorld) -> None:
    async with listening(world, world.api("vera")) as response:
        async with asyncio.timeout(10):
            await world.server.close()
        assert await event(response) is None
    assert world.rooms.hub.watchers == 0
