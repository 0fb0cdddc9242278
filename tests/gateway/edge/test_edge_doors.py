"""Who gets in at a studio's host, and what everybody else is told."""

import hashlib
import json
from urllib.parse import parse_qs, urlsplit

from portico_gateway.auth.studio_cookies import StudioCookies
from portico_gateway.link.messages import NONCE_COOKIE, STUDIO_COOKIE, CheckToken, Renew
from portico_shared.clock import JumpingClock
from support.edge_world import OTHER, PAT, EdgeWorld, edge_world
from support.roads import STUDIO

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
NAVIGATE = ("Sec-Fetch-Mode: navigate", "Accept: text/html")


def aged(world: EdgeWorld, seconds: float, session_id: str = STUDIO) -> str:
    """A cookie of control's, made so many seconds ago."""
    past = JumpingClock(world.worker.clock.now() - seconds)
    value, _ = StudioCookies(world.control.key, past).mint(
        session_id=session_id, user_id=7, user_name="ann", sign_in="s1", generation=1
    )
    return f"Cookie: {STUDIO_COOKIE}={value}"


async def test_stranger_who_navigates_is_sent_to_sign_in():
    async with edge_world() as world:
        response = await world.get("GET /lab?a=1&b=%2F HTTP/1.1", *NAVIGATE, cookie=False)
        assert response.status == 302
        location = urlsplit(response.get("location") or "")
        assert f"{location.scheme}://{location.netloc}{location.path}" == f"{world.settings.base_url}/handover"
        query = parse_qs(location.query, strict_parsing=True)
        nonce, _, attributes = (response.get("set-cookie") or "").removeprefix(f"{NONCE_COOKIE}=").partition("; ")
        assert query == {
            "studio": [STUDIO],
            "next": ["/lab?a=1&b=%2F"],
            "nonce": [hashlib.sha256(nonce.encode()).hexdigest()],
        }
        assert attributes == "Path=/; Max-Age=600; Secure; HttpOnly; SameSite=Lax"


async def test_stranger_who_fetches_is_told_in_json():
    async with edge_world() as world:
        for fields in ((), ("Sec-Fetch-Mode: cors", "Accept: text/html")):
            response = await world.get("GET /api HTTP/1.1", *fields, cookie=False)
            assert response.status == 401 and "message" in json.loads(response.body)
        _, _, response = await world.websocket(cookie=False)
        assert response.status == 401


async def test_code_from_the_management_host_becomes_a_cookie():
    async with edge_world() as world:
        heads = await world.saying(OK)
        world.control.codes["c0de"] = ("the-nonce", "/lab?x=1")
        line, nonce = "GET /_portico/handover?code=c0de HTTP/1.1", f"Cookie: {NONCE_COOKIE}=the-nonce"
        response = await world.get(line, nonce, cookie=False)
        assert (response.status, response.get("location")) == (303, "/lab?x=1")
        cookie, gone = response.all("set-cookie")
        assert cookie.startswith(f"{STUDIO_COOKIE}=") and cookie.endswith("Secure; HttpOnly; SameSite=Lax")
        assert gone.startswith(f"{NONCE_COOKIE}=;") and "Max-Age=0" in gone
        assert response.get("cache-control") == "no-store" and response.get("referrer-policy") == "no-referrer"
        welcome = await world.get("GET / HTTP/1.1", f"Cookie: {cookie.partition(';')[0]}; mine=1", cookie=False)
        assert welcome.status == 200 and b"Cookie: mine=1\r\n" in heads[0] and b"portico-studio" not in heads[0]
        assert (await world.get(line, nonce, cookie=False)).status == 401


async def test_code_in_another_browser_is_worth_nothing():
    async with edge_world() as world:
        for nonce in ("Cookie: a=b", f"Cookie: {NONCE_COOKIE}=other"):
            world.control.codes["c0de"] = ("the-nonce", "/")
            response = await world.get("GET /_portico/handover?code=c0de HTTP/1.1", nonce, cookie=False)
            assert response.status == 401 and response.get("set-cookie") is None


async def test_handover_leads_to_a_path_of_the_studio_only():
    async with edge_world() as world:
        for number, place in enumerate(
            ("//evil.test/", "https://evil.test/", "\\\\evil.test", "/\\evil.test", "/a\r\nX: y")
        ):
            world.control.codes[f"c{number}"] = ("n", place)
            line = f"GET /_portico/handover?code=c{number} HTTP/1.1"
            response = await world.get(line, f"Cookie: {NONCE_COOKIE}=n", cookie=False)
            location = response.get("location") or ""
            assert location.startswith("/") and location[1:2] not in ("/", "\\") and response.get("x") is None


async def test_handover_without_a_code_is_refused():
    async with edge_world() as world:
        for target in ("/_portico/handover", "/_portico/handover?code=", "/_portico/handover?" + "&".join("a" * 50)):
            assert (await world.get(f"GET {target} HTTP/1.1", cookie=False)).status == 400


async def test_two_cookies_of_our_name_count_as_none():
    async with edge_world() as world:
        await world.saying(OK)
        good = f"{STUDIO_COOKIE}={world.control.cookie()}"
        for fields in ((f"Cookie: {good}; {STUDIO_COOKIE}=evil",), (f"Cookie: {good}", f"Cookie: {good}")):
            assert (await world.get("GET / HTTP/1.1", *fields, cookie=False)).status == 401
        assert (await world.get("GET / HTTP/1.1", f"Cookie: {good}", cookie=False)).status == 200


async def test_token_opens_the_studio_and_goes_no_further():
    async with edge_world() as world:
        heads = await world.saying(OK)
        for _ in range(3):
            response = await world.get("GET / HTTP/1.1", f"Authorization: Bearer {PAT}", cookie=False)
            assert response.status == 200
        assert sum(isinstance(question, CheckToken) for question in world.control.asked) == 1
        assert not [head for head in heads if b"uthorization" in head or PAT.encode() in head]
        assert (await world.get("GET / HTTP/1.1", "Authorization: Bearer wrong", cookie=False)).status == 401


async def test_studio_one_may_not_see_and_studio_that_is_not_look_the_same():
    async with edge_world() as world:
        host = f"a{OTHER}.studio.localhost:{world.port}"
        bodies = set()
        for session_id in (OTHER, "deadbeef"):
            host = f"a{session_id}.studio.localhost:{world.port}"
            response = await world.get("GET / HTTP/1.1", f"Authorization: Bearer {PAT}", host=host)
            assert response.status == 404
            bodies.add(response.body)
        assert len(bodies) == 1


async def test_cookie_in_its_second_half_is_renewed_on_the_way():
    async with edge_world() as world:
        await world.saying(OK)
        assert (await world.get("GET / HTTP/1.1", aged(world, 100), cookie=False)).get("set-cookie") is None
        for seconds in (400, 3600):
            response = await world.get("GET / HTTP/1.1", aged(world, seconds), cookie=False)
            assert response.status == 200 and (response.get("set-cookie") or "").startswith(f"{STUDIO_COOKIE}=")


async def test_signed_out_visitor_is_refused_at_the_renewal():
    async with edge_world() as world:
        await world.saying(OK)
        world.control.signed_in = False
        assert (await world.get("GET / HTTP/1.1", aged(world, 400), cookie=False)).status == 401
        assert (await world.get("GET / HTTP/1.1", *NAVIGATE, aged(world, 400), cookie=False)).status == 302


async def test_forged_cookie_troubles_nobody():
    async with edge_world() as world:
        response = await world.get("GET / HTTP/1.1", f"Cookie: {STUDIO_COOKIE}=a.b.c", cookie=False)
        assert response.status == 401
        foreign = await world.get("GET / HTTP/1.1", aged(world, 0, session_id=OTHER), cookie=False)
        assert foreign.status == 401
        assert not [question for question in world.control.asked if isinstance(question, Renew)]
