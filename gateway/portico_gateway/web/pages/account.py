"""One's own account: tokens, sign-ins, password."""

from typing import Any

from aiohttp import web

from portico_gateway.errors import BadRequest, Conflict, Forbidden, PorticoError, TooMany, Unauthenticated
from portico_gateway.web.pages.sign_in import MAX_PASSWORD, MIN_PASSWORD
from portico_gateway.web.site import Site, Visitor, go, posted, show, signed_in

TOKEN_DAYS = (30, 90, 365)


def routes(site: Site) -> list[web.RouteDef]:
    return [
        web.get("/account", signed_in(site, account)),
        web.post("/account/tokens", signed_in(site, make_token)),
        web.post(r"/account/tokens/{token_id:\d{1,18}}/delete", signed_in(site, delete_token)),
        web.post(r"/account/sign-ins/{sign_in_id:\d{1,18}}/end", signed_in(site, end_sign_in)),
        web.post("/account/password", signed_in(site, change_password)),
    ]


async def account(site: Site, request: web.Request, visitor: Visitor) -> web.StreamResponse:
    return await _account(site, request, visitor)


async def make_token(site: Site, request: web.Request, visitor: Visitor) -> web.StreamResponse:
    """The answer shows the token, this once: nothing keeps it but its hash."""
    fields = await posted(request, visitor)
    name, days = " ".join(fields.get("name", "").split()), fields.get("days", "")
    try:
        if not 1 <= len(name) <= 80:
            raise BadRequest("a token's name has 1 to 80 characters; say what it is for")
        if days and days not in map(str, TOKEN_DAYS):
            raise BadRequest("choose how long the token counts from the list")
        made = await site.auth.make_token(visitor.actor, name, int(days) if days else None)
    except (BadRequest, Conflict) as error:
        return await _account(site, request, visitor, error, token_name=name)
    return await _account(site, request, visitor, made=made, made_name=name)


async def delete_token(site: Site, request: web.Request, visitor: Visitor) -> web.StreamResponse:
    await posted(request, visitor)
    await site.auth.delete_token(visitor.actor, int(request.match_info["token_id"]))
    return go("/account", "token-deleted")


async def end_sign_in(site: Site, request: web.Request, visitor: Visitor) -> web.StreamResponse:
    await posted(request, visitor)
    await site.auth.end_sign_in(visitor.actor, int(request.match_info["sign_in_id"]))
    return go("/account", "signed-out")


async def change_password(site: Site, request: web.Request, visitor: Visitor) -> web.StreamResponse:
    fields = await posted(request, visitor)
    old, new = fields.get("old", ""), fields.get("password", "")
    try:
        if not MIN_PASSWORD <= len(new) <= MAX_PASSWORD or len(old) > MAX_PASSWORD:
            raise BadRequest(f"a password has {MIN_PASSWORD} to {MAX_PASSWORD} characters; a sentence works well")
        if new != fields.get("again", ""):
            raise BadRequest("the two new passwords differ; type them again")
        await site.auth.change_password(visitor.actor, old, new)
    except (BadRequest, Forbidden, Unauthenticated, TooMany) as error:
        return await _account(site, request, visitor, error)
    return go("/account", "password")


async def _account(
    site: Site, request: web.Request, visitor: Visitor, error: PorticoError | None = None, **values: Any
) -> web.Response:
    shown = {"made": None, "made_name": "", "token_name": "", **values}
    return show(
        site,
        request,
        visitor,
        "account.html",
        status=error.status if error else 200,
        section="account",
        problem=error.message if error else None,
        tokens=await site.auth.tokens(visitor.actor),
        sign_ins=await site.auth.sign_ins(visitor.actor),
        token_days=TOKEN_DAYS,
        min_password=MIN_PASSWORD,
        **shown,
    )
