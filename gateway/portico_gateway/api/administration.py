"""Routes of a workspace's settings, and of what administrators of this Portico do."""

from aiohttp import web

from portico_gateway.api import answers, bodies
from portico_gateway.api.doors import Parts
from portico_gateway.api.requests import body, path_number
from portico_gateway.api.table import Route, answer
from portico_gateway.auth.values import Action, Actor, PolicyChange, Workspace
from portico_gateway.errors import NotFound


async def _workspace(parts: Parts, request: web.Request, actor: Actor) -> Workspace:
    org_id, where = path_number(request, "orgId"), path_number(request, "workspaceId")
    for each in await parts.people.workspaces(actor):
        if each.id == where and each.org_id == org_id:
            return each
    raise NotFound("no such workspace")


async def read_settings(parts: Parts, request: web.Request, actor: Actor) -> web.StreamResponse:
    where = await _workspace(parts, request, actor)
    policy = await parts.people.policy(actor, where.id)
    found = {
        "orgId": where.org_id,
        "wspId": where.id,
        "lifespanHours": policy.lifespan_hours,
        "privateStudioByDefault": policy.private_by_default,
        "launchMayStart": policy.launch_may_start,
        "containerRepository": None,
        "nameStrategy": None,
    }
    return answer(found)


async def write_settings(parts: Parts, request: web.Request, actor: Actor) -> web.StreamResponse:
    given = await body(request, bodies.WorkspaceSettings)
    where = await _workspace(parts, request, actor)
    change = PolicyChange(
        lifespan_hours=given.lifespan_hours if isinstance(given.lifespan_hours, int) else None,
        free_lifespan=given.lifespan_hours is None,
        private_by_default=given.private_studio_by_default,
        launch_may_start=given.launch_may_start,
    )
    await parts.people.change_policy(actor, where.id, change)
    return answer(None)


async def create_workspace(parts: Parts, request: web.Request, actor: Actor) -> web.StreamResponse:
    given = (await body(request, bodies.CreateWorkspace)).workspace
    await parts.rights.authorise(actor, Action.INSTANCE_ADMIN, 0)
    org_id = path_number(request, "orgId")
    if org_id not in {each.org_id for each in await parts.people.workspaces(actor)}:
        raise NotFound("no such organisation")
    made = await parts.people.add_workspace(actor, given.name, given.full_name or "", given.description or "")
    row = {
        "id": made.id,
        "name": made.name,
        "fullName": made.full_name,
        "description": made.description,
        "visibility": "PRIVATE",
    }
    return answer({"workspace": row}, 201)


async def change_account(parts: Parts, request: web.Request, actor: Actor) -> web.StreamResponse:
    given = await body(request, bodies.AccountState)
    await parts.people.set_disabled(actor, path_number(request, "userId"), given.disabled)
    return answer(None)


async def reset_link(parts: Parts, request: web.Request, actor: Actor) -> web.StreamResponse:
    made = await parts.people.reset_link(actor, path_number(request, "userId"))
    found = {"userName": made.user.user_name, "url": made.url, "expires": answers.when(made.expires)}
    return answer(found, 201)


SETTINGS = "/orgs/{orgId}/workspaces/{workspaceId}/settings/studios"
ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path=SETTINGS,
        name="FindDataStudiosWorkspaceSettings",
        summary="Studios settings",
        handler=read_settings,
    ),
    Route(
        method="PUT",
        path=SETTINGS,
        name="UpdateDataStudiosWorkspaceSettings",
        summary="Change studios settings",
        handler=write_settings,
        body=bodies.WorkspaceSettings,
        answer=None,
        status=204,
    ),
    Route(
        method="POST",
        path="/orgs/{orgId}/workspaces",
        name="CreateWorkspace",
        summary="A new workspace (administrators of this Portico)",
        handler=create_workspace,
        body=bodies.CreateWorkspace,
        status=201,
    ),
    Route(
        method="PUT",
        path="/user/{userId}",
        name="ChangeAccount",
        summary="Shut an account out, or let it in again (administrators of this Portico)",
        handler=change_account,
        body=bodies.AccountState,
        answer=None,
        status=204,
    ),
    Route(
        method="POST",
        path="/user/{userId}/reset-link",
        name="MakeResetLink",
        summary="A one-use link to set a new password (administrators of this Portico)",
        handler=reset_link,
        status=201,
    ),
)
