"""Routes of studios' checkpoints."""

from aiohttp import web

from portico_gateway.api import answers, bodies
from portico_gateway.api.doors import Parts
from portico_gateway.api.requests import body, path_number, text, window
from portico_gateway.api.studios import view_of
from portico_gateway.api.table import Route, answer
from portico_gateway.auth.values import Actor


async def list_checkpoints(parts: Parts, request: web.Request, actor: Actor) -> web.StreamResponse:
    view = await view_of(parts, request, actor)
    offset, limit = window(request)
    page = await parts.studios.list_checkpoints(
        actor, view.session_id, search=text(request, "search"), offset=offset, limit=limit
    )
    rows = [answers.checkpoint(each) for each in page.checkpoints]
    return answer(answers.CheckpointList(checkpoints=rows, total_size=page.total))


async def make_checkpoint(parts: Parts, request: web.Request, actor: Actor) -> web.StreamResponse:
    given = await body(request, bodies.MakeCheckpointBody, optional=True)
    view = await view_of(parts, request, actor)
    return answer(answers.checkpoint(await parts.studios.checkpoint_now(actor, view.session_id, given.name)), 202)


async def describe_checkpoint(parts: Parts, request: web.Request, actor: Actor) -> web.StreamResponse:
    view = await view_of(parts, request, actor)
    found = await parts.studios.checkpoint(actor, view.session_id, path_number(request, "checkpointId"))
    return answer(answers.checkpoint(found))


async def rename_checkpoint(parts: Parts, request: web.Request, actor: Actor) -> web.StreamResponse:
    given = await body(request, bodies.RenameCheckpoint)
    view = await view_of(parts, request, actor)
    number_ = path_number(request, "checkpointId")
    return answer(
        answers.checkpoint(await parts.studios.rename_checkpoint(actor, view.session_id, number_, given.name))
    )


ALL = "/studios/{sessionId}/checkpoints"
ONE = ALL + "/{checkpointId}"
ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path=ALL,
        name="ListDataStudioCheckpoints",
        summary="List checkpoints",
        handler=list_checkpoints,
        answer=answers.CheckpointList,
        query=("workspaceId", "max", "offset", "search"),
    ),
    Route(
        method="POST",
        path=ALL,
        name="MakeStudioCheckpoint",
        summary="Checkpoint now",
        handler=make_checkpoint,
        body=bodies.MakeCheckpointBody,
        answer=answers.CheckpointDto,
        status=202,
        query=("workspaceId",),
    ),
    Route(
        method="GET",
        path=ONE,
        name="GetDataStudioCheckpoint",
        summary="Describe a checkpoint",
        handler=describe_checkpoint,
        answer=answers.CheckpointDto,
        query=("workspaceId",),
    ),
    Route(
        method="PUT",
        path=ONE,
        name="UpdateDataStudioCheckpoint",
        summary="Rename a checkpoint",
        handler=rename_checkpoint,
        body=bodies.RenameCheckpoint,
        answer=answers.CheckpointDto,
        query=("workspaceId",),
    ),
)
