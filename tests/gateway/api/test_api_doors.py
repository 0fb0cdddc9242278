"""Who asks, and what may be sent: bearers, cookies, other sites, bodies and queries, each with its limits."""

import asyncio
import gzip
import io
from typing import Any

import pytest

from portico_gateway.api.requests import MAX_BODY
from support.api_world import ApiWorld
from support.studio_world import MAINTAINER, OWNER, WORKSPACE

W = f"workspaceId={WORKSPACE}"
HERE = {"Origin": "http://portico.localhost:8000"}
JSON = {"Content-Type": "application/json"}


async def test_nobody_is_told_how_to_come_in(world: ApiWorld) -> None:
    for headers in ({}, {"Cookie": "__Host-portico-session=made-up"}, {"Cookie": "other=1"}):
        refused = await world.api(**headers).get("/user-info")
        assert (refused.status, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert "access token" in refused.message


@pytest.mark.parametrize(
    "sent", ["Bearer", "Bearer ", "Bearer pto_wrong", "Basic b2xnYTp4", "token", "Bearer " + "x" * 500]
)
async def test_a_bearer_that_counts_for_nothing_is_refused_even_beside_a_cookie(world: ApiWorld, sent: str) -> None:
    cookie = await world.sign_in(OWNER)
    assert (await world.with_cookie(cookie).get("/user-info")).status == 200
    refused = await world.with_cookie(cookie, Authorization=sent).get("/user-info")
    assert (refused.status, bool(refused.message)) == (401, True)


async def test_a_bearer_counts_before_a_cookie(world: ApiWorld) -> None:
    both = world.with_cookie(await world.sign_in(OWNER), Authorization=f"bearer {world.tokens['vera']}")
    assert (await both.get("/user-info")).value["user"]["userName"] == "vera"
    refused = await both.post(f"/studios?{W}", {"computeEnvId": "memory"}, headers=HERE)
    assert refused.status == 403, "vera's rights, not olga's"


async def test_a_change_by_cookie_comes_from_our_own_pages_alone(world: ApiWorld) -> None:
    api = world.with_cookie(await world.sign_in(MAINTAINER))
    body, path = {"name": "label"}, f"/labels?{W}"
    refused: tuple[dict[str, str], ...] = (
        {},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://a3fa1b2c4.studio.localhost:8000"},
        {"Sec-Fetch-Site": "cross-site", **HERE},
        {"Sec-Fetch-Site": "same-site", **HERE},
        {"Sec-Fetch-Site": "none", **HERE},
    )
    for headers in refused:
        assert (await api.post(path, body, headers=headers)).status == 403, headers
    assert (await world.api("vera").get(f"/labels?{W}")).value["totalSize"] == 0
    assert (await api.post(path, body, headers=HERE)).status == 200
    assert (await api.post(path, {"name": "second"}, headers={"Sec-Fetch-Site": "same-origin"})).status == 200


async def test_programs_need_no_origin(world: ApiWorld) -> None:
    for headers in ({}, {"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"}):
        answer = await world.api("mia").post(f"/labels?{W}", {"name": f"l{len(headers)}"}, headers=headers)
        assert answer.status == 200


async def test_a_cookie_that_comes_twice_counts_for_nothing(world: ApiWorld) -> None:
    cookie = await world.sign_in(OWNER)
    tossed = world.with_cookie(f"{cookie}; __Host-portico-session=other")
    assert (await tossed.get("/user-info")).status == 401


async def test_answers_are_never_kept_nor_guessed_at(world: ApiWorld) -> None:
    for reply in (await world.api("vera").get("/user-info"), await world.api().get("/user-info")):
        assert reply.headers["Cache-Control"] == "no-store"
        assert reply.headers["X-Content-Type-Options"] == "nosniff"
        assert reply.headers["Content-Type"] == "application/json"
        assert "Access-Control-Allow-Origin" not in reply.headers


async def test_addresses_and_methods_that_are_not_there(world: ApiWorld) -> None:
    missing = await world.api("vera").get("/nothing/here")
    assert (missing.status, "openapi.json" in missing.message) == (404, True)
    other = await world.api("vera").delete("/studios")
    assert (other.status, other.headers["Allow"]) == (405, "GET,HEAD,POST")
    assert "methods" in other.message


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"computeEnvId": 5}, "$.computeEnvId"),
        ({}, "computeEnvId"),
        ({"computeEnvId": "memory", "name": ""}, "$.name"),
        ({"computeEnvId": "memory", "name": "n" * 81}, "$.name"),
        ({"computeEnvId": "memory", "description": "d" * 2049}, "$.description"),
        ({"computeEnvId": "memory", "isPrivate": "yes"}, "$.isPrivate"),
        ({"computeEnvId": "memory", "configuration": []}, "$.configuration"),
        ({"computeEnvId": "memory", "configuration": {"cpu": -1}}, "$.configuration.cpu"),
        ({"computeEnvId": "memory", "configuration": {"cpu": 1.5}}, "$.configuration.cpu"),
        ({"computeEnvId": "memory", "configuration": {"lifespanHours": 121}}, "$.configuration.lifespanHours"),
        ({"computeEnvId": "memory", "configuration": {"memory": 2**70}}, "$.configuration.memory"),
        ({"computeEnvId": "memory", "configuration": {"environment": {"A": 1}}}, "$.configuration.environment"),
        ({"computeEnvId": "memory", "configuration": {"environment": {"1A": "x"}}}, "$.configuration.environment"),
        ({"computeEnvId": "memory", "configuration": {"environment": {"A": "\0"}}}, "$.configuration.environment['A']"),
        ({"computeEnvId": "memory", "configuration": {"mountDataV2": [{"dataLinkId": "x"}]}}, "mountDataV2"),
        ({"computeEnvId": "memory", "description": "a\0b"}, "$.description"),
        ({"computeEnvId": "memory", "allowedUserIds": ["a"]}, "$.allowedUserIds[0]"),
        ({"computeEnvId": "memory", "allowedUserIds": [999]}, "user 999"),
        ({"computeEnvId": "memory", "labelIds": list(range(501))}, "$.labelIds"),
        ({"computeEnvId": "memory", "labelIds": [999]}, "label 999"),
        ({"computeEnvId": "memory", "initialCheckpointId": -1}, "$.initialCheckpointId"),
        ({"computeEnvId": "memory", "remoteConfig": {}}, "$.remoteConfig"),
        ({"computeEnvId": "memory", "remoteConfig": {"repository": "x"}}, "remoteConfig"),
        ({"computeEnvId": "elsewhere"}, "elsewhere"),
        ({"computeEnvId": "memory", "dataStudioToolUrl": "nothing"}, "template"),
        ([], "object"),
        ("text", "object"),
    ],
)
async def test_a_wrong_value_is_named_and_nothing_is_made(world: ApiWorld, body: Any, field: str) -> None:
    refused = await world.api("mia").post(f"/studios?{W}&autoStart=false", body)
    assert (refused.status, field in refused.message) == (400, True), refused.message
    assert (await world.api("mia").get(f"/studios?{W}")).value["totalSize"] == 0


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("max=-1", "max"),
        ("max=101", "max"),
        ("max=many", "max"),
        ("max=%D9%A3", "max"),
        ("offset=1e3", "offset"),
        (f"offset={10**12}", "offset"),
        ("workspaceId=one", "workspaceId"),
        (f"workspaceId={2**63}", "workspaceId"),
        ("search=" + "x" * 513, "search"),
        ("search=%00", "search"),
        ("search=status:nonsense", "status"),
    ],
)
async def test_a_wrong_query_is_named(world: ApiWorld, query: str, field: str) -> None:
    refused = await world.api("vera").get(f"/studios?{query}")
    assert (refused.status, field in refused.message) == (400, True)


@pytest.mark.parametrize(
    ("raw", "headers", "status"),
    [
        (b"", JSON, 400),
        (b"{", JSON, 400),
        (b"\xff\xfe", JSON, 400),
        (b'{"name": "\\ud800"}', JSON, 400),
        (b"[" * 100_000, JSON, 400),
        (b'{"unknown":' + b"[" * 100_000 + b"]" * 100_000 + b', "name": "x"}', JSON, 400),
        (b"name=x", {"Content-Type": "application/x-www-form-urlencoded"}, 400),
        (b'{"name": "x"}', {"Content-Type": "text/plain"}, 400),
        (b'{"name": "x"}', {"Content-Type": "application/json; charset=utf-8"}, 200),
        (b"not gzip at all", {**JSON, "Content-Encoding": "gzip"}, 400),
        (gzip.compress(b'{"name": "' + b" " * (MAX_BODY + 1) + b'"}'), {**JSON, "Content-Encoding": "gzip"}, 413),
        (b'{"name": "' + b" " * MAX_BODY + b'"}', JSON, 413),
        (b'{"name": "x", "unknown": "' + b" " * (MAX_BODY - 100) + b'"}', JSON, 200),
    ],
    ids=(
        "nothing",
        "cut",
        "no text",
        "half a character",
        "deep",
        "deep where nobody looks",
        "a form",
        "plain text",
        "with a charset",
        "no gzip",
        "a bomb",
        "too large",
        "just fits",
    ),
)
async def test_bodies_have_a_form_and_a_limit(
    world: ApiWorld, raw: bytes, headers: dict[str, str], status: int
) -> None:
    answer = await world.api("mia").post(f"/labels?{W}", data=io.BytesIO(raw), headers=headers)
    assert answer.status == status
    if status >= 400:
        assert answer.message


async def test_a_body_without_a_length_has_the_limit_too(world: ApiWorld) -> None:
    async def endless() -> Any:
        for _ in range(MAX_BODY // 65536 + 2):
            yield b" " * 65536

    refused = await world.api("mia").post(f"/labels?{W}", data=endless(), headers=JSON)
    assert (refused.status, str(MAX_BODY) in refused.message) == (413, True)


async def test_a_body_that_ends_early_leaves_nothing_behind(world: ApiWorld, caplog: pytest.LogCaptureFixture) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", world.server.port)
    head = (
        f"POST /api/labels?{W} HTTP/1.1\r\nHost: portico.localhost:8000\r\n"
        f"Authorization: Bearer {world.tokens['mia']}\r\n"
        "Content-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    )
    writer.write(head.encode() + b'{"name": ')
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert (await world.api("mia").get(f"/labels?{W}")).value["totalSize"] == 0
    assert not [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")]


async def test_a_mistake_of_ours_is_said_without_telling_what(
    world: ApiWorld, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(world.rooms.studios, "templates", broken)
    failed = await world.api("vera").get(f"/studios/templates?{W}")
    assert (failed.status, "secret" in failed.message) == (500, False)
    assert "secret detail" in caplog.text
