"""Which request goes where, with what."""

import json

import pytest
from aiohttp import web

from portico_gateway.link.client import Question
from portico_gateway.link.messages import CheckToken, Drain, Revoke, Verdict
from support.edge_world import PAT, USER, edge_world, read_response
from support.roads import STUDIO, until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
FORGED = ("X-Portico-User: 1", "X-Portico-Studio: x", "X-Forwarded-For: 6.6.6.6", "X-Forwarded-Proto: https")


async def test_management_host_is_controls():
    async with edge_world() as world:
        response = await world.get(
            "POST /api/x?y HTTP/1.1",
            "Cookie: __Host-portico-session=s",
            "Content-Length: 0",
            *FORGED,
            host=world.management,
        )
        seen = json.loads(response.body)
        headers = dict(seen["headers"])
        assert (response.status, seen["path"], seen["method"]) == (200, "/api/x?y", "POST")
        assert headers["cookie"] == "__Host-portico-session=s" and headers["host"] == world.management
        assert (headers["x-forwarded-for"], headers["x-forwarded-proto"]) == ("127.0.0.1", "http")
        assert headers["x-forwarded-host"] == world.management
        assert not [name for name in headers if name.startswith("x-portico-")]


async def test_each_request_of_one_connection_is_decided_by_its_own_head():
    async with edge_world() as world:
        heads = await world.saying(OK)
        reader, writer = await world.connect()
        asked = (
            (world.head(), 200),
            (world.head(host=world.management), 200),
            (world.head(cookie=False), 401),
            (world.head(), 200),
            (world.head(host="evil.test"), 421),
        )
        for request, status in asked:
            writer.write(request)
            assert (await read_response(reader)).status == status
        assert len(heads) == 2


@pytest.mark.parametrize(
    "host", ["evil.test", "x.a00000001.studio.localhost", "studio.localhost", "a00000001.studio.localhost."]
)
async def test_unknown_host_is_misdirected(host: str):
    async with edge_world() as world:
        response = await world.get("GET / HTTP/1.1", "Accept: text/html", host=host)
        assert response.status == 421 and response.get("location") is None and host.encode() not in response.body


async def test_stopped_studio_shows_its_page_to_people_and_424_to_programs():
    async with edge_world() as world:
        world.route("stopped")
        await until(lambda: world.worker.routes.get(STUDIO).state == "stopped")  # type: ignore[union-attr]
        page = await world.get("GET /lab HTTP/1.1", "Accept: text/html", "Authorization: Basic eA==", *FORGED)
        headers = dict(json.loads(page.body)["headers"])
        assert (headers["x-portico-studio"], headers["x-portico-user"], headers["x-portico-sign-in"]) == (
            STUDIO,
            "7",
            "s1",
        )
        assert "cookie" not in headers and json.loads(page.body)["path"] == "/lab"
        told = await world.get("GET /api HTTP/1.1", "Accept: application/json")
        body = json.loads(told.body)
        assert (
            told.status == 424
            and body["status"] == "stopped"
            and set(body) == {"message", "status", "reason", "startUrl"}
        )
        assert body["startUrl"].startswith(world.settings.base_url + "/")
        assert (await world.websocket())[2].status == 424


async def test_reserved_paths_of_a_running_studio_are_controls():
    async with edge_world() as world:
        heads = await world.saying(OK)
        for target in ("/_portico/state", "/_portico", "/_portico?x"):
            response = await world.get(f"GET {target} HTTP/1.1")
            assert dict(json.loads(response.body)["headers"])["x-portico-studio"] == STUDIO
        assert not heads
        for target in ("/_porticox", "/%5Fportico/", "//_portico/"):
            assert (await world.get(f"GET {target} HTTP/1.1")).body == b"ok"
        assert len(heads) == 3


async def test_health_is_told_on_literal_hosts_and_the_management_host_alone():
    async with edge_world() as world:
        await until(lambda: world.worker._control_ready)
        for host in (f"127.0.0.1:{world.port}", f"[::1]:{world.port}", world.management):
            assert (await world.get("GET /healthz HTTP/1.1", host=host)).status == 200
            assert (await world.get("GET /readyz HTTP/1.1", host=host)).status == 200
        assert (await world.get("GET / HTTP/1.1", host="127.0.0.1")).status == 421
        assert (await world.get("GET /healthz HTTP/1.1", host="evil.test")).status == 421
        heads = await world.saying(OK)
        assert (await world.get("GET /healthz HTTP/1.1")).body == b"ok" and len(heads) == 1


async def test_ready_is_said_only_while_control_is_ready():
    async with edge_world() as world:
        await until(lambda: world.worker._control_ready)
        world.control.ready = 503
        await until(lambda: not world.worker._control_ready)
        assert (await world.get("GET /readyz HTTP/1.1", host="127.0.0.1")).status == 503
        assert (await world.get("GET /healthz HTTP/1.1", host="127.0.0.1")).status == 200


async def test_studios_go_on_while_control_is_away():
    async with edge_world() as world:
        await world.saying(OK)
        cookie = world.head()
        assert (await world.ask(cookie)).status == 200
        await world.link.__aexit__(None, None, None)
        await world.application.cleanup()
        await until(lambda: not world.worker.link.connected.is_set())
        assert (await world.ask(cookie)).status == 200
        people = await world.get("GET / HTTP/1.1", "Accept: text/html", host=world.management)
        assert people.status == 503 and b"<!doctype html>" in people.body and people.get("retry-after") == "3"
        program = await world.get("GET /api HTTP/1.1", host=world.management)
        assert program.status == 503 and "message" in json.loads(program.body)
        unknown = await world.get("GET / HTTP/1.1", f"Authorization: Bearer {PAT}", cookie=False)
        assert unknown.status == 503 and "message" in json.loads(unknown.body)
        await world.link.__aenter__()


async def test_nothing_listening_in_the_studio_is_said():
    async with edge_world() as world:
        response = await world.get()
        assert response.status == 503 and b"Nothing listens on port 1" in response.body


async def test_upgrades_of_agents_need_a_runs_token():
    async with edge_world() as world:
        line = "GET /api/agent/v1/tunnel HTTP/1.1"
        upgrade = ("Connection: Upgrade", "Upgrade: portico-tunnel")
        for fields, status in (
            (("Authorization: Bearer x",), 400),
            (upgrade, 400),
            ((*upgrade, "Authorization: Bearer x"), 401),
            (("Connection: Upgrade", "Upgrade: portico-mqtt", "Authorization: Bearer short-token-1"), 400),
        ):
            assert (await world.get(line, *fields, host=world.management)).status == status


async def test_forwarding_fields_count_from_a_trusted_proxy_alone():
    fields = ("X-Forwarded-For: 6.6.6.6, 192.0.2.7", "X-Forwarded-Proto: https")
    for trusted, client, scheme in (("", "127.0.0.1", "http"), ("127.0.0.1, ::1", "192.0.2.7", "https")):
        async with edge_world(trusted_proxies=trusted) as world:
            response = await world.get("GET / HTTP/1.1", *fields, host=world.management)
            headers = dict(json.loads(response.body)["headers"])
            assert (headers["x-forwarded-for"], headers["x-forwarded-proto"]) == (client, scheme)


async def test_yes_that_a_revocation_overtakes_is_asked_for_again():
    async with edge_world() as world:
        await world.saying(OK)
        world.control.generation = 1
        answer = world.control.answer

        async def overtaken(message: Question) -> Verdict:
            verdict = await answer(message)
            if world.control.generation == 1:
                world.control.generation = 2
                world.link.push(Revoke(generation=2, user_id=USER))  # on the wire before the yes of generation 1
            return verdict

        world.control.answer = overtaken  # type: ignore[method-assign]
        response = await world.get("GET / HTTP/1.1", f"Authorization: Bearer {PAT}", cookie=False)
        assert response.status == 200
        assert sum(isinstance(question, CheckToken) for question in world.control.asked) == 2


async def test_drain_ordered_by_control_ends_the_worker():
    async with edge_world() as world:
        world.link.push(Drain(seconds=1))
        await until(world.worker.leaving.is_set)


async def test_connection_to_control_is_used_again_and_replaced_when_control_was_restarted():
    async with edge_world() as world:
        upstream = world.worker.upstream
        for _ in range(3):
            assert (await world.get("GET / HTTP/1.1", host=world.management)).status == 200
        assert len(upstream._idle) == 1 and upstream._idle[0].uses == 3
        await world.application.cleanup()
        await until(lambda: upstream._idle[0].spoiled)
        runner = web.AppRunner(world.control.application(), shutdown_timeout=0.1)
        await runner.setup()
        await web.UnixSite(runner, str(world.settings.run_dir / "control.sock")).start()
        assert (await world.get("GET / HTTP/1.1", host=world.management)).status == 200
        await runner.cleanup()
