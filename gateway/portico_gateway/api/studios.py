"""Routes of studios and their checkpoints."""

from aiohttp import web

from portico_gateway.api import answers, bodies
from portico_gateway.api.doors import Parts
from portico_gateway.api.requests import (
    MAX_OFFSET,
    body,
    number,
    page_of,
    text,
    window,
    words,
    workspace_id,
)
from portico_gateway.api.table import Route, answer
from portico_gateway.auth.permissions import NO_STUDIO
from portico_gateway.auth.values import Action, Actor
from portico_gateway.errors import BadRequest, NotFound
from portico_gateway.studios.values import (
    Configuration,
    ForkStudio,
    NewStudio,
    StartOverride,
    StudioChange,
    StudioView,
)
from portico_shared.ids import is_session_id


async def view_of(parts: Parts, request: web.Request, actor: Actor) -> StudioView:
    """The studio of the path; a workspaceId that is not its own means it is not there."""
    session_id = request.match_info["sessionId"]
    if not is_session_id(session_id):
        raise NotFound(NO_STUDIO)
    wanted = number(request, "workspaceId", 0, 2**63 - 1) or None
    return await parts.studios.describe(actor, session_id, wanted)


async def _dto(parts: Parts, view: StudioView) -> answers.StudioDto:
    return answers.studio(view, await parts.rights.users(view.allowed_user_ids) if view.allowed_user_ids else {})


def _configuration(given: bodies.ConfigurationBody | None, base: Configuration) -> Configuration:
    """`base` with what was given. Raises BadRequest for what this Portico does not do."""
    if given is None:
        return base
    if given.mount_data or given.mount_data_v2:
        raise BadRequest("mounted data is not available in this Portico yet: leave mountData and mountDataV2 empty")
    environment = base.environment if given.environment is None else tuple(given.environment.items())
    return Configuration(
        cpu=base.cpu if given.cpu is None else given.cpu,
        gpu=base.gpu if given.gpu is None else given.gpu,
        memory=base.memory if given.memory is None else given.memory,
        lifespan_hours=base.lifespan_hours if given.lifespan_hours is None else given.lifespan_hours,
        conda_environment=given.conda_environment or base.conda_environment,
        environment=environment,
        ssh_enabled=base.ssh_enabled if given.ssh_enabled is None else given.ssh_enabled,
    )


async def list_studios(parts: Parts, request: web.Request, actor: Actor) -> web.StreamResponse:
    where, (offset, limit) = await workspace_id(parts, request, actor), window(request)
    page = await parts.studios.list_studios(actor, where, search=text(request, "search"), offset=offset, limit=limit)
    named = {user for view in page.studios for user in view.allowed_user_ids}
    users = await parts.rights.users(named) if named else {}
    labels = "labels" in words(request, "attributes")
    studios = [answers.studio(view, users, labels=labels) for view in page.studios]
    return answer(answers.StudioList(studios=studios, total_size=page.total))


async def create(parts: Parts, request: web.Request, actor: Actor) -> web.StreamResponse:
    given = await body(request, bodies.CreateStudio)
    where = await workspace_id(parts, request, actor)
    start = text(request, "autoStart", "true").lower()
    if start not in ("true", "false"):
        raise BadRequest("autoStart is true or false")
    if given.remote_config is not None:
        raise BadRequest("remoteConfig is not available in this Portico yet")
    base = Configuration(lifespan_hours=parts.settings.lifespan_hours)
    new = NewStudio(
        name=given.name,
        template=given.data_studio_tool_url or parts.studios.templates()[0].repository,
        compute_env_id=given.compute_env_id,
        configuration=_configuration(given.configuration, base),
        description=given.description or "",
        is_private=given.is_private,
        allowed_user_ids=tuple(given.allowed_user_ids or ()),
        label_ids=tuple(given.label_ids or ()),
        initial_checkpoint_id=given.initial_checkpoint_id,
    )
    view = await parts.studios.add(actor, where, new, start=start == "true")
    return answer(answers.StudioAnswer(studio=await _dto(parts, view)), 201)


async def validate(parts: Parts, request: web.Request, actor: Actor) -> web.StreamResponse:
    await parts.studios.validate_name(actor, await workspace_id(parts, request, actor), text(request, "name"))
    return answer(None)


async def templates(parts: Parts, request: web.Request, actor: Actor) -> web.StreamResponse:
    await parts.rights.authorise(actor, Action.STUDIO_READ, await workspace_id(parts, request, actor))
    found = [answers.template(each) for each in parts.studios.templates()]
    return answer(answers.TemplateList(templates=page_of(request, found), total_size=len(found)))


async def mounted_data_links(parts: Parts, request: web.Request, actor: Actor) -> web.StreamResponse:
    await parts.rights.authorise(actor, Action.STUDIO_EXECUTE, await workspace_id(parts, request, actor))
    return answer({"dataLinkIds": []})


async def describe(parts: Parts, request: web.Request, actor: Actor) -> web.StreamResponse:
    return answer(await _dto(parts, await view_of(parts, request, actor)))


async def update(parts: Parts, request: web.Request, actor: Actor) -> web.StreamResponse:
    given = await body(request, bodies.UpdateStudio)
    view = await view_of(parts, request, actor)
    change = StudioChange(
        name=given.name,
        description=given.description,
        configuration=_configuration(given.configuration, view.configuration) if given.configuration else None,
        label_ids=tuple(given.label_ids) if given.label_ids is not None else None,
        compute_env_id=given.compute_env_id,
        is_private=given.is_private,
        allowed_user_ids=tuple(given.allowed_user_ids) if given.allowed_user_ids is not None else None,
    )
    return answer(await _dto(parts, await parts.studios.update(actor, view.session_id, change)))


async def delete(parts: Parts, request: web.Request, actor: Actor) -> web.StreamResponse:
    view = await view_of(parts, request, actor)
    await parts.studios.delete(actor, view.session_id)
    return answer(None)


def _submitted(view: StudioView) -> answers.Submitted:
    return answers.Submitted(job_submitted=True, session_id=view.session_id, status_info=answers.status_info(view))


async def start(parts: Parts, request: web.Request, actor: Actor) -> web.StreamResponse:
    given = await body(request, bodies.StartStudio, optional=True)
    view = await view_of(parts, request, actor)
    override = None
    if given.configuration is not None or given.checkpoint_id is not None:
        changed = _configuration(given.configuration, view.configuration) if given.configuration else None
        override = StartOverride(configuration=changed, checkpoint_id=given.checkpoint_id)
    change = StudioChange(
        name=given.name,
        description=given.description,
        label_ids=tuple(given.label_ids) if given.label_ids is not None else None,
        allowed_user_ids=tuple(given.allowed_user_ids) if given.allowed_user_ids is not None else None,
    )
    if change != StudioChange():
        await parts.studios.update(actor, view.session_id, change)
    return answer(_submitted(await parts.studios.start(actor, view.session_id, override)))


async def stop(parts: Parts, request: web.Request, actor: Actor) -> web.StreamResponse:
    view = await view_of(parts, request, actor)
    return answer(_submitted(await parts.studios.stop(actor, view.session_id)))


async def extend(parts: Parts, request: web.Request, actor: Actor) -> web.StreamResponse:
    view = await view_of(parts, request, actor)
    return answer(await _dto(parts, await parts.studios.extend(actor, view.session_id)))


async def fork(parts: Parts, request: web.Request, actor: Actor) -> web.StreamResponse:
    given = await body(request, bodies.ForkStudioBody, optional=True)
    view = await view_of(parts, request, actor)
    new = ForkStudio(
        name=given.name,
        description=given.description,
        configuration=_configuration(given.configuration, view.configuration) if given.configuration else None,
        is_private=given.is_private,
        label_ids=tuple(given.label_ids or ()),
        start=given.start,
    )
    made = await parts.studios.fork(actor, view.session_id, given.checkpoint_id, new)
    return answer(answers.StudioAnswer(studio=await _dto(parts, made)), 202)


async def compatible_ce(parts: Parts, request: web.Request, actor: Actor) -> web.StreamResponse:
    await view_of(parts, request, actor)
    resources = "resources" in words(request, "attributes")
    found = [answers.environment(each, resources=resources) for each in parts.studios.compute_envs()]
    return answer({"computeEnvs": found})


async def logs(parts: Parts, request: web.Request, actor: Actor) -> web.StreamResponse:
    view = await view_of(parts, request, actor)
    stream = text(request, "stream", "all")
    if stream not in ("all", "agent", "tool", "build"):
        raise BadRequest("stream is all, agent, tool or build")
    chunk = await parts.studios.logs(
        actor, view.session_id, stream=stream, offset=number(request, "offset", 0, MAX_OFFSET)
    )
    return answer(answers.LogAnswer(text=chunk.text, next_offset=chunk.next_offset, ended=chunk.ended))


W = ("workspaceId",)
P = ("workspaceId", "max", "offset", "search")
S = "/studios/{sessionId}"
Dto = answers.StudioDto
ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/studios",
        name="ListDataStudios",
        summary="List studios",
        handler=list_studios,
        answer=answers.StudioList,
        query=(*P, "attributes"),
    ),
    Route(
        method="POST",
        path="/studios",
        name="CreateDataStudio",
        summary="Add a studio",
        handler=create,
        body=bodies.CreateStudio,
        answer=answers.StudioAnswer,
        status=201,
        query=("workspaceId", "autoStart"),
    ),
    Route(
        method="GET",
        path="/studios/data-links",
        name="ListMountedDataLinkIds",
        summary="Mounted data links",
        handler=mounted_data_links,
        query=("orgId", "workspaceId", "status", "exclude"),
    ),
    Route(
        method="GET",
        path="/studios/templates",
        name="ListDataStudioTemplates",
        summary="List templates",
        handler=templates,
        answer=answers.TemplateList,
        query=P[:3],
    ),
    Route(
        method="GET",
        path="/studios/validate",
        name="ValidateDataStudioName",
        summary="Check a name",
        handler=validate,
        answer=None,
        status=204,
        query=("workspaceId", "name"),
    ),
    Route(
        method="GET",
        path=S,
        name="DescribeDataStudio",
        summary="Describe a studio",
        handler=describe,
        answer=Dto,
        query=W,
    ),
    Route(
        method="PUT",
        path=S,
        name="UpdateDataStudio",
        summary="Edit a studio",
        handler=update,
        body=bodies.UpdateStudio,
        answer=Dto,
        query=W,
    ),
    Route(
        method="DELETE",
        path=S,
        name="DeleteDataStudio",
        summary="Delete a studio",
        handler=delete,
        conflict=400,
        answer=None,
        status=204,
        query=W,
    ),
    Route(
        method="PUT",
        path=S + "/start",
        name="StartDataStudio",
        summary="Start a studio",
        handler=start,
        body=bodies.StartStudio,
        answer=answers.Submitted,
        query=W,
    ),
    Route(
        method="PUT",
        path=S + "/stop",
        name="StopDataStudio",
        summary="Stop a studio",
        handler=stop,
        answer=answers.Submitted,
        query=W,
    ),
    Route(
        method="POST",
        path=S + "/lifespan",
        name="ExtendDataStudioLifespan",
        summary="Extend the lifespan",
        handler=extend,
        conflict=400,
        answer=Dto,
        query=W,
    ),
    Route(
        method="POST",
        path=S + "/fork",
        name="ForkStudio",
        summary="Add as new, from a checkpoint or from now",
        handler=fork,
        body=bodies.ForkStudioBody,
        answer=answers.StudioAnswer,
        status=202,
        query=W,
    ),
    Route(
        method="GET",
        path=S + "/compatible-ce",
        name="ListDataStudioCompatibleComputeEnvs",
        summary="Compute environments it can move to",
        handler=compatible_ce,
        query=("workspaceId", "attributes"),
    ),
    Route(
        method="GET",
        path=S + "/logs",
        name="StudioLogs",
        summary="The latest run's log",
        handler=logs,
        answer=answers.LogAnswer,
        query=("workspaceId", "offset", "stream"),
    ),
)
