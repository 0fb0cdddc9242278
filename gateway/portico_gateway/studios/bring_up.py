"""From 'started' to 'running': install the tool, place the run, wait until its tool answers."""

import hashlib
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from portico_gateway.compute.environment import RunSpec
from portico_gateway.errors import PorticoError
from portico_gateway.studios.templates import known_template, probe_path
from portico_gateway.studios.transitions import Event
from portico_gateway.studios.values import ProgressStep, Status
from portico_gateway.studios.waiting import happens_within

if TYPE_CHECKING:
    from portico_gateway.studios.live_run import LiveRun

GATEWAY_SOCKET = "unix:/run/portico/gateway/edge.sock"
"""Where a studio on this machine finds the gateway."""

PROBE_EVERY = 0.3
PROBE_STARTING = 2.0
"""While the agent says that its tool is still starting; it looks itself, and its word wakes us."""
PROBE_TIMEOUT = 5.0


class BringUp:
    """One use: `run()` returns when the studio runs; the run ends otherwise, or this is cancelled by a stop."""

    def __init__(self, live: "LiveRun") -> None:
        self._live = live
        self._parts = live.parts
        self._tool = known_template(live.studio.template).tool

    async def run(self) -> None:
        try:
            if self._live.studio.status is Status.BUILDING:
                await self._build()
            if self._live.studio.status is Status.STARTING:
                if self._live.run.placement is None:
                    await self._place()
                await self._until_it_answers()
        except _GaveUp as reason:
            self._live.end(reason.event, reason.message)

    # --- the tool -------------------------------------------------------------------------------------------------

    async def _build(self) -> None:
        parts, run = self._parts, self._live.run

        def log(text: str) -> None:
            parts.logs.say(run.id, "build", text)
            parts.tell(self._live.studio, "log")

        await self._step("building", "started")
        try:
            await parts.installer.install(self._tool, log)
        except PorticoError as error:
            log(error.message)
            await self._step("building", "failed", error.message)
            raise _GaveUp(Event.BUILD_FAILED, f"The tool could not be installed: {error.message}") from None
        await self._step("building", "done")
        await self._live.move(Event.BUILT)

    # --- the place ------------------------------------------------------------------------------------------------

    async def _place(self) -> None:
        """A new run token each time: only its hash is kept, so a start that was interrupted begins with another."""
        live, parts = self._live, self._parts
        token = secrets.token_urlsafe(32)
        await live.update(run_token_hash=hashlib.sha256(token.encode()).digest())
        await self._step("provisioning", "started")
        try:
            placement = await parts.compute.start(self._spec(token))
        except PorticoError as error:
            await self._step("provisioning", "failed", error.message)
            raise _GaveUp(Event.FAILED, f"No place could be found for it: {error.message}") from None
        await live.update(placement=placement)
        await self._step("provisioning", "done")

    def _spec(self, token: str) -> RunSpec:
        live, settings = self._live, self._parts.settings
        attached = settings.compute == "attach"
        configuration = live.run.configuration
        return RunSpec(
            run_id=live.run.id,
            session_id=live.run.session_id,
            tool="" if attached else self._tool,
            run_token=token,
            gateway=f"unix:{Path(settings.run_dir) / 'public' / 'edge.sock'}" if attached else GATEWAY_SOCKET,
            host_header=f"{settings.host}{settings.port_suffix}",
            cpu=configuration.cpu,
            memory_mib=configuration.memory,
            quota_bytes=settings.studio_quota,
            tools_dir=None if attached else self._parts.installer.folder(self._tool),
            tool_port=settings.attach_port if attached else 0,
        )

    # --- the answer -----------------------------------------------------------------------------------------------

    async def _until_it_answers(self) -> None:
        live, clock, limit = self._live, self._parts.clock, self._parts.settings.start_timeout
        began, launched_at = clock.monotonic(), None
        while not await self._answers():
            now = clock.monotonic()
            if launched_at is None and live.status is not None and live.status.tool != "none":
                launched_at = now
            if launched_at is not None and now - launched_at >= limit:
                sentence = f"The tool did not answer within {limit:.0f} s."
                raise _GaveUp(Event.FAILED, await live.with_last_lines(sentence))
            if live.status is None and now - began >= limit:
                raise _GaveUp(
                    Event.FAILED, f"Nothing was heard of its agent within {limit:.0f} s; its log may say why."
                )
            live.changed.clear()
            starting = live.status is not None and live.status.tool == "starting"
            await happens_within(live.changed, clock, PROBE_STARTING if starting else PROBE_EVERY)
        await live.begin_lifespan()
        await live.move(Event.ANSWERED, start_checkpoint_id=None)

    async def _answers(self) -> bool:
        live, port = self._live, self._live.run.tool_port
        if not port:
            return False
        path = "/" if self._parts.settings.compute == "attach" else probe_path(live.studio.template)
        try:
            reply = await self._parts.edge.probe(live.studio.session_id, port, path, PROBE_TIMEOUT)
        except PorticoError:  # no edge worker at the moment
            return False
        return 0 < reply.status < 500

    async def _step(self, name: str, state: str, detail: str = "") -> None:
        step = ProgressStep(self._parts.clock.now(), name, state, detail)
        await self._parts.records.add_step(self._live.run.id, step)
        self._parts.tell(self._live.studio, "progress")


class _GaveUp(Exception):
    def __init__(self, event: Event, message: str) -> None:
        super().__init__(message)
        self.event = event
        self.message = message
