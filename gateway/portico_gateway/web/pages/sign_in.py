"""Signing in and out, and the one-use links that set a first or a new password."""

from aiohttp import web

from portico_gateway.errors import BadRequest, PorticoError, TooMany, Unauthenticated
from portico_gateway.link.messages import SESSION_COOKIE
from portico_gateway.web.locations import safe_path, studio_of
from portico_gateway.web.security import cookie_value, read_form, set_cookie
from portico_gateway.web.site import Site, find_visitor, peer, redirect, show, user_agent

MAX_LOGIN = 254
MAX_PASSWORD = 256
MIN_PASSWORD = 10
MAX_SECRET = 200


def routes(site: Site) -> list[web.RouteDef]:
    async def sign_in_page(request: web.Request) -> web.StreamResponse:
        wanted = safe_path(request.query.get("next"))
        if await find_visitor(site, request) is not None:
            return redirect(wanted or "/")
        return _sign_in(site, request, wanted)

    async def sign_in(request: web.Request) -> web.StreamResponse:
        fields = await read_form(request, None)
        wanted = safe_path(fields.get("next"))
        login = fields.get("login", "").strip()[: MAX_LOGIN + 1]
        password = fields.get("password", "")
        try:
            if not login or not password or len(login) > MAX_LOGIN or len(password) > MAX_PASSWORD:
                raise Unauthenticated("user name and password do not match an account")
            cookie = await site.auth.sign_in(login, password, peer=peer(request), agent=user_agent(request))
        except (Unauthenticated, TooMany) as error:
            return _sign_in(site, request, wanted, status=error.status, problem=error.message, login=login)
        return _signed_in(site, cookie, wanted or "/")

    async def sign_out(request: web.Request) -> web.StreamResponse:
        cookie = cookie_value(request, SESSION_COOKIE)
        await read_form(request, cookie)
        if cookie is not None:
            await site.auth.sign_out(cookie)
        response = redirect("/sign-in?said=bye")
        set_cookie(response, SESSION_COOKIE, "", max_age=0)
        return response

    async def link_page(request: web.Request) -> web.StreamResponse:
        return await _link(site, request)

    async def use_link(request: web.Request) -> web.StreamResponse:
        fields = await read_form(request, None)
        try:
            password = _chosen_password(fields.get("password", ""), fields.get("again", ""))
            cookie = await site.auth.use_link(
                _secret(request),
                password=password,
                display_name=fields.get("display_name", "").strip()[:128],
                peer=peer(request),
                agent=user_agent(request),
            )
        except BadRequest as error:
            return await _link(site, request, error)
        return _signed_in(site, cookie, "/")

    return [
        web.get("/sign-in", sign_in_page),
        web.post("/sign-in", sign_in),
        web.post("/sign-out", sign_out),
        web.get("/link/{secret}", link_page),
        web.post("/link/{secret}", use_link),
    ]


def _sign_in(
    site: Site,
    request: web.Request,
    wanted: str | None,
    *,
    status: int = 200,
    problem: str | None = None,
    login: str = "",
) -> web.Response:
    studio = studio_of(wanted)
    address = site.settings.studio_url(studio).partition("://")[2] if studio else ""
    return show(
        site,
        request,
        None,
        "sign_in.html",
        status=status,
        wanted=wanted or "",
        address=address,
        problem=problem,
        login=login,
    )


def _signed_in(site: Site, cookie: str, location: str) -> web.Response:
    response = redirect(location)
    set_cookie(response, SESSION_COOKIE, cookie, max_age=site.settings.session_hours * 3600)
    return response


async def _link(site: Site, request: web.Request, error: PorticoError | None = None) -> web.Response:
    link = await site.auth.link(_secret(request))
    return show(
        site,
        request,
        None,
        "link.html",
        status=error.status if error else 200,
        link=link,
        problem=error.message if error else None,
        min_password=MIN_PASSWORD,
    )


def _secret(request: web.Request) -> str:
    return request.match_info["secret"][:MAX_SECRET]


def _chosen_password(password: str, again: str) -> str:
    if len(password) < MIN_PASSWORD:
        raise BadRequest(f"a password has at least {MIN_PASSWORD} characters; a sentence works well")
    if len(password) > MAX_PASSWORD:
        raise BadRequest(f"a password has at most {MAX_PASSWORD} characters")
    if password != again:
        raise BadRequest("the two passwords differ; type them again")
    return password
