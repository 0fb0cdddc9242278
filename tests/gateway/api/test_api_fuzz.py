"""Whatever is sent, nothing in us breaks: every answer is below 500, and every refusal is a sentence."""

import json
import re
from typing import Any
from urllib.parse import quote

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

from portico_gateway.api.app import ROUTES
from portico_gateway.api.table import Route
from support.api_world import ApiWorld

# hypothesis' own look at fixtures is off: the world is one for all examples of a test, on purpose
LOOKED_AT = settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
NUMBERS = st.one_of(st.integers(-2, 70_000), st.sampled_from([2**31, 2**53, 2**63 - 1, 2**63, 2**70, -(2**63)]))
TEXTS = st.one_of(
    st.text(max_size=20), st.sampled_from(["", "\0", "memory", "portico/jupyterlab:4.6", "😀" * 90, "n" * 5000])
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.floats(), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=12,
)
WITH_BODY = [route for route in ROUTES if route.body is not None]
PLAIN = [route for route in ROUTES if route.name not in ("WorkspaceEvents", "DeleteToken")]
"""Not the stream, which does not end, nor what takes the caller's own token away."""
SENSIBLE = {
    "computeEnvId": "memory",
    "dataStudioToolUrl": "portico/jupyterlab:4.6",
    "role": "view",
    "email": "new@example.org",
    "remoteConfig": None,
    "initialCheckpointId": None,
    "checkpointId": None,
    "labelIds": [],
    "allowedUserIds": [5],
}


def fields(kind: type[msgspec.Struct]) -> list[str]:
    return [field.encode_name for field in msgspec.structs.fields(kind)]


def bodies(kind: type[msgspec.Struct]) -> st.SearchStrategy[bytes]:
    """Right values but for some fields; right fields with any values; any JSON; any bytes."""
    right = st.from_type(kind).map(msgspec.to_builtins)
    wrong = st.dictionaries(st.sampled_from(fields(kind)), JSON, max_size=3)
    sensible = {name: value for name, value in SENSIBLE.items() if name in fields(kind)}
    near = right.map(lambda value: {**value, **sensible, "configuration": None})
    mixed = st.tuples(right, wrong).map(lambda both: {**both[0], **both[1]})
    return st.one_of(near.map(encode), mixed.map(encode), wrong.map(encode), JSON.map(encode), st.binary(max_size=40))


def encode(value: object) -> bytes:
    return json.dumps(value, allow_nan=True).encode("utf-8", "surrogatepass")


async def answered(world: ApiWorld, session_id: str, method: str, path: str, **more: Any) -> None:
    """Send it as the owner, with harmless ids in the path, and look at what comes."""
    known = {"sessionId": session_id, "workspaceId": "1", "orgId": "1", "userId": "5", "computeEnvId": "memory"}
    where = re.sub(r"\{(\w+)\}", lambda match: known.get(match[1], "1"), path)
    async with world.api("olga").open(method, where, **more) as response:
        raw = await response.read()
    assert response.status < 500, (method, where, more, raw[:300])
    assert response.status != 401, "the caller is who they were"
    if response.status >= 400:
        assert isinstance(json.loads(raw)["message"], str), raw


@pytest.fixture
async def session_id(world: ApiWorld) -> str:
    return (await world.rooms.add()).session_id


@pytest.mark.parametrize("route", WITH_BODY, ids=lambda route: route.name)
@LOOKED_AT
@given(data=st.data())
async def test_any_body_is_answered(world: ApiWorld, session_id: str, route: Route, data: st.DataObject) -> None:
    assert route.body is not None
    body = data.draw(bodies(route.body))
    path = route.path + ("?autoStart=false" if route.name == "CreateDataStudio" else "")
    await answered(world, session_id, route.method, path, data=body, headers={"Content-Type": "application/json"})


@LOOKED_AT
@given(data=st.data())
async def test_any_query_is_answered(world: ApiWorld, session_id: str, data: st.DataObject) -> None:
    route = data.draw(st.sampled_from(PLAIN))
    names = st.sampled_from(route.query or ("workspaceId",))
    values = st.one_of(TEXTS, NUMBERS.map(str), st.sampled_from(["1", "status:x", '"', "before:2", "author:", "%ff"]))
    pairs = data.draw(st.lists(st.tuples(names, values), max_size=4))
    raw = "&".join(f"{name}={value if value == '%ff' else quote(value, safe='')}" for name, value in pairs)
    await answered(world, session_id, route.method, f"{route.path}?{raw}"[:4000])


@LOOKED_AT
@given(data=st.data())
async def test_any_path_is_answered(world: ApiWorld, data: st.DataObject) -> None:
    route = data.draw(st.sampled_from([route for route in PLAIN if "{" in route.path]))
    parts = st.one_of(TEXTS, NUMBERS.map(str), st.sampled_from(["..", "%2e%2e", "%00", "%ff", "٣", "1e3", "-1"]))
    path = re.sub(r"\{\w+\}", lambda _: quote(data.draw(parts), safe="%")[:400], route.path)
    await answered(world, "", route.method, path)
