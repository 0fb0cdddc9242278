"""From 'stop' to the end: the command, the final checkpoint, the agent's last word."""

import asyncio
from typing import TYPE_CHECKING

from portico_gateway.errors import PorticoError
from portico_gateway.studios.transitions import Event
from portico_gateway.studios.values import StopReason
from portico_gateway.studios.waiting import happens_within
from portico_shared.messages import Stop

if TYPE_CHECKING:
    from portico_gateway.studios.live_run import LiveRun

COMMAND_TIMEOUT = 10.0
LOOK_EVERY = 5.0
LINGER = 20.0
"""Seconds a run may take to be gone after it said that it left."""


class Leaving:
    """One use: `run()` waits to be asked, and sees the run to its end."""

    def __init__(self, live: "LiveRun", bring_up: asyncio.Task[None]) -> None:
        self._live = live
        self._clock = live.parts.clock
        self._settings = live.parts.settings
        self._bring_up = bring_up

    async def run(self) -> None:
        """Asked to stop: 1. no more bringing up  2. the command  3. its last word  4. its end."""
        live = self._live
        await live.stop_asked.wait()
        self._bring_up.cancel()
        await asyncio.wait({self._bring_up})
        if live.run.placement is None:
            live.end_left()
        elif not (await self._deliver() and await self._until_left()):
            live.end(Event.KILLED, "It could not be reached, so it was ended without a final checkpoint.")
        else:
            live.wake.set()
            await self._clock.sleep(LINGER)
            live.end_left()

    async def _deliver(self) -> bool:
        """Whether the agent knows. One that was never heard of has nothing to save, and little time."""
        live, began = self._live, self._clock.monotonic()
        while not live.left.is_set():
            if await self._say_stop() or (live.status is not None and live.status.phase in ("stopping", "left")):
                return True
            heard = live.status is not None
            patience = self._settings.unreachable_after if heard else self._settings.stop_grace
            if self._clock.monotonic() - began >= patience:
                return False
            await self._clock.sleep(1.0)
        return True

    async def _until_left(self) -> bool:
        """Whether its last word came. A long final checkpoint is waited for as long as the agent can be heard."""
        live = self._live
        while not await happens_within(live.left, self._clock, LOOK_EVERY):
            if live.silent_for >= self._settings.unreachable_after:
                return False
            if live.tell_again.is_set():
                live.tell_again.clear()
                await self._say_stop()
        return True

    async def _say_stop(self) -> bool:
        live = self._live
        reason = live.studio.stop_reason or StopReason.USER
        command = Stop(id=f"stop-{live.run.id}", reason=reason.value, grace=self._settings.stop_grace)
        try:
            await live.parts.commands.command(live.run.id, command, timeout=COMMAND_TIMEOUT)
        except PorticoError:
            return False
        return True
