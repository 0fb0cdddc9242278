"""What the control process is made of, built bottom up from the settings and an open store."""

import asyncio
import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from portico_gateway.agentapi.credentials import RunCredentials
from portico_gateway.agentapi.tokens import RunTokens, load_key
from portico_gateway.auth.bootstrap import bootstrap
from portico_gateway.auth.edge_answers import EdgeAnswers
from portico_gateway.auth.keys import signing_key
from portico_gateway.auth.labels import LabelService
from portico_gateway.auth.links import OneUseLinks
from portico_gateway.auth.people import PeopleService
from portico_gateway.auth.revocations import Revocations
from portico_gateway.auth.rights import RightsService, Sharing
from portico_gateway.auth.service import AuthService
from portico_gateway.auth.studio_cookies import StudioCookies
from portico_gateway.compute.absent import AbsentCompute
from portico_gateway.compute.choice import Compute, open_compute, tools_folder
from portico_gateway.compute.local.tool_install import ToolInstaller
from portico_gateway.control_link import ControlLink, EdgeDoor
from portico_gateway.errors import PorticoError
from portico_gateway.objects.object_store import ObjectStore
from portico_gateway.objects.opening import open_store
from portico_gateway.settings import Settings
from portico_gateway.store.engine import Store
from portico_gateway.studios.checkpoints import Catalogue
from portico_gateway.studios.events import EventHub
from portico_gateway.studios.lifecycle import Lifecycle
from portico_gateway.studios.logs import RunLogs
from portico_gateway.studios.needs import Commands
from portico_gateway.studios.parts import Parts
from portico_gateway.studios.presence import Visitors
from portico_gateway.studios.records import Records
from portico_gateway.studios.routes import RouteTable
from portico_gateway.studios.service import StudioService
from portico_shared.clock import Clock

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Control:
    """Everything of the control process that has no lifetime of its own."""

    settings: Settings
    clock: Clock
    store: Store
    objects: ObjectStore
    rights: RightsService
    auth: AuthService
    people: PeopleService
    labels: LabelService
    edge: EdgeDoor
    lifecycle: Lifecycle
    studios: StudioService
    credentials: RunCredentials
    link: ControlLink
    welcome: str | None
    """The sign-in link for the first administrator, while nobody ever came in."""

    async def missing(self) -> str:
        """What is missing for studios to be started, in words; '' = nothing."""
        env = self.lifecycle.parts.compute.describe()
        try:
            async with self.store.connect() as db:
                await db.execute(sa.select(1))
        except PorticoError as error:
            return error.message
        if not self.lifecycle.adopted.is_set():
            return "the studios that run already are still being looked for"
        if not self.edge.workers:
            return "no edge worker is connected"
        if env.status != "AVAILABLE":
            return f"no studio can be placed: {env.isolation_note}"
        return ""


async def assemble(
    settings: Settings, clock: Clock, store: Store, commands: Commands, compute: Compute | None = None
) -> Control:
    """Raises BadRequest for settings that make no sense; a compute environment that is missing is told by starts."""
    if compute is None:
        compute = await asyncio.to_thread(find_compute, settings)
    env = compute.environment.describe()
    objects = open_store(settings, await load_key(store, clock, "objects"), clock)
    revocations, links = Revocations(clock), OneUseLinks(clock, settings.base_url)
    rights = RightsService(store, Sharing(env.shared, env.isolation_note))
    auth = AuthService(store, clock, settings, rights=rights, revocations=revocations, links=links)
    people = PeopleService(store, clock, rights, revocations, links)
    edge = EdgeDoor(revocations)
    records = Records(store, clock)
    parts = Parts(
        settings=settings,
        clock=clock,
        store=store,
        records=records,
        catalogue=Catalogue(store, objects, clock),
        compute=compute.environment,
        commands=commands,
        edge=edge,
        installer=compute.installer,
        logs=RunLogs(settings.data / "runs"),
        hub=EventHub(),
        routes=RouteTable(edge),
        visitors=Visitors(clock),
    )
    lifecycle = Lifecycle(parts)
    credentials = RunCredentials(records, RunTokens(await load_key(store, clock), clock))
    cookies = StudioCookies(await signing_key(store, clock, "studio-cookies"), clock)
    answers = EdgeAnswers(auth, rights, cookies, revocations, clock)
    return Control(
        settings=settings,
        clock=clock,
        store=store,
        objects=objects,
        rights=rights,
        auth=auth,
        people=people,
        labels=LabelService(store, clock, rights),
        edge=edge,
        lifecycle=lifecycle,
        studios=StudioService(lifecycle, rights),
        credentials=credentials,
        link=ControlLink(answers, credentials, revocations, lifecycle, cookies.public_key),
        welcome=await bootstrap(store, clock, links, settings.bootstrap_token.reveal()),
    )


def find_compute(settings: Settings) -> Compute:
    """What the settings ask for, or one that says why there is none."""
    try:
        return open_compute(settings)
    except PorticoError as error:
        _log.error("no studio can be placed: %s", error.message)
        return Compute(AbsentCompute(error.message), ToolInstaller(tools_folder(settings)))


def write_private(file: Path, value: object) -> None:
    """As JSON, for this account alone, whole or not at all."""
    new = file.with_name(file.name + ".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as out:
        json.dump(value, out)
    new.replace(file)
