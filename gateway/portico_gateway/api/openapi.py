"""The API's description, OpenAPI 3.1, made from the same table as the application."""

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import msgspec

from portico_gateway import __version__
from portico_gateway.api.answers import Message
from portico_gateway.api.table import Route

REFERENCE = "#/components/schemas/{name}"
REFUSALS = {
    "400": "the request is off",
    "401": "nobody",
    "403": "not allowed",
    "404": "not there, or not for you",
    "409": "at odds with the present state",
}


@cache
def describe(routes: Sequence[Route]) -> bytes:
    """The document as JSON."""
    kinds: list[Any] = [Message]
    for route in routes:
        kinds += [kind for kind in (route.body, route.answer) if isinstance(kind, type) and kind is not type(None)]
    schemas, components = msgspec.json.schema_components(kinds, ref_template=REFERENCE)
    schema_of = dict(zip(kinds, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schema_of)
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": "Portico", "version": __version__},
            "servers": [{"url": "/api"}],
            "security": [{"BearerAuth": []}],
            "paths": paths,
            "components": {
                "schemas": components,
                "securitySchemes": {"BearerAuth": {"type": "http", "scheme": "bearer"}},
            },
        }
    )


def _schema(parameter: str) -> dict[str, Any]:
    if parameter in ("max", "offset"):
        return {"type": "integer", "format": "int32", "minimum": 0}
    if parameter.endswith("Id") and parameter not in ("sessionId", "computeEnvId"):
        return {"type": "integer", "format": "int64"}
    if parameter == "attributes":
        return {"type": "array", "items": {"type": "string"}}
    return {"type": "boolean" if parameter == "autoStart" else "string"}


def _refusals(route: Route) -> list[str]:
    never = {"409"} if route.conflict != 409 else set()
    return [code for code in REFUSALS if code not in never | ({"401", "403"} if route.public else set())]


def _operation(route: Route, schema_of: dict[Any, Any]) -> dict[str, Any]:
    names = re.findall(r"\{(\w+)\}", route.path)
    parameters = [{"name": n, "in": "path", "required": True, "schema": _schema(n)} for n in names]
    parameters += [{"name": n, "in": "query", "required": False, "schema": _schema(n)} for n in route.query]
    done: dict[str, Any] = {"description": "done"}
    if isinstance(route.answer, type) and route.status != 204:
        kind = "text/event-stream" if route.answer is str else "application/json"
        done["content"] = {kind: {"schema": schema_of[route.answer]}}
    message = {"application/json": {"schema": schema_of[Message]}}
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "parameters": parameters,
        "responses": {
            str(route.status): done,
            **{code: {"description": REFUSALS[code], "content": message} for code in _refusals(route)},
        },
    }
    if route.body is not None:
        operation["requestBody"] = {"content": {"application/json": {"schema": schema_of[route.body]}}}
    if route.public:
        operation["security"] = []
    return operation
