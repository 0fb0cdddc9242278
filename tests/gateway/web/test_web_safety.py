"""What every answer carries and every form must prove, tried on every address the pages have."""

import re
from collections.abc import Iterator

import pytest
from aiohttp import web

from portico_gateway.studios.values import Status
from portico_gateway.web.app import build_web
from support.plain_browser import Browser
from support.web_world import World, serve

PAYLOAD = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{7*7}}"


def addresses(world: World, method: str) -> Iterator[str]:
    """Every address of the pages, filled in with the running studio and the lab."""
    app = build_web(world.studios, world.auth, world.people, world.settings, world.clock)
    values = {
        "workspace_id": str(min(world.workspaces)),
        "session_id": "3fa1b2c4",
        "secret": "x",
        "name": "portico.css",
        "user_id": "1",
        "token_id": "1",
        "sign_in_id": "1",
        "checkpoint_id": "1",
    }
    for route in app.router.routes():
        if route.method == method and route.resource is not None:
            info = route.resource.get_info()
            yield info.get("path") or str(route.resource.url_for(**_needed(info, values)))


def _needed(info: web.UrlDispatcher | object, values: dict[str, str]) -> dict[str, str]:
    names = re.findall(r"\{(\w+)", info["formatter"])  # type: ignore[index]
    return {name: values[name] for name in names}


async def test_every_form_refuses_what_another_site_sends(ana: Browser, stranger: Browser, world: World) -> None:
    tried = list(addresses(world, "POST"))
    assert len(tried) > 15
    good = (await ana.get("/account")).forms["/account/tokens"]
    foreign: list[dict[str, str]] = [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://portico.localhost:8000"},
        {"Sec-Fetch-Site": "", "Origin": "http://a3fa1b2c4.studio.localhost:8000"},
    ]
    bare: list[dict[str, str]] = [
        {},
        {"Origin": "null"},
        {"Origin": "http://a3fa1b2c4.studio.localhost:8000"},
        {"Origin": "http://portico.localhost"},
        {"Origin": "https://portico.localhost:8000"},
        {"Origin": "http://portico.localhost:8000.evil.example"},
    ]
    for path in tried:
        for headers in foreign + bare:
            answer = await ana.send("POST", path, good, headers)
            assert answer.status == 403, (path, headers, answer.status)
            assert "Set-Cookie" not in answer.headers
    assert world.calls == []
    assert world.rows["3fa1b2c4"].status is Status.RUNNING


async def test_a_form_from_our_own_page_is_taken_by_its_origin_where_the_browser_says_no_more(ana: Browser) -> None:
    form = (await ana.get("/studios/3fa1b2c4")).forms["/studios/3fa1b2c4/extend"]
    answer = await ana.send("POST", "/studios/3fa1b2c4/extend", form, {"Origin": "http://portico.localhost:8000"})
    assert answer.status == 303


async def test_every_form_of_somebody_signed_in_needs_its_token(ana: Browser, chi: Browser, world: World) -> None:
    others = (await chi.get("/account")).forms["/account/tokens"]["token"]
    free = {"/sign-in", "/link/x"}
    for path in addresses(world, "POST"):
        if path in free:
            continue
        for token in ({}, {"token": ""}, {"token": "wrong"}, {"token": others}, {"token": "\u00e9"}):
            answer = await ana.post(path, token)
            assert answer.status == 403, (path, token, answer.status)
    assert world.calls == []
    assert ana.cookie in world.cookies


async def test_json_and_other_bodies_are_refused(ana: Browser) -> None:
    for kind in ("application/json", "text/plain", "multipart/form-data; boundary=x"):
        answer = await ana.send(
            "POST", "/studios/3fa1b2c4/stop", b"{}", {"Sec-Fetch-Site": "same-origin", "Content-Type": kind}
        )
        assert answer.status == 400


async def test_a_form_over_its_limit_is_refused(ana: Browser) -> None:
    answer = await ana.post("/account/tokens", {"name": "x" * 100_000})
    assert answer.status == 413
    many = {f"f{i}": "1" for i in range(200)}
    assert (await ana.post("/account/tokens", many)).status == 400


async def test_reading_changes_nothing(ana: Browser, world: World) -> None:
    before = dict(world.rows)
    live = ("/events", "/logs/events")
    for path in addresses(world, "GET"):
        if not path.endswith(live):
            assert (await ana.get(path)).status < 500, path
    assert world.rows == before
    assert world.calls == []


@pytest.mark.parametrize("path", ["/sign-in", "/", "/nothing", "/static/portico.css", "/studios/3fa1b2c4", "/link/x"])
async def test_every_answer_is_hardened(ana: Browser, path: str) -> None:
    headers = (await ana.get(path)).headers
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'self'; ")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert "form-action 'self' http://*.studio.localhost:8000" in policy
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    if not path.startswith("/static/"):
        assert headers["Cache-Control"] == "no-store"


async def test_nothing_stands_inline(ana: Browser, world: World) -> None:
    """The policy forbids it; a page that relied on it would be broken."""
    for path in addresses(world, "GET"):
        if path.endswith("/events") or path.startswith("/static"):
            continue
        text = (await ana.get(path)).text
        assert not re.search(r"<script(?![^>]*\bsrc=)", text), path
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", text), path


async def test_what_people_type_is_shown_as_text(ana: Browser, world: World, lab: int) -> None:
    user = next(iter(world.users.values()))
    world.users[user.id] = type(user)(user.id, user.user_name, user.email, PAYLOAD, True)
    row = world.add(
        world.workspaces[lab],
        world.users[user.id],
        PAYLOAD[:80],
        Status.ERRORED,
        description=PAYLOAD,
        status_message=PAYLOAD,
    )
    world.checkpoint(row.session_id, PAYLOAD, 100, author=world.users[user.id])
    world.write_log(row.session_id, PAYLOAD + "\n")
    pages = ["", "/checkpoints", "/logs", "/settings", "/open", "/copy", "/logs/drawer"]
    paths = [f"/studios/{row.session_id}{page}" for page in pages]
    paths += [f"/w/{lab}", f"/w/{lab}/members", "/account", f"/w/{lab}?search={PAYLOAD.replace('#', '')}"]
    for path in paths:
        text = (
            await ana.get(path.replace(" ", "%20").replace("<", "%3C").replace(">", "%3E").replace('"', "%22"))
        ).text
        assert "<script>alert" not in text, path
        assert "<img src=x" not in text, path
        assert "alert(1)" in text, path
        assert "49" not in re.findall(r"onerror=alert\(2\)&gt;(\S\S)", text), path


async def test_a_cookie_that_comes_twice_counts_as_none(ana: Browser) -> None:
    name = "__Host-portico-session"
    tossed = [
        f"{name}={ana.cookie}; {name}=evil",
        f"{name}=evil; {name}={ana.cookie}",
        f"{name}={ana.cookie}; {name}={ana.cookie}",
        f"{name}=",
        f"{name}={'x' * 2000}",
    ]
    for cookie in tossed:
        assert (await ana.get("/account", Cookie=cookie)).status == 303
    assert (await ana.get("/account", Cookie=f"a=b; {name}={ana.cookie}; c=d")).status == 200


async def test_unknown_addresses_and_methods_have_a_page(ana: Browser, stranger: Browser) -> None:
    answer = await ana.get("/nothing/here")
    assert (answer.status, "There is no page at this address." in answer.text) == (404, True)
    assert (await stranger.get("/nothing/here")).status == 404
    wrong = await ana.post("/account")
    assert wrong.status == 405
    assert "GET" in wrong.headers["Allow"]
    for odd in ("/studios/zzzzzzzz", "/studios/3FA1B2C4", "/w/999999999999999999999", "/w/0/members"):
        assert (await ana.get(odd)).status == 404


async def test_a_fault_of_ours_has_a_page_without_its_words(
    world: World, stranger: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("database password is hunter2")

    world.studios.describe = broken  # type: ignore[method-assign,assignment]
    cookie = world.cookie_of(next(iter(world.users.values())))
    answer = await Browser(stranger.session, stranger.port, cookie).get("/studios/3fa1b2c4")
    assert answer.status == 500
    assert "hunter2" not in answer.text
    assert "Your studios go on" in answer.text
    assert "hunter2" in caplog.text


async def test_what_is_mounted_beside_the_pages_answers_for_itself(world: World, stranger: Browser) -> None:
    app = build_web(world.studios, world.auth, world.people, world.settings, world.clock)
    api = web.Application()

    async def echo(request: web.Request) -> web.Response:
        return web.json_response(await request.json())

    api.router.add_post("/echo", echo)
    app.add_subapp("/api", api)
    async with serve(world, app=app) as port:
        browser = Browser(stranger.session, port)
        answer = await browser.send("POST", "/api/echo", b'{"a":1}', {"Content-Type": "application/json"})
        assert (answer.status, answer.text) == (200, '{"a": 1}')
        missing = await browser.get("/api/nothing")
        assert missing.status == 404
        assert "<html" not in missing.text
        assert "Content-Security-Policy" not in missing.headers


async def test_static_files_may_be_kept_by_their_version(stranger: Browser) -> None:
    page = await stranger.get("/sign-in")
    urls = re.findall(r'(?:href|src)="(/static/[^"]+)"', page.text)
    assert len(urls) == 6
    for url in urls:
        answer = await stranger.get(url)
        assert answer.status == 200
        assert "immutable" in answer.headers["Cache-Control"]
        again = await stranger.get(url, **{"If-None-Match": answer.headers["ETag"]})
        assert again.status == 304
        old = await stranger.get(url.partition("?")[0] + "?v=0")
        assert old.headers["Cache-Control"] == "no-cache"
    for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static/vendor", "/static/vendor/README", "/static/x"):
        assert (await stranger.get(path)).status == 404
