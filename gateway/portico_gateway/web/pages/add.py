"""Adding a studio: tool, machine, name and time on one page, and the same page for a copy of a checkpoint."""

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from portico_gateway.auth.values import Role, Workspace
from portico_gateway.errors import BadRequest, Conflict, Forbidden, NotFound, PorticoError
from portico_gateway.studios.values import Configuration, ForkStudio, NewStudio
from portico_gateway.web import forms
from portico_gateway.web.site import (
    Site,
    Visitor,
    find_workspace,
    go,
    must,
    page_values,
    posted,
    show,
    signed_in,
    studio,
    workspace,
)


def routes(site: Site) -> list[web.RouteDef]:
    return [
        web.get(r"/w/{workspace_id:\d+}/add", signed_in(site, add_page)),
        web.post(r"/w/{workspace_id:\d+}/add", signed_in(site, add)),
        web.get(r"/w/{workspace_id:\d+}/add/summary", signed_in(site, summary)),
        web.get("/studios/{session_id}/copy", signed_in(site, copy_page)),
        web.post("/studios/{session_id}/copy", signed_in(site, copy)),
    ]


async def add_page(site: Site, request: web.Request, visitor: Visitor) -> web.StreamResponse:
    here = await _addable(site, request, visitor)
    return await _add(site, request, visitor, here, {})


async def add(site: Site, request: web.Request, visitor: Visitor) -> web.StreamResponse:
    here = await _addable(site, request, visitor)
    fields = await posted(request, visitor)
    start = fields.get("then") != "add"
    try:
        new = NewStudio(
            name=forms.name(fields),
            template=_one_of(fields.get("template", ""), _templates(site), "tool"),
            compute_env_id=_one_of(fields.get("compute", ""), _environments(site), "machine"),
            configuration=forms.configuration(fields, _defaults(site)),
            description=forms.description(fields),
            is_private="private" in fields,
        )
        made = await site.studios.add(visitor.actor, here.id, new, start=start)
    except (BadRequest, Conflict) as error:
        return await _add(site, request, visitor, here, fields, error)
    return go(f"/studios/{made.session_id}/open") if start else go(f"/w/{here.id}", "added")


async def summary(site: Site, request: web.Request, visitor: Visitor) -> web.StreamResponse:
    """The live summary beside the form, with what would be refused, before it is sent."""
    here = await _addable(site, request, visitor)
    values = await _summary(site, visitor, here, request.query, check=True)
    return site.renderer.html("_summary.html", page_values(site, request, visitor, **values))


async def copy_page(site: Site, request: web.Request, visitor: Visitor) -> web.StreamResponse:
    return await _copy(site, request, visitor, request.query)


async def copy(site: Site, request: web.Request, visitor: Visitor) -> web.StreamResponse:
    view = await studio(site, request, visitor)
    must(view, "fork")
    fields = await posted(request, visitor)
    start = fields.get("then") != "add"
    try:
        new = ForkStudio(
            name=forms.name(fields),
            description=forms.description(fields),
            configuration=forms.configuration(fields, view.configuration),
            is_private="private" in fields,
            start=start,
        )
        made = await site.studios.fork(visitor.actor, view.session_id, _checkpoint_id(fields), new)
    except (BadRequest, Conflict) as error:
        return await _copy(site, request, visitor, fields, error)
    return go(f"/studios/{made.session_id}/open") if start else go(f"/w/{view.workspace_id}", "copied")


async def _addable(site: Site, request: web.Request, visitor: Visitor) -> Workspace:
    here, role = await workspace(site, request, visitor)
    if role < Role.MAINTAIN:
        raise Forbidden(
            f"adding studios to {here.name} takes the role Maintain; yours is {role.label.capitalize()}. "
            "An administrator of the workspace can change it"
        )
    return here


async def _add(
    site: Site,
    request: web.Request,
    visitor: Visitor,
    here: Workspace,
    fields: Mapping[str, str],
    error: PorticoError | None = None,
) -> web.Response:
    values = await _summary(site, visitor, here, fields, check=False)
    return show(
        site,
        request,
        visitor,
        "add.html",
        status=error.status if error else 200,
        here=here,
        section="studios",
        problem=error.message if error else None,
        fields=fields,
        lifespans=forms.lifespans(_defaults(site)),
        **values,
    )


async def _copy(
    site: Site,
    request: web.Request,
    visitor: Visitor,
    fields: Mapping[str, str],
    error: PorticoError | None = None,
) -> web.Response:
    view = await studio(site, request, visitor)
    must(view, "fork")
    chosen = _checkpoint_id(fields)
    checkpoint = None
    if chosen is not None:
        checkpoint = await site.studios.checkpoint(visitor.actor, view.session_id, chosen)
    return show(
        site,
        request,
        visitor,
        "copy.html",
        status=error.status if error else 200,
        here=find_workspace(visitor, view),
        section="studios",
        problem=error.message if error else None,
        studio=view,
        checkpoint=checkpoint,
        fields=fields,
        lifespans=forms.lifespans(view.configuration),
    )


async def _summary(
    site: Site, visitor: Visitor, here: Workspace, fields: Mapping[str, str], *, check: bool
) -> dict[str, Any]:
    templates, environments = site.studios.templates(), site.studios.compute_envs()
    if not templates or not environments:
        raise NotFound("there is no tool or no machine to add a studio with; `portico doctor` says what is missing")
    defaults = _defaults(site)
    trouble: list[str] = []
    name, chosen = None, defaults
    try:
        chosen = forms.configuration(fields, defaults)
        name = forms.name(fields)
        if check and name is not None:
            await site.studios.validate_name(visitor.actor, here.id, name)
    except (BadRequest, Conflict) as error:
        trouble.append(error.message)
    return {
        "templates": templates,
        "environments": environments,
        "template": next((t for t in templates if t.repository == fields.get("template")), templates[0]),
        "environment": next((e for e in environments if e.id == fields.get("compute")), environments[0]),
        "chosen": chosen,
        "chosen_name": name,
        "private": "private" in fields,
        "trouble": trouble,
    }


def _defaults(site: Site) -> Configuration:
    """2 CPUs, 8 GiB; less where the machine is smaller, so that Enter alone is never refused."""
    machine = next(iter(site.studios.compute_envs()), None)
    plain = Configuration(lifespan_hours=site.settings.lifespan_hours)
    return Configuration(
        cpu=min(plain.cpu, machine.cpus) if machine and machine.cpus else plain.cpu,
        memory=min(plain.memory, machine.memory) if machine and machine.memory else plain.memory,
        lifespan_hours=plain.lifespan_hours,
    )


def _templates(site: Site) -> list[str]:
    return [template.repository for template in site.studios.templates()]


def _environments(site: Site) -> list[str]:
    return [environment.id for environment in site.studios.compute_envs()]


def _one_of(wanted: str, known: list[str], what: str) -> str:
    if not wanted and known:
        return known[0]
    if wanted not in known:
        raise BadRequest(f"choose a {what} from the list")
    return wanted


def _checkpoint_id(fields: Mapping[str, str]) -> int | None:
    text = fields.get("checkpoint", "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise BadRequest("that is not a checkpoint")
    return int(text)
