"""Routes of people, tokens, labels, compute environments and workspace settings."""

from aiohttp import web

from portico_gateway import __version__
from portico_gateway.api import answers, bodies
from portico_gateway.api.doors import Parts
from portico_gateway.api.requests import MAX_BODY, body, page_of, path_number, text, workspace_id
from portico_gateway.api.table import Route, answer
from portico_gateway.auth.values import Action, Actor, Label, Role
from portico_gateway.errors import BadRequest, Gone, NotFound

API_VERSION = "1.187.0"
"""The version of Seqera's API whose studio part this follows."""


async def service_info(parts: Parts, request: web.Request, actor: Actor) -> web.StreamResponse:
    info = {
        "version": __version__,
        "apiVersion": API_VERSION,
        "commitId": "",
        "authTypes": ["credentials"],
        "loginPath": "/sign-in",
        "navbar": {"menus": []},
        "heartbeatInterval": 60,
        "userWorkspaceEnabled": False,
        "allowLocalRepos": False,
        "waveEnabled": False,
        "landingUrl": parts.settings.base_url,
        "contentMaxFileSize": MAX_BODY,
    }
    return answer({"serviceInfo": info})


async def user_info(parts: Parts, request: web.Request, actor: Actor) -> web.StreamResponse:
    me = actor.user
    found = await parts.people.workspaces(actor)
    info = {
        "id": me.id,
        "userName": me.user_name,
        "email": me.email,
        "firstName": me.display_name,
        "lastName": "",
        "avatar": answers.avatar(me),
        "deleted": False,
    }
    return answer({"user": info, "needConsent": False, "defaultWorkspaceId": found[0].id if found else None})


async def user_workspaces(parts: Parts, request: web.Request, actor: Actor) -> web.StreamResponse:
    if path_number(request, "userId") != actor.user.id:
        raise NotFound("no such user")
    rows = []
    for each in await parts.people.workspaces(actor):
        role = await parts.people.role(actor, each.id)
        rows.append(answers.workspace(each, [role.label] if role else []))
    return answer({"orgsAndWorkspaces": rows})


async def org_members(parts: Parts, request: web.Request, actor: Actor) -> web.StreamResponse:
    org_id, wanted = path_number(request, "orgId"), text(request, "search").casefold()
    rows: dict[int, dict[str, object]] = {}
    mine = [w for w in await parts.people.workspaces(actor) if w.org_id == org_id]
    if not mine:
        raise NotFound("no such organisation")
    for each in mine:
        for member in await parts.people.members(actor, each.id):
            if wanted in member.user.user_name or wanted in member.user.email:
                rows.setdefault(member.user.id, answers.member(member))
    return answer({"members": page_of(request, list(rows.values())), "totalSize": len(rows)})


async def list_members(parts: Parts, request: web.Request, actor: Actor) -> web.StreamResponse:
    found = await parts.people.members(actor, path_number(request, "workspaceId"))
    return answer({"members": [answers.member(each) for each in found], "totalSize": len(found)})


def _role(name: str) -> Role:
    try:
        return Role[name.upper()]
    except KeyError:
        raise BadRequest(f"role is one of {', '.join(r.label for r in Role)}") from None


async def invite_member(parts: Parts, request: web.Request, actor: Actor) -> web.StreamResponse:
    given = await body(request, bodies.InviteMember)
    made = await parts.people.invite(actor, path_number(request, "workspaceId"), given.email, _role(given.role))
    return answer({"memberId": made.user.id, "userName": made.user.user_name, "url": made.url or None}, 201)


async def change_member(parts: Parts, request: web.Request, actor: Actor) -> web.StreamResponse:
    given = await body(request, bodies.ChangeRole)
    where, who = path_number(request, "workspaceId"), path_number(request, "userId")
    await parts.people.set_role(actor, where, who, _role(given.role))
    return answer(None)


async def remove_member(parts: Parts, request: web.Request, actor: Actor) -> web.StreamResponse:
    await parts.people.remove_member(actor, path_number(request, "workspaceId"), path_number(request, "userId"))
    return answer(None)


async def list_tokens(parts: Parts, request: web.Request, actor: Actor) -> web.StreamResponse:
    rows = [
        {
            "id": t.id,
            "name": t.name,
            "dateCreated": answers.when(t.created),
            "lastUsed": answers.when(t.last_used),
            "expires": answers.when(t.expires),
        }
        for t in await parts.auth.tokens(actor)
    ]
    return answer({"tokens": rows})


async def create_token(parts: Parts, request: web.Request, actor: Actor) -> web.StreamResponse:
    given = await body(request, bodies.CreateToken)
    secret = await parts.auth.make_token(actor, given.name, given.days)
    made = next((t for t in await parts.auth.tokens(actor) if t.name == given.name.strip()), None)
    if made is None:
        raise Gone("this token was deleted at the same time")
    row = {"id": made.id, "name": made.name, "dateCreated": answers.when(made.created)}
    return answer({"accessKey": secret, "token": row}, 201)


async def delete_token(parts: Parts, request: web.Request, actor: Actor) -> web.StreamResponse:
    await parts.auth.delete_token(actor, path_number(request, "tokenId"))
    return answer(None)


async def list_compute_envs(parts: Parts, request: web.Request, actor: Actor) -> web.StreamResponse:
    await parts.rights.authorise(actor, Action.STUDIO_READ, await workspace_id(parts, request, actor))
    wanted = text(request, "status")
    found = [answers.environment(env) for env in parts.studios.compute_envs() if not wanted or env.status == wanted]
    return answer({"computeEnvs": found})


async def describe_compute_env(parts: Parts, request: web.Request, actor: Actor) -> web.StreamResponse:
    await parts.rights.authorise(actor, Action.STUDIO_READ, await workspace_id(parts, request, actor))
    for env in parts.studios.compute_envs():
        if env.id == request.match_info["computeEnvId"]:
            return answer({"computeEnv": answers.environment(env)})
    raise NotFound("no such compute environment")


async def data_links(parts: Parts, request: web.Request, actor: Actor) -> web.StreamResponse:
    await parts.rights.authorise(actor, Action.STUDIO_READ, await workspace_id(parts, request, actor))
    return answer({"dataLinks": [], "totalSize": 0})


def _label(found: Label) -> answers.LabelDto:
    return answers.LabelDto(id=found.id, name=found.name, value=found.value, date_created=answers.when(found.created))


async def list_labels(parts: Parts, request: web.Request, actor: Actor) -> web.StreamResponse:
    where, wanted = await workspace_id(parts, request, actor), text(request, "search")
    rows = [_label(each) for each in await parts.labels.of_workspace(actor, where, wanted)]
    return answer({"labels": page_of(request, rows), "totalSize": len(rows)})


async def create_label(parts: Parts, request: web.Request, actor: Actor) -> web.StreamResponse:
    given = await body(request, bodies.CreateLabel)
    where = await workspace_id(parts, request, actor)
    return answer(_label(await parts.labels.add(actor, where, given.name, given.value)))


W = ("workspaceId",)
M = "/workspaces/{workspaceId}/members"
ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/service-info",
        name="ServiceInfo",
        summary="What answers here",
        handler=service_info,
        public=True,
    ),
    Route(method="GET", path="/user-info", name="UserInfo", summary="Who I am", handler=user_info),
    Route(
        method="GET",
        path="/user/{userId}/workspaces",
        name="ListWorkspacesUser",
        summary="My workspaces",
        handler=user_workspaces,
    ),
    Route(
        method="GET",
        path="/orgs/{orgId}/members",
        name="ListOrganizationMembers",
        summary="Members",
        handler=org_members,
        query=("search", "max", "offset"),
    ),
    Route(
        method="GET",
        path="/orgs/{orgId}/collaborators",
        name="ListOrganizationCollaborators",
        summary="Members, as collaborators",
        handler=org_members,
        query=("search", "max", "offset"),
    ),
    Route(method="GET", path=M, name="ListMembers", summary="Members of a workspace", handler=list_members),
    Route(
        method="POST",
        path=M,
        name="InviteMember",
        summary="Invite somebody",
        handler=invite_member,
        body=bodies.InviteMember,
        status=201,
    ),
    Route(
        method="PUT",
        path=M + "/{userId}",
        name="ChangeMember",
        summary="Change a role",
        handler=change_member,
        body=bodies.ChangeRole,
        answer=None,
        status=204,
    ),
    Route(
        method="DELETE",
        path=M + "/{userId}",
        name="RemoveMember",
        summary="Remove a member",
        handler=remove_member,
        answer=None,
        status=204,
    ),
    Route(method="GET", path="/tokens", name="TokenList", summary="My tokens", handler=list_tokens),
    Route(
        method="POST",
        path="/tokens",
        name="CreateToken",
        summary="A new token, shown once",
        handler=create_token,
        body=bodies.CreateToken,
        status=201,
    ),
    Route(
        method="DELETE",
        path="/tokens/{tokenId}",
        name="DeleteToken",
        summary="Delete a token",
        handler=delete_token,
        answer=None,
        status=204,
    ),
    Route(
        method="GET",
        path="/compute-envs",
        name="ListComputeEnvs",
        summary="Compute environments",
        handler=list_compute_envs,
        query=("workspaceId", "status"),
    ),
    Route(
        method="GET",
        path="/compute-envs/{computeEnvId}",
        name="DescribeComputeEnv",
        summary="A compute environment",
        handler=describe_compute_env,
        query=W,
    ),
    Route(
        method="GET",
        path="/data-links",
        name="ListDataLinks",
        summary="Data links",
        handler=data_links,
        query=("workspaceId", "search", "max", "offset"),
    ),
    Route(
        method="GET",
        path="/labels",
        name="ListLabels",
        summary="Labels",
        handler=list_labels,
        query=("workspaceId", "search", "max", "offset"),
    ),
    Route(
        method="POST",
        path="/labels",
        name="CreateLabel",
        summary="A new label",
        handler=create_label,
        body=bodies.CreateLabel,
        answer=answers.LabelDto,
        query=W,
    ),
)
