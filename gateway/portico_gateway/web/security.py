"""What every answer of the pages carries, and what every form must prove."""

import hashlib
import hmac
from base64 import urlsafe_b64encode

from aiohttp import hdrs, web
from multidict import MultiDictProxy

from portico_gateway.errors import BadRequest, Forbidden, TooLarge
from portico_gateway.settings import Settings

MAX_FORM = 64 * 1024
"""Bytes of a form. The largest honest one (environment variables of a studio) is a few KiB."""

MAX_FIELDS = 100


def policy(form_targets: str = "") -> str:
    """The Content-Security-Policy: nothing inline, nothing from elsewhere, in nobody's frame.

    `form_targets`: origins besides our own that an answer to a form may redirect to (browsers check those too).
    """
    return (
        "default-src 'self'; base-uri 'none'; object-src 'none'; frame-ancestors 'none'; "
        f"form-action 'self'{' ' + form_targets if form_targets else ''}"
    )


def studio_origins(settings: Settings) -> str:
    return f"{settings.public_scheme}://*.{settings.studio_domain}{settings.port_suffix}"


def harden(response: web.StreamResponse, content_policy: str) -> None:
    """Set the headers that every answer of ours has."""
    headers = response.headers
    headers[hdrs.CONTENT_SECURITY_POLICY] = content_policy
    headers["Referrer-Policy"] = "no-referrer"
    headers["X-Content-Type-Options"] = "nosniff"
    headers["X-Frame-Options"] = "DENY"
    headers["Cross-Origin-Opener-Policy"] = "same-origin"
    headers["Cross-Origin-Resource-Policy"] = "same-origin"
    headers["Origin-Agent-Cluster"] = "?1"
    headers.setdefault(hdrs.CACHE_CONTROL, "no-store")


def check_same_origin(request: web.BaseRequest, base_url: str) -> None:
    """Raises Forbidden unless this browser says that the form stood on a page of ours."""
    site = request.headers.get("Sec-Fetch-Site")
    origin = request.headers.get(hdrs.ORIGIN)
    if site is not None:
        if site == "same-origin":
            return
    elif origin == base_url:
        return
    raise Forbidden("this form was sent from another site; open the page here and try again")


def form_token(cookie: str) -> str:
    """What each form of a sign-in carries: only the cookie's holder can make it, and it does not tell the cookie."""
    digest = hmac.digest(cookie.encode(), b"portico form", hashlib.sha256)
    return urlsafe_b64encode(digest[:18]).decode()


async def read_form(request: web.Request, cookie: str | None) -> MultiDictProxy[str]:
    """The fields of a posted form. `cookie` None: a form that is used before signing in.

    Raises BadRequest, TooLarge, or Forbidden when the form's token is not this sign-in's.
    """
    if request.content_type != "application/x-www-form-urlencoded":
        raise BadRequest("this address takes a form, not " + request.content_type[:80])
    try:
        fields = await request.post()
    except web.HTTPRequestEntityTooLarge:
        raise TooLarge(f"the form is larger than {MAX_FORM // 1024} KiB") from None
    except ValueError:
        raise BadRequest("the form could not be read") from None
    if len(fields) > MAX_FIELDS:
        raise BadRequest(f"the form has more than {MAX_FIELDS} fields")
    if cookie is not None:
        given = str(fields.get("token", ""))
        if not hmac.compare_digest(given.encode(), form_token(cookie).encode()):
            raise Forbidden("this form is from an earlier sign-in; load the page again and repeat it")
    return fields  # type: ignore[return-value]  # urlencoded forms hold text alone


def cookie_value(request: web.BaseRequest, name: str) -> str | None:
    """The one value of a cookie. A name that comes twice counts as none: somebody tossed the other."""
    found = [
        value
        for header in request.headers.getall(hdrs.COOKIE, [])
        for pair in header.split(";")
        for key, separator, value in [pair.strip(" \t").partition("=")]
        if separator and key == name
    ]
    return found[0] if len(found) == 1 and 0 < len(found[0]) <= 1024 else None


def set_cookie(response: web.StreamResponse, name: str, value: str, *, max_age: int) -> None:
    """A host-only cookie that scripts cannot read; `max_age` seconds, 0 ends it."""
    response.set_cookie(name, value, max_age=max_age, path="/", secure=True, httponly=True, samesite="Lax")
