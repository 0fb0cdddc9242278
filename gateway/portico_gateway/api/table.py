"""A route of the API as a value: the application and its OpenAPI description are both made from these."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec
from aiohttp import web

from portico_gateway.api.doors import Parts
from portico_gateway.auth.values import Actor

Handler = Callable[[Parts, web.Request, Actor], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    method: str
    path: str
    name: str
    """operationId."""
    summary: str
    handler: Handler
    body: type[msgspec.Struct] | None = None
    answer: object = dict
    status: int = 200
    query: tuple[str, ...] = ()
    public: bool = False
    conflict: int = 409
    """The status when the present state does not allow it; clients know 400 in some places."""


def answer(value: object, status: int = 200) -> web.Response:
    """A JSON answer; None = no content."""
    if value is None:
        return web.Response(status=204)
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")
