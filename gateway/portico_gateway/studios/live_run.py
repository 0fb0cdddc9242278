"""One run from its start to its end: a small machine fed by three roads and the compute environment.

    drive()  bring up   install the tool, place the run, probe until the tool answers
             watch      ask the compute environment every 5 s, and at once on a last will
             lifespan   stop when the time is up
             leave      when asked to stop: command, final checkpoint, the end

All of it ends when the first of these knows how the run ended; `finish` then cleans up and writes it down. When the
gateway itself stops, `drive` is cancelled and nothing is finished: the run lives on and is adopted at the next start.
"""

import asyncio
import contextlib
import logging
import secrets
import signal
from dataclasses import replace
from typing import Any

from portico_gateway.errors import Conflict, PorticoError
from portico_gateway.studios.bring_up import BringUp
from portico_gateway.studios.ending import Ending, attempt, finish
from portico_gateway.studios.leaving import Leaving
from portico_gateway.studios.parts import Parts
from portico_gateway.studios.records import RunRecord, StudioRecord
from portico_gateway.studios.transitions import Event
from portico_gateway.studios.values import ProgressStep, Status, StopReason
from portico_gateway.studios.waiting import happens_within
from portico_shared.messages import CheckpointDone, Reidentify, Report, Step, Warning_
from portico_shared.messages import Status as AgentStatus

INSPECT_EVERY = 5.0
INSPECT_LEAVING = 0.5
INSPECT_UNREACHABLE = 1.0
ANSWER_SECONDS = 2.0
"""For an agent to say that it is there after all, before the compute environment is asked again."""
AGAIN = 2.0

MAX_WARNING = 400
FINAL = ("stop", "signal")
"""Reasons of a run's last checkpoint: asked to stop, or told to by its machine."""

_log = logging.getLogger(__name__)


class LiveRun:
    """Owns everything known of one live run. Fed by `on_status`, `on_report`, `on_contact`; steered by `stop`."""

    def __init__(self, parts: Parts, studio: StudioRecord, run: RunRecord) -> None:
        self.parts = parts
        self.studio = studio
        self.run = run
        self.status: AgentStatus | None = None
        self.reachable = True  # False from a last will until the next word
        self.problem = "" if studio.stop_reason else _kept_problem(studio)  # why it ends although nobody asked
        self.failed_step = ""
        self._warned = ""
        self.changed = asyncio.Event()  # something was heard of the run
        self.over = asyncio.Event()
        self.ask_again = asyncio.Event()  # a new one whenever it is set: what was asked before may be lost
        self._contact = parts.clock.monotonic()
        self._tunnels: dict[str, int] = {}
        self._newest = (0, -1)
        self._unwritten: dict[str, Any] = {}
        self.wake = asyncio.Event()
        self.left = asyncio.Event()
        self.stop_asked = asyncio.Event()
        self.tell_again = asyncio.Event()
        self._stopping_since: float | None = None
        self._ending: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self._lifespan_end = self._monotonic_end()

    def __repr__(self) -> str:
        phase = self.status.phase if self.status else "unheard"
        return f"<run {self.run.id} of studio {self.studio.session_id}: {self.studio.status}, {phase}>"

    # --- steering -------------------------------------------------------------------------------------------------

    async def stop(self, reason: StopReason | None, message: str = "") -> None:
        """Begin to leave. Raises Conflict when the studio's status does not allow it (any more)."""
        await self.move(Event.STOP, message=message, stop_reason=reason)
        self._warned = ""  # the message went with the old status
        self.ask_to_leave()

    def ask_to_leave(self) -> None:
        """The studio is marked as stopping: go on from there."""
        self._stopping_since = self.parts.clock.monotonic()
        self.stop_asked.set()

    @property
    def may_force(self) -> bool:
        """Whether it has been stopping for so long that a second stop ends it by force."""
        since, now = self._stopping_since, self.parts.clock.monotonic()
        return since is not None and now - since >= self.parts.settings.force_stop_after

    def force(self) -> None:
        self.end(Event.KILLED, "Ended by force: it had been stopping for too long.")

    def end(self, event: Event, message: str = "") -> None:
        """The first word counts."""
        if not self._ending.done():
            self._ending.set_result(Ending(event, message))

    async def extend(self, hours: int) -> None:
        now = self.parts.clock.now()
        ends = max(now, self.run.lifespan_ends or now) + hours * 3600.0
        await self.update(lifespan_ends=ends)
        self._lifespan_end = self._monotonic_end()

    # --- what is heard of it --------------------------------------------------------------------------------------

    @property
    def silent_for(self) -> float:
        """Seconds without contact on any road; 0 while one stands. Begins anew with the gateway's own start."""
        standing = (self.status is not None and self.reachable) or any(self._tunnels.values())
        return 0.0 if standing else self.parts.clock.monotonic() - self._contact

    def on_tunnels(self, worker: str, connections: int) -> None:
        """How many connections of the run stand at an edge worker."""
        if connections == 0:
            self.wake.set()
        self._tunnels[worker] = connections
        self._contact = self.parts.clock.monotonic()
        self.changed.set()

    def on_contact(self) -> None:
        """Any sign of life on any road."""
        self._contact = self.parts.clock.monotonic()
        if not self.reachable:
            self.reachable = True
            self.parts.tell(self.studio, "status")

    async def on_status(self, status: AgentStatus) -> None:
        """Late and repeated ones are told by their numbers; a last will says 'unreachable', no more."""
        if status.agent < self._newest[0]:
            return
        if status.phase == "unreachable":
            self._contact = self.parts.clock.monotonic()
            self.reachable = False
            self.wake.set()
            self.parts.tell(self.studio, "status")
            return
        if (status.agent, status.seq) < self._newest:
            return
        restarted = status.agent > self._newest[0] > 0
        self._newest = (status.agent, status.seq)
        was_away = not self.reachable
        self.on_contact()
        before, self.status = self.status, status
        if restarted or was_away or before is None:
            self._have_asked_again()
        if restarted and self.stop_asked.is_set():
            self.tell_again.set()  # the new agent does not know yet
        self.changed.set()
        await self._take(status, before)

    def _have_asked_again(self) -> None:
        self.ask_again.set()
        self.ask_again = asyncio.Event()

    async def _take(self, status: AgentStatus, before: AgentStatus | None) -> None:
        if status.phase == "left":
            self.left.set()
        if status.phase == "left" or status.tool == "exited":
            self.wake.set()
        if before is None or (before.phase, before.done) != (status.phase, status.done):
            self.parts.tell(self.studio, "progress")
        news: dict[str, Any] = {}
        if 0 < status.tool_port < 65536 and status.tool_port != self.run.tool_port:
            news["tool_port"] = status.tool_port
            await self.parts.routes.put(self.studio, status.tool_port)
        if status.tool in ("starting", "up") or status.phase in ("launching", "running"):
            news["launched"] = True
        if any(getattr(self.run, name) != value for name, value in news.items()):
            await self.update(**news)

    async def on_report(self, report: Report) -> None:
        self.on_contact()
        match report:
            case Step():
                step = ProgressStep(self.parts.clock.now(), report.name, report.state, report.detail)
                await self.parts.records.add_step(self.run.id, step)
                if report.state == "failed":
                    self.failed_step = f"{report.name}: {report.detail}"[:2000]
                self.parts.tell(self.studio, "progress")
            case CheckpointDone():
                if not report.ok:
                    await self._warn("storage", f"A checkpoint could not be saved: {report.detail}")
                elif self._warned == "storage":
                    await self._warn("", "")
                if report.ok and report.reason in FINAL:  # nothing is committed anew when nothing has changed
                    await self.update(final_saved=True)
                self.parts.tell(self.studio, "checkpoint")
            case Warning_() if report.kind != "storage" or self._warned != "storage":
                await self._warn(report.kind, report.detail)
            case Warning_():
                pass  # the same trouble in other words

    async def on_commit(self, reason: str) -> None:
        """A checkpoint of this run became durable. Only when it was the last one may the volume go with the run."""
        self.on_contact()
        final = reason in FINAL
        if self.run.final_saved != final or not self.run.launched:
            await self.update(final_saved=final, launched=True)
        self.parts.tell(self.studio, "checkpoint")

    async def _warn(self, kind: str, text: str) -> None:
        """A warning during a run leaves its status as it is. Kind '': the trouble is over."""
        stopping = self.studio.status is Status.STOPPING and not self.problem  # why it ends is not talked over
        if self.studio.status not in (Status.RUNNING, Status.STARTING) and not stopping:
            return
        self._warned, first = kind, text.partition("\n")[0][:MAX_WARNING]
        self.studio = replace(self.studio, status_message=first)
        await self.parts.records.update_studio(self.studio.session_id, status_message=first)
        self.parts.tell(self.studio, "status")

    # --- the run itself -------------------------------------------------------------------------------------------

    async def drive(self) -> None:
        """From wherever the store says it is to its end."""
        while not self._ending.done():
            try:
                await self._live()
            except* PorticoError as errors:  # the store is away, say: a run does not end for that
                _log.warning("run %s: %s; going on in a moment", self.run.id, errors.exceptions[0])
                await self.parts.clock.sleep(AGAIN)
            except* Exception:
                _log.exception("run %s of studio %s: lost its way", self.run.id, self.studio.session_id)
                self.end(Event.FAILED, "Portico made a mistake while it looked after this run; its log says more.")
        while not self.over.is_set():
            try:
                await finish(self, self._ending.result())
                self.over.set()
                self._have_asked_again()
            except Exception:  # each step may be repeated
                _log.exception("run %s: could not write down its end; trying again", self.run.id)
                await self.parts.clock.sleep(AGAIN)

    async def _live(self) -> None:
        """Until it is known how the run ends. May be begun again when a part of ours failed on the way."""
        async with asyncio.TaskGroup() as group:
            bring_up = group.create_task(BringUp(self).run(), name=f"bring-up-{self.run.id}")
            tasks = [
                bring_up,
                group.create_task(self._watch(), name=f"watch-{self.run.id}"),
                group.create_task(self._lifespan(), name=f"lifespan-{self.run.id}"),
                group.create_task(Leaving(self, bring_up).run(), name=f"leave-{self.run.id}"),
            ]
            await asyncio.shield(self._ending)
            for task in tasks:
                task.cancel()

    async def _watch(self) -> None:
        """Ask the compute environment whether the run lives."""
        while True:
            every = INSPECT_EVERY if self.reachable else INSPECT_UNREACHABLE
            every = INSPECT_LEAVING if self.left.is_set() else every
            await happens_within(self.wake, self.parts.clock, every)
            self.wake.clear()
            if self._unwritten:
                await self.update()
            await self._watch_tool()
            if self.run.placement is not None:
                await attempt(self.run.id, "gather its log", asyncio.to_thread(self.parts.logs.gather, self.run.id))
                await self._inspect(self.run.placement)
                if not self.reachable:
                    await self._ask_where_it_is()

    async def _watch_tool(self) -> None:
        """A tool that ended by itself: save what there is, then say how it ended."""
        status = self.status
        if status is None or status.tool != "exited" or status.phase in ("stopping", "left"):
            return
        if self.stop_asked.is_set() or self.studio.status not in (Status.STARTING, Status.RUNNING):
            return
        reason: StopReason | None = StopReason.USER
        message = "The tool was shut down from inside."
        if self.studio.status is Status.STARTING or status.exit_code != 0:
            message = await self.with_last_lines(f"The tool ended{_exit_words(status.exit_code)}.")
            self.problem, reason = message, None
        with contextlib.suppress(Conflict):
            await self.stop(reason, message)

    async def _inspect(self, placement: dict[str, Any]) -> None:
        try:
            state = await self.parts.compute.inspect(self.run.id, placement)
        except Exception as error:  # whatever an environment raises: it cannot be asked
            silent = self.silent_for
            if silent >= self.parts.settings.unreachable_after:
                words = f"Nothing was heard of it for {silent:.0f} s, and its machine cannot be asked: {error}"
                self.end(Event.LOST, f"{words}. What was saved last is kept: start it again.")
            return
        if not state.alive:
            await happens_within(self.left, self.parts.clock, 1.0)  # its last word may still be on its way
            self._end_gone(state.reason)

    def _end_gone(self, reason: str) -> None:
        if self.left.is_set():
            self.end_left()
        elif self.problem:
            self.end(Event.FAILED, self.problem)
        else:
            self.end(Event.LOST, f"It ended unexpectedly: {reason}. Start it again: what can be saved will be.")

    def end_left(self) -> None:
        """It ended in order; whether that is how it should have ended depends on who asked for it."""
        said = self.status.detail[:2000] if self.status is not None and self.status.phase == "left" else ""
        if self.problem:
            self.end(Event.FAILED, self.problem)
        elif self.studio.status is Status.STARTING:
            why = said or self.failed_step or "Its log may say why."
            self.end(Event.FAILED, f"It could not start. {why}")
        elif self.studio.status is Status.RUNNING and said:
            self.end(Event.FAILED, said)
        elif self.studio.status is Status.RUNNING:
            self.end(Event.LEFT, "It was ended from outside; its state was saved first.")
        else:
            self.end(Event.LEFT, said or self.studio.status_message)

    async def _lifespan(self) -> None:
        while True:
            left = None if self._lifespan_end is None else self._lifespan_end - self.parts.clock.monotonic()
            if left is not None and left <= 0 and self.studio.status is Status.RUNNING:
                with contextlib.suppress(Conflict):
                    await self.stop(StopReason.LIFESPAN_EXPIRED)
                return
            await self.parts.clock.sleep(30.0 if left is None else min(30.0, max(left, 0.5)))

    async def _ask_where_it_is(self) -> None:
        """After a last will, which may be that of a connection long replaced."""
        with contextlib.suppress(PorticoError):
            command = Reidentify(id=secrets.token_hex(8))
            await self.parts.commands.command(self.run.id, command, timeout=ANSWER_SECONDS)
            self.on_contact()

    # --- writing down ---------------------------------------------------------------------------------------------

    async def move(
        self, event: Event, *, message: str = "", stop_reason: StopReason | None = None, **values: Any
    ) -> None:
        """Change the studio's status; store, routes and watchers follow."""
        self.studio = await self.parts.records.transition(
            self.studio.session_id, event, expect_run=self.run.id, message=message, stop_reason=stop_reason, **values
        )
        await self.parts.routes.put(self.studio, self.run.tool_port)
        self.parts.tell(self.studio, "status")

    async def update(self, **values: Any) -> None:
        """Known here at once; what the store cannot take now is written with the next update."""
        self.run = replace(self.run, **values)
        self._unwritten.update(values)
        writing = dict(self._unwritten)
        if writing:
            await self.parts.records.update_run(self.run.id, **writing)
        self._unwritten = {key: value for key, value in self._unwritten.items() if key not in writing}

    async def begin_lifespan(self) -> None:
        hours, now = self.run.lifespan_hours, self.parts.clock.now()
        await self.update(running_since=now, lifespan_ends=now + hours * 3600.0 if hours else None)
        self._lifespan_end = self._monotonic_end()

    def _monotonic_end(self) -> float | None:
        """The lifespan's end on the clock that never jumps."""
        if self.run.lifespan_ends is None:
            return None
        return self.parts.clock.monotonic() + self.run.lifespan_ends - self.parts.clock.now()

    async def with_last_lines(self, sentence: str) -> str:
        lines = await asyncio.to_thread(self.parts.logs.tail, self.run.id, "tool")
        return f"{sentence} Its last words:\n{lines}" if lines else f"{sentence} It wrote nothing."


def _kept_problem(studio: StudioRecord) -> str:
    """A run that was stopping for a reason of its own when the gateway ended."""
    return studio.status_message if studio.status is Status.STOPPING else ""


def _exit_words(code: int | None) -> str:
    if code is None:
        return ""
    try:
        number = signal.Signals(-code if code < 0 else code - 128)  # the second as shells tell it
    except ValueError:
        return f" with exit code {code}"
    memory = "; most often for want of memory" if number is signal.SIGKILL else ""
    return f" (killed by {number.name}{memory})"
