"""A studio's settings: its name, its machine, its time; and the end of it."""

from collections.abc import Mapping

from aiohttp import web

from portico_gateway.errors import BadRequest, Conflict, PorticoError
from portico_gateway.studios.values import StudioChange
from portico_gateway.web import forms
from portico_gateway.web.pages.open import show_state
from portico_gateway.web.site import Site, Visitor, go, must, posted, signed_in, studio


def routes(site: Site) -> list[web.RouteDef]:
    return [
        web.get("/studios/{session_id}/settings", signed_in(site, settings_page)),
        web.post("/studios/{session_id}/settings", signed_in(site, change)),
    ]


async def settings_page(site: Site, request: web.Request, visitor: Visitor) -> web.StreamResponse:
    return await _settings(site, request, visitor, {})


async def change(site: Site, request: web.Request, visitor: Visitor) -> web.StreamResponse:
    view = await studio(site, request, visitor)
    fields = await posted(request, visitor)
    must(view, "edit")
    try:
        wanted = StudioChange(
            name=forms.name(fields),
            description=forms.description(fields),
            configuration=forms.configuration(fields, view.configuration),
            is_private="private" in fields,
        )
        await site.studios.update(visitor.actor, view.session_id, wanted)
    except (BadRequest, Conflict) as error:
        return await _settings(site, request, visitor, fields, error)
    return go(f"/studios/{view.session_id}/settings", "saved")


async def _settings(
    site: Site,
    request: web.Request,
    visitor: Visitor,
    fields: Mapping[str, str],
    error: PorticoError | None = None,
) -> web.Response:
    view = await studio(site, request, visitor)
    response = show_state(
        site,
        request,
        visitor,
        view,
        "settings.html",
        tab="settings",
        fields=fields,
        problem=error.message if error else None,
        lifespans=forms.lifespans(view.configuration),
        environment_text=forms.environment_text(view.configuration.environment),
    )
    if error:
        response.set_status(error.status)
    return response
