"""Signing in, signing out, one-use links, the way to a studio's host."""

import pytest

from portico_gateway.link.messages import SESSION_COOKIE
from portico_gateway.web.doors import Link
from support.plain_browser import Browser
from support.web_world import PASSWORD, World

NONCE = "ab" * 32


async def test_a_stranger_sees_the_sign_in_page_and_nothing_else(stranger: Browser, lab: int) -> None:
    for path in ("/", f"/w/{lab}", "/studios/3fa1b2c4", "/studios/00000000/open", "/account", "/w/99999/members"):
        answer = await stranger.get(path)
        assert answer.status == 303
        assert answer.location.startswith("/sign-in")
    page = await stranger.get("/sign-in?next=/studios/3fa1b2c4/open")
    assert page.status == 200
    assert "rna-seq-qc" not in page.text  # the address it came with, not what the studio is called
    assert "a3fa1b2c4.studio.localhost:8000" in page.text


async def test_signing_in_leads_to_the_very_place(stranger: Browser) -> None:
    asked = await stranger.get("/studios/3fa1b2c4/logs?stream=tool")
    page = await stranger.get(asked.location)
    form = page.forms["/sign-in"]
    answer = await stranger.post("/sign-in", {**form, "login": "ana", "password": PASSWORD})
    assert answer.status == 303
    assert answer.location == "/studios/3fa1b2c4/logs?stream=tool"
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith(SESSION_COOKIE + "=")
    for part in ("HttpOnly", "Secure", "SameSite=Lax", "Path=/"):
        assert part in cookie
    assert "Domain" not in cookie


@pytest.mark.parametrize("wanted", ["//evil.example", "https://evil.example/", "/\\evil.example", "/.//evil.example"])
async def test_signing_in_never_leads_elsewhere(stranger: Browser, ana: Browser, wanted: str) -> None:
    answer = await stranger.post("/sign-in", {"login": "ana", "password": PASSWORD, "next": wanted})
    assert (answer.status, answer.location) == (303, "/")
    already = await ana.send("GET", "/sign-in", None, {"Referer": "x"})
    assert already.location == "/"


@pytest.mark.parametrize(("login", "password"), [("ana", "wrong"), ("nobody", PASSWORD), ("", ""), ("ana", "x" * 5000)])
async def test_a_wrong_password_is_told_in_one_sentence(stranger: Browser, login: str, password: str) -> None:
    answer = await stranger.post("/sign-in", {"login": login, "password": password, "next": "/account"})
    assert answer.status == 401
    assert "do not match an account" in answer.text
    assert "Set-Cookie" not in answer.headers
    assert answer.forms["/sign-in"]["next"] == "/account"
    assert password == "" or password not in answer.text


async def test_signing_out_ends_the_sign_in(ana: Browser, world: World) -> None:
    answer = await ana.submit("/account", "/sign-out")
    assert answer.status == 303
    assert "Max-Age=0" in answer.headers["Set-Cookie"]
    assert ana.cookie not in world.cookies
    assert (await ana.get("/account")).status == 303


async def test_a_one_use_link_sets_a_password_and_signs_in(stranger: Browser, world: World) -> None:
    eve = world.user("eve")
    world.links["s3cret"] = Link(eve, "invitation", world.clock.now() + 60)
    page = await stranger.get("/link/s3cret")
    assert page.status == 200
    assert "s3cret" in world.links  # looking uses nothing up: mail scanners look
    for password, again in (("short", "short"), ("long enough one", "another one here")):
        refused = await stranger.post("/link/s3cret", {"password": password, "again": again})
        assert refused.status == 400
    good = {"password": "long enough one", "again": "long enough one", "display_name": "Eve"}
    answer = await stranger.post("/link/s3cret", good)
    assert (answer.status, answer.location) == (303, "/")
    assert SESSION_COOKIE in answer.headers["Set-Cookie"]
    assert (await stranger.get("/link/s3cret")).status == 404
    assert (await stranger.post("/link/s3cret", good)).status == 404


async def test_a_visitor_of_a_studio_goes_back_with_a_code(ana: Browser, world: World) -> None:
    answer = await ana.get(f"/handover?studio=3fa1b2c4&next=%2Flab%2Ftree%3Fx%3D1&nonce={NONCE}")
    code, user, studio, nonce, location = world.codes[0]
    assert answer.status == 303
    assert answer.location == f"http://a3fa1b2c4.studio.localhost:8000/_portico/handover?code={code}"
    assert (studio, nonce, location) == ("3fa1b2c4", bytes.fromhex(NONCE), "/lab/tree?x=1")
    assert world.users[user].user_name == "ana"


async def test_a_visitor_signs_in_first_and_then_goes_back(stranger: Browser) -> None:
    path = f"/handover?studio=3fa1b2c4&next=%2Flab&nonce={NONCE}"
    asked = await stranger.get(path)
    form = (await stranger.get(asked.location)).forms["/sign-in"]
    answer = await stranger.post("/sign-in", {**form, "login": "chi", "password": PASSWORD})
    assert answer.location == path


@pytest.mark.parametrize(
    ("query", "status"),
    [
        (f"studio=00000000&next=/&nonce={NONCE}", 404),
        (f"studio=3fa1b2c4.evil.example&next=/&nonce={NONCE}", 404),
        (f"studio=3FA1B2C4&next=/&nonce={NONCE}", 404),
        (f"next=/&nonce={NONCE}", 404),
        ("studio=3fa1b2c4&next=/&nonce=xyz", 400),
        ("studio=3fa1b2c4&next=/", 400),
    ],
)
async def test_a_handover_that_is_off_makes_no_code(ana: Browser, world: World, query: str, status: int) -> None:
    answer = await ana.get(f"/handover?{query}")
    assert answer.status == status
    assert not world.codes


async def test_a_handover_keeps_paths_alone(ana: Browser, world: World) -> None:
    await ana.get(f"/handover?studio=3fa1b2c4&next=https%3A%2F%2Fevil.example%2F&nonce={NONCE}")
    assert world.codes[0][4] == "/"


async def test_who_may_see_but_not_open_is_told_whom_to_ask(dora: Browser, world: World) -> None:
    answer = await dora.get(f"/handover?studio=3fa1b2c4&next=/&nonce={NONCE}")
    assert answer.status == 403
    assert "Ask Ana Ruiz" in answer.text
    assert not world.codes


async def test_others_learn_nothing_of_a_studio(stranger: Browser, world: World) -> None:
    eve = world.user("eve")
    outsider = Browser(stranger.session, stranger.port, world.cookie_of(eve))
    there = await outsider.get(f"/handover?studio=3fa1b2c4&next=/&nonce={NONCE}")
    nowhere = await outsider.get(f"/handover?studio=00000000&next=/&nonce={NONCE}")
    assert there.status == nowhere.status == 404
    assert there.text == nowhere.text
    for path in ("", "/checkpoints", "/logs", "/settings", "/open", "/copy", "/events", "/logs/events"):
        assert (await outsider.get(f"/studios/3fa1b2c4{path}")).status == 404
