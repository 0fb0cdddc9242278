"""Who is in a workspace, as what, and bringing in others."""

from aiohttp import web

from portico_gateway.auth.values import Role
from portico_gateway.errors import BadRequest, Conflict, Forbidden, PorticoError
from portico_gateway.web.doors import Invitation
from portico_gateway.web.site import Site, Visitor, go, posted, show, signed_in, workspace


def routes(site: Site) -> list[web.RouteDef]:
    return [
        web.get(r"/w/{workspace_id:\d+}/members", signed_in(site, members_page)),
        web.post(r"/w/{workspace_id:\d+}/members", signed_in(site, invite)),
        web.post(r"/w/{workspace_id:\d+}/members/{user_id:\d{1,18}}/role", signed_in(site, set_role)),
        web.post(r"/w/{workspace_id:\d+}/members/{user_id:\d{1,18}}/remove", signed_in(site, remove)),
    ]


async def members_page(site: Site, request: web.Request, visitor: Visitor) -> web.StreamResponse:
    return await _members(site, request, visitor)


async def invite(site: Site, request: web.Request, visitor: Visitor) -> web.StreamResponse:
    """The answer shows the link itself, this once: nothing keeps it but its hash."""
    here, _ = await workspace(site, request, visitor)
    fields = await posted(request, visitor)
    email = fields.get("email", "").strip()
    try:
        if not 3 <= len(email) <= 254 or email.count("@") != 1 or email.startswith("@") or email.endswith("@"):
            raise BadRequest("that is not an e-mail address")
        made = await site.people.invite(visitor.actor, here.id, email, _role(fields.get("role", "")))
    except (BadRequest, Conflict, Forbidden) as error:
        return await _members(site, request, visitor, error=error, email=email)
    return await _members(site, request, visitor, invitation=made)


async def set_role(site: Site, request: web.Request, visitor: Visitor) -> web.StreamResponse:
    here, _ = await workspace(site, request, visitor)
    fields = await posted(request, visitor)
    try:
        await site.people.set_role(visitor.actor, here.id, _user_id(request), _role(fields.get("role", "")))
    except (BadRequest, Conflict, Forbidden) as error:
        return await _members(site, request, visitor, error=error)
    return go(f"/w/{here.id}/members", "role")


async def remove(site: Site, request: web.Request, visitor: Visitor) -> web.StreamResponse:
    here, _ = await workspace(site, request, visitor)
    await posted(request, visitor)
    try:
        await site.people.remove_member(visitor.actor, here.id, _user_id(request))
    except (BadRequest, Conflict, Forbidden) as error:
        return await _members(site, request, visitor, error=error)
    if _user_id(request) == visitor.actor.user.id:
        return go("/")
    return go(f"/w/{here.id}/members", "removed")


async def _members(
    site: Site,
    request: web.Request,
    visitor: Visitor,
    *,
    invitation: Invitation | None = None,
    error: PorticoError | None = None,
    email: str = "",
) -> web.Response:
    here, role = await workspace(site, request, visitor)
    members = await site.people.members(visitor.actor, here.id)
    return show(
        site,
        request,
        visitor,
        "members.html",
        status=error.status if error else 200,
        here=here,
        section="members",
        members=sorted(members, key=lambda m: (-m.role, m.user.user_name)),
        role=role,
        may_change=role >= Role.ADMIN,
        grantable=[r for r in Role if r <= role],
        invitation=invitation,
        problem=error.message if error else None,
        email=email,
    )


def _role(raw: str) -> Role:
    try:
        return Role[raw.upper()]
    except KeyError:
        raise BadRequest("choose a role from the list") from None


def _user_id(request: web.Request) -> int:
    return int(request.match_info["user_id"])
