"""What Portico says on a studio's own host: the waiting, stopped and errored pages, and never a right."""

import json
import re
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from portico_gateway.auth.values import User
from portico_gateway.studios.values import Status
from portico_gateway.web.studio_pages import build_studio_pages
from support.plain_browser import Answer, Browser
from support.web_world import World

NAVIGATION = {"Sec-Fetch-Mode": "navigate"}
FETCH = {"Sec-Fetch-Mode": "cors"}


@pytest.fixture
async def edge_port(world: World) -> AsyncIterator[int]:
    """Control's side of the edge's socket: every request comes with the edge's headers."""
    handle, close = build_studio_pages(world.studios, world.auth, world.settings, world.clock)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await close()
    await runner.cleanup()


@pytest.fixture
def edge(edge_port: int, stranger: Browser) -> Browser:
    return Browser(stranger.session, edge_port)


def who(world: World, name: str, session_id: str, **more: str) -> dict[str, str]:
    user: User = next(u for u in world.users.values() if u.user_name == name)
    return {
        "X-Portico-Studio": session_id,
        "X-Portico-User": str(user.id),
        "X-Portico-Sign-In": f"s{user.id}",
        "Host": f"a{session_id}.studio.localhost:8000",
        **more,
    }


async def test_a_starting_studio_shows_its_steps(edge: Browser, world: World) -> None:
    answer = await edge.get("/lab/tree/a.ipynb?x=1", **who(world, "chi", "0badcafe"), **NAVIGATION)
    assert answer.status == 200
    assert "Starting protein-folding" in answer.text
    assert "Bringing back your files" in answer.text
    assert 'sse-connect="/_portico/events"' in answer.text
    assert "http://portico.localhost:8000/studios/0badcafe/open?next=/lab/tree/a.ipynb%3Fx%3D1" in answer.text
    assert "/_portico/state?next=/lab/tree/a.ipynb%3Fx%3D1" in answer.text


async def test_the_page_loads_again_when_the_tool_answers(edge: Browser, world: World) -> None:
    asked = who(world, "chi", "0badcafe")
    assert "Starting" in (await edge.get("/_portico/state", **asked, **FETCH)).text
    world.change("0badcafe", status=Status.RUNNING)
    assert (await edge.get("/_portico/state", **asked, **FETCH)).headers["HX-Refresh"] == "true"
    page = await edge.get("/lab", **asked, **NAVIGATION)
    assert "Opening protein-folding" in page.text  # the edge may hear of it a moment later


async def test_a_stopped_studio_says_when_why_and_offers_start_to_who_may(edge: Browser, world: World) -> None:
    may = await edge.get("/lab", **who(world, "ben", "ca11ab1e"), **NAVIGATION)
    assert "nobody was here and nothing was running since 14:02" in may.text
    assert "comes back exactly as it was" in may.text
    assert "http://portico.localhost:8000/studios/ca11ab1e/open?next=/lab" in may.text
    may_not = await edge.get("/lab", **who(world, "chi", "ca11ab1e"), **NAVIGATION)
    assert "Ask Chi Nguyen" in may_not.text
    assert "/studios/ca11ab1e/open" not in may_not.text


async def test_an_errored_studio_says_why_with_the_last_lines(edge: Browser, world: World) -> None:
    page = await edge.get("/", **who(world, "ben", "deadbeef"), **NAVIGATION)
    assert "before it answered: its port 8888 is taken" in page.text
    assert "OSError: [Errno 98]" in page.text
    assert "Retry in Portico" in page.text


async def test_a_background_request_is_told_in_json(edge: Browser, world: World) -> None:
    for headers in (FETCH, {"Accept": "*/*"}, {"Accept": "application/json"}):
        answer = await edge.get("/api/kernels", **who(world, "ben", "ca11ab1e"), **headers)
        assert answer.status == 424
        told = json.loads(answer.text)
        assert told.keys() == {"message", "status", "reason", "startUrl"}
        assert told["status"] == "stopped"
        assert told["startUrl"] == "http://portico.localhost:8000/studios/ca11ab1e/open"
    posted = await edge.send("POST", "/api/kernels", b"{}", {**who(world, "ben", "ca11ab1e"), **NAVIGATION})
    assert posted.status == 424


async def test_no_answer_on_a_studios_host_changes_anything(edge: Browser, world: World) -> None:
    """This origin is the studio's: whatever its code sends as the visitor, no right is used."""
    for path in ("/_portico/start", "/_portico/stop", "/_portico/state", "/studios/ca11ab1e/start", "/", "/sign-out"):
        for method in ("POST", "PUT", "DELETE"):
            await edge.send(method, path, b"", {**who(world, "ana", "ca11ab1e"), "Sec-Fetch-Site": "same-origin"})
    for mode in (NAVIGATION, FETCH):
        for path in ("/", "/_portico/state", "/_portico/start"):
            page = await edge.get(path, **who(world, "ana", "ca11ab1e"), **mode)
            assert "<form" not in page.text
    assert world.calls == []
    assert world.rows["ca11ab1e"].status is Status.STOPPED


async def test_strangers_and_outsiders_learn_nothing(edge: Browser, world: World) -> None:
    world.user("eve")
    asked = [
        who(world, "eve", "ca11ab1e"),
        who(world, "ana", "00000000"),
        {**who(world, "ana", "ca11ab1e"), "X-Portico-User": "0"},
        {**who(world, "ana", "ca11ab1e"), "X-Portico-User": "x"},
        {**who(world, "ana", "ca11ab1e"), "X-Portico-Sign-In": "s0"},
        {**who(world, "ana", "ca11ab1e"), "X-Portico-Studio": "../../x"},
    ]
    answers: list[Answer] = [await edge.get("/lab", **headers, **NAVIGATION) for headers in asked]
    assert {a.status for a in answers} == {404}
    assert all("figures" not in a.text for a in answers)
    for headers in asked:
        answer = await edge.get("/api", **headers, **FETCH)
        assert answer.status == 404
        assert json.loads(answer.text).keys() == {"message"}
        assert (await edge.get("/_portico/events", **headers, **FETCH)).status == 404


async def test_pages_there_are_hardened_and_bring_their_own_files(edge: Browser, world: World) -> None:
    asked = who(world, "chi", "0badcafe")
    page = await edge.get("/lab", **asked, **NAVIGATION)
    assert page.headers["Content-Security-Policy"].endswith("form-action 'self'")
    assert page.headers["Cache-Control"] == "no-store"
    urls = re.findall(r'(?:href|src)="(/_portico/static/[^"]+)"', page.text)
    assert len(urls) == 6
    for url in urls:
        assert (await edge.get(url, **asked)).status == 200
    assert (await edge.get("/_portico/static/nothing", **asked)).status == 404
    assert (await edge.get("/_portico/nothing", **asked, **NAVIGATION)).status == 404
    for text in (page.text,):
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=", text)


async def test_changes_are_told_there_too(edge: Browser, world: World) -> None:
    headers = {**who(world, "chi", "0badcafe"), "Accept": "text/event-stream"}
    async with edge.session.get(f"http://127.0.0.1:{edge.port}/_portico/events", headers=headers) as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        lines = [await response.content.readline() for _ in range(5)]
        assert b"data: hello\n" in lines
        world.change("0badcafe", "progress")
        assert await response.content.readline() == b"event: changed\n"
        assert await response.content.readline() == b"data: progress\n"


async def test_the_document_a_visitor_wants_stays_a_path(edge: Browser, world: World) -> None:
    page = await edge.get("//evil.example/x", **who(world, "ben", "ca11ab1e"), **NAVIGATION)
    assert "evil.example" not in page.text
    state = await edge.get("/_portico/state?next=//evil.example", **who(world, "ben", "ca11ab1e"), **FETCH)
    assert "evil.example" not in state.text
