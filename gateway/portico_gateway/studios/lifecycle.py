"""The verbs that change what runs: start, stop, extend, checkpoint, delete; and adoption of what runs already.

No rights are checked here: that is `StudioService`'s. One lock per studio makes verbs on it take turns; each run has
one task, owned by `run()`.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakValueDictionary

from portico_gateway.errors import Conflict, NotFound, PorticoError, Unavailable
from portico_gateway.link.messages import Presence
from portico_gateway.studios.asking import have_checkpoint_made
from portico_gateway.studios.live_run import LiveRun
from portico_gateway.studios.naming import MAX_LIFESPAN_HOURS
from portico_gateway.studios.parts import Parts
from portico_gateway.studios.records import Pair, RunRecord, StudioRecord
from portico_gateway.studios.templates import known_template
from portico_gateway.studios.transitions import RESTING, Event, require
from portico_gateway.studios.values import Configuration, Status, StopReason, StudioEvent
from portico_shared.ids import new_run_id
from portico_shared.messages import Plan, Report
from portico_shared.messages import Status as AgentStatus

"""Seconds an agent may take for a checkpoint on request: gigabytes over a slow line."""

KEEP_RUNS = 5
"""Logs of this many ended runs of a studio are kept."""

NO_STUDIO = "there is no such studio, or it is not for you to see"

_log = logging.getLogger(__name__)


class Lifecycle:
    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.adopted = asyncio.Event()
        self._live: dict[str, LiveRun] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._group: asyncio.TaskGroup | None = None
        self._saving: set[str] = set()

    async def run(self) -> None:
        """Adopt what lives and look after it until cancelled; studios live on. `adopted` says when verbs are taken."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                await self._adopt()
                self.adopted.set()
                await asyncio.Event().wait()
            finally:
                self._group = None
                self.adopted.clear()

    # --- adoption -------------------------------------------------------------------------------------------------

    async def _adopt(self) -> None:
        """1. routes of all studios  2. what the store does not know is ended  3. each live run goes on."""
        for studio in await self.parts.records.all_studios():
            await self.parts.routes.put(studio)
        pairs = await self.parts.records.live()
        placed = {pair.run.id for pair in pairs if pair.run is not None and pair.run.placement is not None}
        try:
            for sentence in await self.parts.compute.sweep(placed):
                _log.warning("removed what nobody owns: %s", sentence)
        except Exception:
            _log.exception("could not look for runs that nobody owns")
        for pair in pairs:
            await self._adopt_one(pair)

    async def _adopt_one(self, pair: Pair) -> None:
        if pair.run is None:
            message = "Portico was ended while it was starting this: start it again."
            await self.parts.records.transition(pair.studio.session_id, Event.FAILED, message=message)
            return
        await self.parts.routes.put(pair.studio, pair.run.tool_port)
        live = self._take_up(pair.studio, pair.run)
        if pair.studio.status is Status.STOPPING:
            live.ask_to_leave()

    def _take_up(self, studio: StudioRecord, run: RunRecord) -> LiveRun:
        live = LiveRun(self.parts, studio, run)
        self._live[studio.session_id] = live
        self._spawn(self._drive(live), f"run-{run.id}")
        return live

    async def _drive(self, live: LiveRun) -> None:
        try:
            await live.drive()
        finally:
            if self._live.get(live.studio.session_id) is live:
                del self._live[live.studio.session_id]

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        if self._group is None:
            work.close()
            raise Unavailable("Portico is starting or ending: try again in a moment")
        self._group.create_task(_guarded(work, name), name=name)

    # --- looking ----------------------------------------------------------------------------------------------------

    def live(self, session_id: str) -> LiveRun | None:
        return self._live.get(session_id)

    def live_run(self, run_id: str) -> LiveRun | None:
        return next((live for live in self._live.values() if live.run.id == run_id), None)

    @property
    def running(self) -> int:
        return len(self._live)

    @asynccontextmanager
    async def locked(self, session_id: str) -> AsyncIterator[Pair]:
        """The studio as it is, while nobody else changes it. Raises NotFound."""
        lock = self._locks.setdefault(session_id, asyncio.Lock())
        async with lock:
            pair = await self.parts.records.pair(session_id)
            if pair is None:
                raise NotFound(NO_STUDIO)
            live = self._live.get(session_id)
            if live is not None and pair.studio.status in RESTING:
                await live.over.wait()  # its status is written, a few last words are not
                self._live.pop(session_id, None)
            yield pair

    # --- start ------------------------------------------------------------------------------------------------------

    async def start(
        self,
        session_id: str,
        *,
        started_by: int | None,
        configuration: Configuration,
        checkpoint_id: int | None = None,
    ) -> None:
        """Raises Conflict when it cannot be started now. What goes wrong later is told by the studio's status."""
        async with self.locked(session_id) as pair:
            studio = pair.studio
            require("start", studio.status)
            if self._group is None:
                raise Unavailable("Portico is starting or ending: try again in a moment")
            salvage, restore = await self._starting_point(session_id, checkpoint_id)
            run = await self._make_run(
                studio,
                started_by=started_by,
                configuration=configuration,
                lifespan_hours=configuration.lifespan_hours,
                salvage=salvage,
                restore_checkpoint_id=restore,
            )
            tool = known_template(studio.template).tool
            attached = self.parts.settings.compute == "attach"
            event = Event.START if attached or self.parts.installer.installed(tool) else Event.BUILD
            studio = await self.parts.records.transition(
                session_id, event, run_id=run.id, generation=run.generation, last_started=run.started
            )
            await self.parts.routes.put(studio, run.tool_port)
            self._take_up(studio, run)
            self.parts.tell(studio, "status")
        await self._forget_old_runs(session_id)

    async def _starting_point(self, session_id: str, checkpoint_id: int | None) -> tuple[bool, int | None]:
        """Whether what an earlier run left is salvaged; else which checkpoint is restored (None = a new studio)."""
        if self.parts.compute.has_volume(session_id):
            if checkpoint_id is not None:
                raise Conflict(
                    "changes of its last run that no checkpoint holds are still on this machine: start it once without "
                    "choosing a checkpoint, so that they are saved"
                )
            return True, None
        point = await self.parts.catalogue.restore_point(session_id, checkpoint_id)
        return False, None if point is None else point.checkpoint_id

    async def _make_run(self, studio: StudioRecord, **values: Any) -> RunRecord:
        parts, run_id, generation = self.parts, new_run_id(), studio.generation + 1
        attached = parts.settings.compute == "attach"
        await parts.records.insert_run(
            id=run_id,
            session_id=studio.session_id,
            generation=generation,
            started=parts.clock.now(),
            run_token_hash=secrets.token_bytes(32),  # of no token: one is made when the run is placed
            tool_port=parts.settings.attach_port if attached else 0,
            **values,
        )
        try:
            row = await parts.catalogue.open_row(
                studio.session_id,
                run_id=run_id,
                lineage=studio.lineage,
                generation=generation,
                author_id=values["started_by"],
                reason="start",
            )
            await parts.records.update_run(run_id, checkpoint_id=row)
            run = await parts.records.run(run_id)
        except BaseException:
            await parts.records.drop_run(run_id)
            raise
        assert run is not None
        return run

    async def _forget_old_runs(self, session_id: str) -> None:
        for run_id in await self.parts.records.old_runs(session_id, KEEP_RUNS):
            await asyncio.to_thread(self.parts.logs.forget, run_id)

    # --- stop -------------------------------------------------------------------------------------------------------

    async def stop(self, session_id: str, reason: StopReason | None = StopReason.USER) -> None:
        """Begin to stop; a second one, long after, ends it by force. Raises Conflict as the table says."""
        async with self.locked(session_id) as pair:
            live = self._live.get(session_id)
            if pair.studio.status is Status.STOPPING and live is not None and live.may_force:
                live.force()
                return
            require("stop", pair.studio.status)
            if live is None:
                if pair.run is None:
                    raise Conflict("it is just being put away: look again in a moment")
                live = self._take_up(pair.studio, pair.run)
            await live.stop(reason)

    async def stop_all(self, say: Callable[[str], None], abandon: asyncio.Event) -> None:
        """Stop whatever runs, each with its final checkpoint, until all have ended or `abandon` is set."""
        waiting = dict(self._live)
        for session_id, live in waiting.items():
            try:
                await self.stop(session_id)
                say(f"Stopping {live.studio.name}: saving its state")
            except PorticoError as error:
                say(f"{live.studio.name}: {error.message}")
        async with asyncio.TaskGroup() as group:
            everything = group.create_task(_all_over(list(waiting.values()), say))
            given_up = group.create_task(abandon.wait())
            await asyncio.wait({everything, given_up}, return_when=asyncio.FIRST_COMPLETED)
            everything.cancel()
            given_up.cancel()

    async def extend(self, session_id: str) -> None:
        """Once more its lifespan. Raises Conflict when it has none, or has as much as may be."""
        async with self.locked(session_id) as pair:
            require("extend", pair.studio.status)
            live = self._live.get(session_id)
            if live is None:
                raise Conflict("it is just being put away: look again in a moment")
            hours = live.run.lifespan_hours
            if hours == 0:
                raise Conflict("it has no end to put off: it runs until somebody stops it")
            left = ((live.run.lifespan_ends or 0.0) - self.parts.clock.now()) / 3600
            if left + hours > MAX_LIFESPAN_HOURS:
                raise Conflict(f"at most {MAX_LIFESPAN_HOURS} hours ahead: extend it again later")
            await live.extend(hours)
            self.parts.tell(live.studio, "status")

    # --- checkpoints ------------------------------------------------------------------------------------------------

    async def begin_checkpoint(self, session_id: str, author_id: int | None, name: str | None) -> tuple[int, LiveRun]:
        """A pending row for `finish_checkpoint`. Raises Conflict while another is being made."""
        async with self.locked(session_id) as pair:
            require("checkpoint", pair.studio.status)
            live = self._live.get(session_id)
            if live is None:
                raise Conflict("it is just being put away: look again in a moment")
            if session_id in self._saving:
                raise Conflict("a checkpoint of it is being made already: wait for that one")
            row = await self.parts.catalogue.open_row(
                session_id,
                run_id=live.run.id,
                lineage=pair.studio.lineage,
                generation=live.run.generation,
                author_id=author_id,
                reason="request",
                name=name,
            )
            self._saving.add(session_id)
            self.parts.tell(pair.studio, "checkpoint")
        return row, live

    async def finish_checkpoint(self, row: int, live: LiveRun) -> str:
        """Have it made and seal its row. Why it failed, or '' when it is durable."""
        try:
            problem = await have_checkpoint_made(live, row)
        finally:
            self._saving.discard(live.run.session_id)
            saved = await self.parts.catalogue.seal_row(row)
            self.parts.tell(live.studio, "checkpoint")
        return "" if saved else problem or "nothing was saved"

    async def checkpoint_later(self, session_id: str, author_id: int | None, name: str | None) -> int:
        """The pending row's id; it is made durable meanwhile."""
        row, live = await self.begin_checkpoint(session_id, author_id, name)

        async def work() -> None:
            if problem := await self.finish_checkpoint(row, live):
                _log.warning("studio %s: checkpoint %d failed: %s", session_id, row, problem)

        self._spawn(work(), f"checkpoint-{row}")
        return row

    # --- delete -----------------------------------------------------------------------------------------------------

    async def delete(self, session_id: str) -> None:
        """The studio, its checkpoints, its volume and its logs."""
        async with self.locked(session_id) as pair:
            require("delete", pair.studio.status)
            await self.parts.compute.release(session_id)
            await self.parts.catalogue.forget(session_id)
            run_ids = await self.parts.records.delete_studio(session_id)
            await self.parts.routes.remove(session_id)
            await self.parts.edge.revoke(session_id=session_id)
            self.parts.tell(pair.studio, "deleted")
        for run_id in run_ids:
            await asyncio.to_thread(self.parts.logs.forget, run_id)

    # --- what agents say --------------------------------------------------------------------------------------------

    async def on_message(self, run_id: str, said: AgentStatus | Report) -> None:
        """What the agent of a run said; one that is over is not listened to."""
        live = self.live_run(run_id)
        if live is not None and isinstance(said, AgentStatus):
            await live.on_status(said)
        elif live is not None and not isinstance(said, AgentStatus):
            await live.on_report(said)

    def on_tunnels(self, worker: str, run_id: str, connections: int) -> None:
        if (live := self.live_run(run_id)) is not None:
            live.on_tunnels(worker, connections)

    def on_presence(self, worker: str, presence: Presence) -> None:
        if self.parts.visitors.report(worker, presence):
            workspace = self.parts.routes.workspace_of(presence.session_id)
            if workspace is not None:
                self.parts.hub.publish(StudioEvent(workspace, presence.session_id, "presence"))

    async def plan(self, run_id: str) -> Plan:
        """What the run is to do. Raises NotFound when it is over."""
        live = self.live_run(run_id)
        if live is None:
            raise NotFound("this run is over")
        live.on_contact()
        run, studio, settings = live.run, live.studio, self.parts.settings
        restore = None
        if run.restore_checkpoint_id is not None and not run.salvage:
            restore = await self.parts.catalogue.restore_point(run.session_id, run.restore_checkpoint_id)
        attached = settings.compute == "attach"
        return Plan(
            run=run.id,
            session_id=run.session_id,
            lineage=studio.lineage,
            generation=run.generation,
            studio_name=studio.name,
            tool=known_template(studio.template).tool,
            environment=dict(run.configuration.environment),
            checkpoint_interval=settings.checkpoint_interval,
            quota=settings.studio_quota,
            grace=settings.stop_grace,
            store_patience=settings.store_patience,
            restore=restore,
            salvage=run.salvage,
            forked=studio.start_checkpoint_id is not None,
            tool_port=settings.attach_port if attached else 0,
        )


async def _all_over(runs: list[LiveRun], say: Callable[[str], None]) -> None:
    async def one(live: LiveRun) -> None:
        await live.over.wait()
        say(f"{live.studio.name}: {live.studio.status_message or 'saved and stopped'}")

    async with asyncio.TaskGroup() as group:
        for live in runs:
            group.create_task(one(live))


async def _guarded(work: Coroutine[Any, Any, None], name: str) -> None:
    """One activity that fails does not take the others with it."""
    try:
        await work
    except Exception:
        _log.exception("%s failed", name)
