"""`/api/openapi.json`: a true description of what is there."""

import json
from typing import Any

import jsonschema
from aiohttp import web
from openapi_spec_validator import OpenAPIV31SpecValidator

from portico_gateway.api.app import ROUTES, build_api
from support.api_world import ApiWorld
from support.studio_world import WORKSPACE


async def description(world: ApiWorld) -> dict[str, Any]:
    answer = await world.api().get("/openapi.json")
    assert answer.status == 200
    return dict(answer.value)


async def test_it_is_valid_openapi(world: ApiWorld) -> None:
    found = await description(world)
    assert list(OpenAPIV31SpecValidator(found).iter_errors()) == []
    assert found["servers"] == [{"url": "/api"}]


async def test_it_covers_every_registered_route_and_no_other(world: ApiWorld) -> None:
    registered = {
        (route.method, route.resource.canonical.removeprefix("/api"))
        for route in application(world).router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    described = {
        (method.upper(), path)
        for path, operations in (await description(world))["paths"].items()
        for method in operations
    }
    assert registered - described == {("GET", "/openapi.json")}
    assert described - registered == set()
    assert described == {(route.method, route.path) for route in ROUTES}


def application(world: ApiWorld) -> web.Application:
    parts: Any = None
    return build_api(parts)


async def test_operations_have_names_of_their_own_and_say_what_they_take(world: ApiWorld) -> None:
    paths = (await description(world))["paths"]
    operations = [operation for each in paths.values() for operation in each.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(names) == len(set(names))
    assert all(operation["summary"] for operation in operations)
    create = paths["/studios"]["post"]
    assert {p["name"]: p["schema"]["type"] for p in create["parameters"]} == {
        "workspaceId": "integer",
        "autoStart": "boolean",
    }
    assert create["requestBody"]["content"].keys() == {"application/json"}
    assert create["responses"].keys() >= {"201", "400", "401", "403", "404", "409"}
    assert paths["/service-info"]["get"]["security"] == []
    assert "400" in paths["/studios/{sessionId}"]["delete"]["responses"]
    assert "409" not in paths["/studios/{sessionId}"]["delete"]["responses"]
    stream = paths["/workspaces/{workspaceId}/events"]["get"]["responses"]["200"]["content"]
    assert stream.keys() == {"text/event-stream"}


async def test_answers_are_as_it_says(world: ApiWorld) -> None:
    found, mia = await description(world), world.api("mia")
    studio = await world.rooms.add()
    await world.rooms.run(studio.session_id)
    one = f"/studios/{studio.session_id}"
    asked = {
        "/studios": f"/studios?workspaceId={WORKSPACE}",
        "/studios/{sessionId}": one,
        "/studios/{sessionId}/checkpoints": f"{one}/checkpoints",
        "/studios/{sessionId}/logs": f"{one}/logs",
        "/studios/templates": f"/studios/templates?workspaceId={WORKSPACE}",
    }
    for path, address in asked.items():
        answer = found["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        schema = {**json.loads(json.dumps(answer)), "components": found["components"]}
        jsonschema.validate((await mia.get(address)).value, schema)
