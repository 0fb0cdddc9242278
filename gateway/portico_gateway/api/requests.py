"""From a request to values: who asks, the body, the query. Everything wrong is a 4xx that names the field."""

from collections.abc import Iterable
from typing import TypeVar

import msgspec
from aiohttp import hdrs, web

from portico_gateway.api.doors import Parts
from portico_gateway.auth.secrets_text import is_text
from portico_gateway.auth.values import Actor
from portico_gateway.errors import BadRequest, TooLarge, Unauthenticated
from portico_gateway.link.messages import SESSION_COOKIE
from portico_gateway.web.security import check_same_origin, cookie_value
from portico_gateway.web.site import peer

T = TypeVar("T")
MAX_BODY = 1024 * 1024
MAX_TEXT = 512
MAX_PAGE = 100
MAX_OFFSET = 10**9
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


async def _read(request: web.Request) -> bytes:
    try:
        return await request.clone(client_max_size=MAX_BODY).read()
    except web.HTTPRequestEntityTooLarge:
        raise TooLarge(f"the body is larger than {MAX_BODY} bytes") from None
    except web.RequestPayloadError as error:
        raise BadRequest("the body ended early, or is not what its headers say") from error


async def body(request: web.Request, kind: type[T], *, optional: bool = False) -> T:
    """The JSON body as `kind`. Raises BadRequest that names the field, TooLarge."""
    raw = await _read(request)
    if not raw and optional:
        return kind()
    if raw and request.content_type != "application/json":
        raise BadRequest("send the body as JSON, with Content-Type: application/json")
    try:
        given = msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        raise BadRequest(f"{error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from error
    if where := _not_text(given, "$"):
        raise BadRequest(f"text holds no zero bytes - at `{where}`")
    return given


def _not_text(value: object, where: str) -> str:
    """The first text in a decoded body that cannot be stored everywhere; '' = none."""
    if isinstance(value, str):
        return "" if is_text(value) else where
    items: Iterable[tuple[str, object]] = ()
    if isinstance(value, msgspec.Struct):
        items = ((f".{f.encode_name}", getattr(value, f.name)) for f in msgspec.structs.fields(value))
    elif isinstance(value, dict):
        items = ((f"[{key!r}]", text) for key, text in value.items())
    elif isinstance(value, list):
        items = ((f"[{number}]", each) for number, each in enumerate(value))
    return next((found for name, each in items if (found := _not_text(each, where + name))), "")


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
    if not is_text(found):
        raise BadRequest(f"{name} is text without zero bytes, percent-encoded UTF-8")
    return found


def words(request: web.Request, name: str) -> frozenset[str]:
    """A list in the query, as `name=a&name=b` or `name=a,b`."""
    return frozenset(word for each in request.query.getall(name, []) for word in each.split(","))


def window(request: web.Request) -> tuple[int, int]:
    """(offset, limit) of a list."""
    return number(request, "offset", 0, MAX_OFFSET), number(request, "max", MAX_PAGE, MAX_PAGE) or MAX_PAGE


def page_of(request: web.Request, rows: list[T]) -> list[T]:
    """The part of a list that was asked for."""
    offset, limit = window(request)
    return rows[offset : offset + limit]


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
