"""`StudioService`: everything that can be done with studios, rights and values checked here, for every door alike."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace

from portico_gateway.auth.values import Action, Actor
from portico_gateway.errors import BadRequest, Conflict, NotFound, PorticoError
from portico_gateway.studios import listing, naming
from portico_gateway.studios.lifecycle import NO_STUDIO, Lifecycle
from portico_gateway.studios.needs import Rights
from portico_gateway.studios.records import Pair, StudioRecord
from portico_gateway.studios.templates import OFFERS, offer
from portico_gateway.studios.transitions import RIGHTS, require
from portico_gateway.studios.values import (
    CheckpointPage,
    CheckpointView,
    ComputeEnv,
    Configuration,
    ForkStudio,
    LogChunk,
    NewStudio,
    StartOverride,
    Status,
    StudioChange,
    StudioEvent,
    StudioPage,
    StudioView,
    Template,
)
from portico_gateway.studios.views import INSIDE, Views
from portico_shared.ids import is_session_id, new_lineage, new_session_id

RECHECK = 5.0
"""Seconds after which a watcher's right is asked again."""


class StudioService:
    """The `Studios` of `studios.values`; its promises stand there."""

    def __init__(self, lifecycle: Lifecycle, rights: Rights) -> None:
        self._lifecycle = lifecycle
        self._parts = lifecycle.parts
        self._rights = rights
        self._views = Views(lifecycle, rights)

    # --- what there is --------------------------------------------------------------------------------------------

    def templates(self) -> tuple[Template, ...]:
        return tuple(each.template for each in OFFERS)

    def compute_envs(self) -> tuple[ComputeEnv, ...]:
        return (self._parts.compute.describe(),)

    async def list_studios(
        self, actor: Actor, workspace_id: int, *, search: str = "", offset: int = 0, limit: int = 100
    ) -> StudioPage:
        await self._rights.authorise(actor, Action.STUDIO_READ, workspace_id)
        wanted = listing.parse_search(search)
        found = await listing.find(self._parts.store, workspace_id, wanted, offset=offset, limit=limit)
        return StudioPage(await self._views.many(actor, await self._parts.records.pairs(found.ids)), found.total)

    async def describe(self, actor: Actor, session_id: str, workspace_id: int | None = None) -> StudioView:
        pair = await self._pair(actor, session_id)
        if workspace_id is not None and pair.studio.workspace_id != workspace_id:
            raise NotFound(NO_STUDIO)
        return (await self._views.many(actor, [pair]))[0]

    async def _pair(self, actor: Actor, session_id: str, action: str | None = None) -> Pair:
        """The studio, if the actor may do this with it (None = see it)."""
        pair = await self._parts.records.pair(session_id) if is_session_id(session_id) else None
        if pair is None:
            raise NotFound(NO_STUDIO)
        rights = pair.studio.rights
        await self._rights.authorise(actor, Action.STUDIO_READ if action is None else RIGHTS[action], rights)
        if action in INSIDE and pair.studio.is_private:
            await self._rights.authorise(actor, Action.CONNECT, rights)
        return pair

    # --- add, edit, delete ----------------------------------------------------------------------------------------

    async def validate_name(self, actor: Actor, workspace_id: int, name: str) -> None:
        await self._rights.authorise(actor, Action.STUDIO_WRITE, workspace_id)
        name = naming.check_name(name)
        if name in await self._parts.records.names(workspace_id):
            raise Conflict(f"a studio named '{name}' exists in this workspace already")

    async def add(self, actor: Actor, workspace_id: int, new: NewStudio, *, start: bool) -> StudioView:
        await self._rights.authorise(actor, Action.STUDIO_WRITE, workspace_id)
        if new.initial_checkpoint_id is not None:
            return await self._add_as_new(actor, workspace_id, new, new.initial_checkpoint_id, start=start)
        policy = await self._rights.policy(workspace_id)
        values = await self._checked(
            actor,
            workspace_id,
            name=new.name,
            wanted=None,
            description=new.description,
            template=offer(new.template).template.repository,
            compute_env_id=self._environment(new.compute_env_id).id,
            configuration=new.configuration,
            is_private=policy.private_by_default if new.is_private is None else new.is_private,
            allowed_user_ids=new.allowed_user_ids,
            lineage=new_lineage(),
        )
        if start:
            await self._may_open(actor, workspace_id)
        session_id = await self._insert(actor, workspace_id, values, new.label_ids)
        return await self._begin(actor, session_id, start=start)

    async def _checked(
        self,
        actor: Actor,
        workspace_id: int,
        *,
        name: str | None,
        wanted: str | None,
        configuration: Configuration,
        description: str,
        allowed_user_ids: tuple[int, ...],
        **values: object,
    ) -> dict[str, object]:
        """Columns of a new studio. `wanted` is a name that may get a number behind it."""
        taken = await self._parts.records.names(workspace_id)
        if name is not None and name.strip():
            name = naming.check_name(name)
        else:
            name = naming.free_name(wanted, taken) if wanted else naming.made_up_name(taken)
        if name in taken:
            raise Conflict(f"a studio named '{name}' exists in this workspace already")
        policy = await self._rights.policy(workspace_id)
        if policy.lifespan_hours is not None:
            configuration = replace(configuration, lifespan_hours=policy.lifespan_hours)
        return {
            "name": name,
            "description": naming.check_description(description),
            "configuration": naming.check_configuration(configuration, self._parts.compute.describe()),
            "allowed_user_ids": await self._known_users(allowed_user_ids),
            **values,
        }

    async def _insert(
        self, actor: Actor, workspace_id: int, values: dict[str, object], label_ids: tuple[int, ...]
    ) -> str:
        session_id, now = new_session_id(), self._parts.clock.now()
        await self._parts.records.insert_studio(
            session_id=session_id,
            workspace_id=workspace_id,
            creator_id=actor.user.id,
            status=Status.STOPPED.value,
            status_at=now,
            created=now,
            updated=now,
            **values,
        )
        try:
            if label_ids:
                await listing.set_labels(self._parts.store, session_id, workspace_id, label_ids)
        except PorticoError:
            await self._parts.records.delete_studio(session_id)
            raise
        return session_id

    async def _begin(self, actor: Actor, session_id: str, *, start: bool) -> StudioView:
        """A studio was added: show it to the edge, tell who watches, start it if wanted."""
        studio = await self._studio(session_id)
        await self._parts.routes.put(studio)
        self._parts.tell(studio, "added")
        await self._note(actor, "studio-added", studio)
        return await self.start(actor, session_id) if start else await self.describe(actor, session_id)

    async def update(self, actor: Actor, session_id: str, change: StudioChange) -> StudioView:
        await self._pair(actor, session_id, "edit")
        async with self._lifecycle.locked(session_id) as pair:
            require("edit", pair.studio.status)
            values: dict[str, object] = {"updated": self._parts.clock.now()}
            if change.name is not None:
                values["name"] = name = naming.check_name(change.name)
                if name != pair.studio.name and name in await self._parts.records.names(pair.studio.workspace_id):
                    raise Conflict(f"a studio named '{name}' exists in this workspace already")
            if change.description is not None:
                values["description"] = naming.check_description(change.description)
            if change.configuration is not None:
                env = self._parts.compute.describe()
                policy = await self._rights.policy(pair.studio.workspace_id)
                fixed = policy.lifespan_hours
                wanted = change.configuration if fixed is None else replace(change.configuration, lifespan_hours=fixed)
                values["configuration"] = naming.check_configuration(wanted, env)
            if change.compute_env_id is not None:
                values["compute_env_id"] = self._environment(change.compute_env_id).id
            if change.is_private is not None:
                values["is_private"] = change.is_private
            if change.allowed_user_ids is not None:
                values["allowed_user_ids"] = await self._known_users(change.allowed_user_ids)
            if change.label_ids is not None:
                workspace = pair.studio.workspace_id
                await listing.set_labels(self._parts.store, session_id, workspace, change.label_ids)
            await self._parts.records.update_studio(session_id, **values)
            await self._parts.edge.revoke(session_id=session_id)
            self._parts.tell(pair.studio, "status")
        await self._note(actor, "studio-edited", pair.studio)
        return await self.describe(actor, session_id)

    async def delete(self, actor: Actor, session_id: str) -> None:
        pair = await self._pair(actor, session_id, "delete")
        await self._lifecycle.delete(session_id)
        await self._note(actor, "studio-deleted", pair.studio, name=pair.studio.name)

    # --- start, stop ----------------------------------------------------------------------------------------------

    async def start(self, actor: Actor, session_id: str, override: StartOverride | None = None) -> StudioView:
        pair = await self._pair(actor, session_id, "start")
        require("start", pair.studio.status)
        await self._may_open(actor, pair.studio.workspace_id)
        override = override or StartOverride()
        if override.configuration is not None and pair.studio.is_private:  # its environment leads inside
            await self._rights.authorise(actor, Action.CONNECT, pair.studio.rights)
        policy = await self._rights.policy(pair.studio.workspace_id)
        configuration = override.configuration or pair.studio.configuration
        if policy.lifespan_hours is not None:
            configuration = replace(configuration, lifespan_hours=policy.lifespan_hours)
        await self._lifecycle.start(
            session_id,
            started_by=actor.user.id,
            configuration=naming.check_configuration(configuration, self._parts.compute.describe()),
            checkpoint_id=override.checkpoint_id,
        )
        await self._note(actor, "studio-started", pair.studio)
        return await self.describe(actor, session_id)

    async def stop(self, actor: Actor, session_id: str) -> StudioView:
        pair = await self._pair(actor, session_id, "stop")
        await self._lifecycle.stop(session_id)
        await self._note(actor, "studio-stop", pair.studio)
        return await self.describe(actor, session_id)

    async def extend(self, actor: Actor, session_id: str) -> StudioView:
        pair = await self._pair(actor, session_id, "extend")
        await self._lifecycle.extend(session_id)
        await self._note(actor, "studio-extended", pair.studio)
        return await self.describe(actor, session_id)

    # --- fork -----------------------------------------------------------------------------------------------------

    async def fork(self, actor: Actor, session_id: str, checkpoint_id: int | None, new: ForkStudio) -> StudioView:
        parent = (await self._pair(actor, session_id, "fork")).studio
        if checkpoint_id is None:
            require("fork", parent.status)
        if new.start:
            await self._may_open(actor, parent.workspace_id)
        values = await self._checked(
            actor,
            parent.workspace_id,
            name=new.name,
            wanted=parent.name,
            description=parent.description if new.description is None else new.description,
            template=parent.template,
            compute_env_id=parent.compute_env_id,
            configuration=new.configuration or parent.configuration,
            is_private=parent.is_private if new.is_private is None else new.is_private,
            allowed_user_ids=parent.allowed_user_ids if parent.creator_id == actor.user.id else (),
            lineage=parent.lineage,
        )
        source = await self._fork_source(actor, parent, checkpoint_id)
        child = await self._insert(
            actor, parent.workspace_id, {**values, "parent_checkpoint_id": source}, new.label_ids
        )
        try:
            row = await self._parts.catalogue.inherit(source, child, author_id=actor.user.id)
            await self._parts.records.update_studio(child, start_checkpoint_id=row)
        except PorticoError:
            await self._parts.records.delete_studio(child)
            raise
        await self._note(actor, "studio-forked", parent, into=child, checkpoint=source)
        return await self._begin(actor, child, start=new.start)

    async def _fork_source(self, actor: Actor, parent: StudioRecord, checkpoint_id: int | None) -> int:
        """The checkpoint to copy: the one named, one made now, or the newest. Raises Conflict when there is none."""
        if checkpoint_id is None and parent.status is Status.RUNNING:
            row, live = await self._lifecycle.begin_checkpoint(parent.session_id, actor.user.id, None)
            if problem := await self._lifecycle.finish_checkpoint(row, live):
                raise Conflict(f"it could not be copied, since no checkpoint of it could be made: {problem}")
            return row
        if checkpoint_id is not None:
            await self._parts.catalogue.checkpoint(parent.session_id, checkpoint_id)
        point = await self._parts.catalogue.restore_point(parent.session_id, checkpoint_id)
        if point is None:
            raise Conflict("it has no checkpoint yet: start it once, then copy it")
        return point.checkpoint_id

    async def _add_as_new(
        self, actor: Actor, workspace_id: int, new: NewStudio, checkpoint_id: int, *, start: bool
    ) -> StudioView:
        """Adding with a checkpoint to begin with is a fork of the studio that has it."""
        parents = await listing.parents_of(self._parts.store, {checkpoint_id})
        if checkpoint_id not in parents:
            raise NotFound("there is no such checkpoint, or it is not for you to see")
        parent = (await self._pair(actor, parents[checkpoint_id].session_id, "fork")).studio
        if parent.workspace_id != workspace_id:
            raise BadRequest("a copy lives in the workspace of its original: add it there")
        if offer(new.template).template.tool != self._tool(parent):
            raise BadRequest("a copy keeps the tool of its original")
        wanted = ForkStudio(
            name=new.name,
            description=new.description,
            configuration=new.configuration,
            is_private=new.is_private,
            label_ids=new.label_ids,
            start=start,
        )
        return await self.fork(actor, parent.session_id, checkpoint_id, wanted)

    # --- checkpoints ----------------------------------------------------------------------------------------------

    async def checkpoint_now(self, actor: Actor, session_id: str, name: str | None = None) -> CheckpointView:
        await self._pair(actor, session_id, "checkpoint")
        row = await self._lifecycle.checkpoint_later(session_id, actor.user.id, name)
        return await self._parts.catalogue.checkpoint(session_id, row)

    async def list_checkpoints(
        self, actor: Actor, session_id: str, *, search: str = "", offset: int = 0, limit: int = 100
    ) -> CheckpointPage:
        await self._pair(actor, session_id)
        if len(search) > listing.MAX_SEARCH or offset < 0 or not 0 < limit <= listing.MAX_PAGE:
            raise BadRequest(f"offset is 0 or more, and a page has 1 to {listing.MAX_PAGE} entries")
        return await self._parts.catalogue.list_checkpoints(session_id, search=search, offset=offset, limit=limit)

    async def checkpoint(self, actor: Actor, session_id: str, checkpoint_id: int) -> CheckpointView:
        await self._pair(actor, session_id)
        return await self._parts.catalogue.checkpoint(session_id, checkpoint_id)

    async def rename_checkpoint(self, actor: Actor, session_id: str, checkpoint_id: int, name: str) -> CheckpointView:
        pair = await self._pair(actor, session_id)
        await self._rights.authorise(actor, Action.STUDIO_WRITE, pair.studio.rights)
        view = await self._parts.catalogue.rename(session_id, checkpoint_id, name)
        self._parts.tell(pair.studio, "checkpoint")
        return view

    # --- watching -------------------------------------------------------------------------------------------------

    async def logs(self, actor: Actor, session_id: str, *, stream: str = "all", offset: int = 0) -> LogChunk:
        pair = await self._pair(actor, session_id, "logs")
        if pair.run is None:
            return LogChunk("", 0, ended=True)
        over = pair.run.ended is not None
        return await asyncio.to_thread(self._parts.logs.read, pair.run.id, stream, offset, over=over)

    async def watch(self, actor: Actor, workspace_id: int) -> AsyncGenerator[StudioEvent, None]:
        await self._rights.authorise(actor, Action.STUDIO_READ, workspace_id)
        checked = self._parts.clock.monotonic()
        events = self._parts.hub.watch(workspace_id)
        try:
            async for event in events:
                if self._parts.clock.monotonic() - checked >= RECHECK:
                    await self._rights.authorise(actor, Action.STUDIO_READ, workspace_id)
                    checked = self._parts.clock.monotonic()
                yield event
        finally:
            await events.aclose()

    # --- small things ---------------------------------------------------------------------------------------------

    async def _studio(self, session_id: str) -> StudioRecord:
        studio = await self._parts.records.studio(session_id)
        if studio is None:
            raise NotFound(NO_STUDIO)
        return studio

    def _environment(self, wanted: str) -> ComputeEnv:
        env = self._parts.compute.describe()
        if wanted != env.id:
            raise BadRequest(f"there is no compute environment '{wanted[:64]}'; there is: {env.id}")
        return env

    async def _may_open(self, actor: Actor, workspace_id: int) -> None:
        """Where studios cannot be kept apart, nobody starts what they could not open."""
        if not self._parts.compute.describe().shared:
            await self._rights.authorise(actor, Action.CONNECT, workspace_id)

    async def _known_users(self, ids: tuple[int, ...]) -> list[int]:
        if len(ids) > 1000:
            raise BadRequest("at most 1000 people can be named")
        if missing := set(ids) - (await self._rights.users(ids)).keys():
            raise BadRequest(f"there is no user {min(missing)}")
        return sorted(set(ids))

    def _tool(self, studio: StudioRecord) -> str:
        return offer(studio.template).template.tool

    async def _note(self, actor: Actor, kind: str, studio: StudioRecord, **detail: object) -> None:
        await self._parts.records.add_event(kind, studio, actor.user.id, actor.peer, **detail)
