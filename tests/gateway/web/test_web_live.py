"""Server-sent events: told at once, resumed where they were, ended with the sign-in."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import pytest

from portico_gateway.studios.values import Status
from portico_gateway.web import live
from portico_gateway.web.live import Changes, Streams
from portico_shared.clock import JumpingClock
from support.plain_browser import Browser
from support.web_world import World, sample_world, serve


@dataclass
class Source:
    """The reading end of an event stream."""

    response: aiohttp.ClientResponse

    async def next(self) -> tuple[str, str, str]:
        """The next event: (name, data, id); ('', '', '') when the stream has ended."""
        name, data, last = "", [], ""
        while line := (await self.response.content.readline()).decode():
            field, _, value = line.rstrip("\n").partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                data.append(value)
            elif field == "id":
                last = value
            elif line == "\n" and name:
                return name, "\n".join(data), last
        return "", "", ""


@asynccontextmanager
async def listening(browser: Browser, path: str, **headers: str) -> AsyncIterator[Source]:
    sent = {
        "Host": "portico.localhost:8000",
        "Accept": "text/event-stream",
        "Cookie": f"__Host-portico-session={browser.cookie}",
        **headers,
    }
    async with browser.session.get(f"http://127.0.0.1:{browser.port}{path}", headers=sent) as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert "default-src 'self'" in response.headers["Content-Security-Policy"]
        yield Source(response)


async def test_a_change_is_told_to_the_list_and_to_its_studio_alone(ana: Browser, world: World, lab: int) -> None:
    async with (
        listening(ana, f"/w/{lab}/events") as of_list,
        listening(ana, "/studios/0badcafe/events") as of_studio,
    ):
        assert await of_list.next() == ("changed", "hello", "")
        assert await of_studio.next() == ("changed", "hello", "")
        world.change("3fa1b2c4", "presence")
        assert await of_list.next() == ("changed", "presence", "")
        world.change("0badcafe", status=Status.RUNNING)
        assert await of_studio.next() == ("changed", "status", "")
        assert await of_list.next() == ("changed", "status", "")


async def test_a_stream_tells_nothing_but_kinds(ana: Browser, world: World, lab: int) -> None:
    async with listening(ana, f"/w/{lab}/events") as source:
        await source.next()
        world.change("3fa1b2c4", "status", name="secret-name")
        world.change("3fa1b2c4", "progress")
        told: set[str] = set()
        while told != {"status", "progress"}:
            told.update((await source.next())[1].split())


async def test_another_workspace_hears_nothing(ana: Browser, world: World) -> None:
    other = max(world.workspaces)
    row = world.add(world.workspaces[other], next(iter(world.users.values())), "lesson", Status.STOPPED)
    async with listening(ana, f"/w/{other}/events") as source:
        await source.next()
        world.change("3fa1b2c4", "status")
        world.change(row.session_id, "checkpoint")
        assert (await source.next())[1] == "checkpoint"


async def test_the_log_is_followed_and_resumed(ana: Browser, world: World) -> None:
    world.log["3fa1b2c4"] = "one\n"
    async with listening(ana, "/studios/3fa1b2c4/logs/events?offset=4") as source:
        world.write_log("3fa1b2c4", "two <b>\r50%\r\n")
        name, data, last = await source.next()
        assert (name, data) == ("log", "two &lt;b&gt;\n50%\n")
    world.write_log("3fa1b2c4", "three\n")
    async with listening(ana, "/studios/3fa1b2c4/logs/events?offset=4", **{"Last-Event-ID": last}) as source:
        assert (await source.next())[1] == "three\n"


async def test_a_new_run_begins_its_log_anew(ana: Browser, world: World) -> None:
    world.log["3fa1b2c4"] = "x" * 1000
    async with listening(ana, "/studios/3fa1b2c4/logs/events?offset=1000") as source:
        world.log["3fa1b2c4"] = ""
        world.write_log("3fa1b2c4", "fresh\n")
        assert (await source.next())[1] == "fresh\n"


async def test_streams_end_when_the_gateway_stops() -> None:
    world = sample_world()
    cookie = world.cookie_of(next(iter(world.users.values())))
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        async with serve(world) as port:
            browser = Browser(session, port, cookie)
            context = listening(browser, f"/w/{min(world.workspaces)}/events")
            source = await context.__aenter__()
            await source.next()
        assert await source.next() == ("", "", "")
        await context.__aexit__(None, None, None)
    assert world.watchers == []


async def test_a_stream_ends_with_the_sign_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "HEARTBEAT", 0.01)
    world = sample_world(clock=JumpingClock())
    cookie = world.cookie_of(next(iter(world.users.values())))
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session, serve(world) as port:
        async with listening(Browser(session, port, cookie), f"/w/{min(world.workspaces)}/events") as source:
            await source.next()
            world.cookies.clear()
            assert await source.next() == ("", "", "")


async def test_a_stream_ends_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = JumpingClock()
    world = sample_world(clock=clock)
    cookie = world.cookie_of(next(iter(world.users.values())))
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session, serve(world) as port:
        async with listening(Browser(session, port, cookie), f"/w/{min(world.workspaces)}/events") as source:
            await source.next()
            await clock.jump(live.STREAM_SECONDS)
            world.change("3fa1b2c4", "status")
            assert (await source.next())[1] == "status"
            assert await source.next() == ("", "", "")


async def test_a_reader_without_a_sign_in_is_told_to_stop_trying(stranger: Browser, lab: int) -> None:
    answer = await stranger.get(f"/w/{lab}/events", Accept="text/event-stream")
    assert answer.status == 204
    fragment = await stranger.get(f"/w/{lab}/rows", **{"HX-Request": "true"})
    assert (fragment.status, fragment.headers["HX-Refresh"]) == (401, "true")


async def test_more_streams_than_the_limit_are_refused(ana: Browser, lab: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MAX_STREAMS", 1)
    async with listening(ana, f"/w/{lab}/events") as source:
        await source.next()
        answer = await ana.get(f"/w/{lab}/events")
        assert answer.status == 503


async def test_changes_that_come_together_are_told_once() -> None:
    changes = Changes()
    for _ in range(1000):
        changes.note("status")
    changes.note("log")
    assert await changes.take(1) == {"status", "log"}
    assert await changes.take(0) == frozenset()
    changes.end()
    assert await changes.take(1) == frozenset()
    assert changes.ended


async def test_a_failing_watch_is_not_hidden() -> None:
    async def broken() -> AsyncIterator[object]:
        raise RuntimeError("bus broken")
        yield

    class Nothing:
        async def write(self, data: bytes) -> None: ...

    async def body(stream: live.Stream, changes: Changes) -> None:
        while not changes.ended:
            await changes.take(5)

    stream = live.Stream(Nothing(), asyncio.Event())  # type: ignore[arg-type]
    with pytest.raises(ExceptionGroup):
        await live.follow(broken(), stream, body)  # type: ignore[arg-type]
    await Streams().close()
