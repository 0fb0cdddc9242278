"""From a request to values: who asks, the body, the query. Everything wrong is a 4xx that names the field."""

from typing import TypeVar

import msgspec
from aiohttp import hdrs, web

from portico_gateway.api.doors import Parts
from portico_gateway.auth.values import Actor
from portico_gateway.errors import BadRequest, TooLarge, Unauthenticated
from portico_gateway.link.messages import SESSION_COOKIE
from portico_gateway.web.security import check_same_origin, cookie_value
from portico_gateway.web.site import peer

T = TypeVar("T")
MAX_BODY = 1024 * 1024
MAX_TEXT = 512
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


async def actor_of(parts: Parts, request: web.Request) -> Actor:
    """A bearer counts alone; else the browser's sign-in, and then a change must come from our own pages.

    Raises Unauthenticated, or Forbidden for a change that another site may have caused.
    """
    header = request.headers.get(hdrs.AUTHORIZATION)
    if header is not None:
        scheme, _, token = header.partition(" ")
        found = await parts.auth.actor_from_bearer(token.strip(), peer(request)) if scheme.lower() == "bearer" else None
        if found is None:
            raise Unauthenticated("this token is unknown, expired or revoked: make a new one under Account")
        return found[0]
    cookie = cookie_value(request, SESSION_COOKIE)
    actor = await parts.auth.actor_from_cookie(cookie, peer(request)) if cookie else None
    if actor is None:
        raise Unauthenticated("send a personal access token as 'Authorization: Bearer …', or sign in")
    if request.method not in SAFE:
        check_same_origin(request, parts.settings.base_url)
    return actor


async def body(request: web.Request, kind: type[T], *, optional: bool = False) -> T:
    """The JSON body as `kind`. Raises BadRequest that names the field, TooLarge."""
    if (request.content_length or 0) > MAX_BODY:
        raise TooLarge(f"the body is larger than {MAX_BODY} bytes")
    raw = await request.read()
    if not raw and optional:
        return kind()
    if raw and request.content_type != "application/json":
        raise BadRequest("send the body as JSON, with Content-Type: application/json")
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        raise BadRequest(f"{error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from error


def number(request: web.Request, name: str, default: int, most: int) -> int:
    """A whole number of the query between 0 and `most`."""
    text = request.query.get(name)
    if text is None or text == "":
        return default
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise BadRequest(f"{name} is a whole number")
    if int(text) > most:
        raise BadRequest(f"{name} is at most {most}")
    return int(text)


def text(request: web.Request, name: str, default: str = "") -> str:
    found = request.query.get(name, default)
    if len(found) > MAX_TEXT:
        raise BadRequest(f"{name} is longer than {MAX_TEXT} characters")
    return found


async def workspace_id(parts: Parts, request: web.Request, actor: Actor) -> int:
    """`workspaceId` of the query; without one the caller's only or first workspace."""
    if request.query.get("workspaceId"):
        return number(request, "workspaceId", 0, 2**63 - 1)
    found = await parts.people.workspaces(actor)
    if not found:
        raise BadRequest("workspaceId is missing, and you are a member of none")
    return found[0].id


def path_number(request: web.Request, name: str) -> int:
    found = request.match_info[name]
    if not (found.isascii() and found.isdigit() and len(found) <= 18):
        raise BadRequest(f"{name} in the path is a whole number")
    return int(found)
