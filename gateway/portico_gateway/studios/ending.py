"""What is done once a run is over, and written down. Each step may be repeated."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from portico_gateway.errors import Conflict, NotFound
from portico_gateway.studios.transitions import Event

if TYPE_CHECKING:
    from portico_gateway.studios.live_run import LiveRun

KEPT = "Its last changes are kept on this machine, to be saved at its next start."

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended: the event for the table, and why in words."""

    event: Event
    message: str = ""


async def finish(live: "LiveRun", ending: Ending) -> None:
    """1. nothing of it runs  2. its checkpoints are sealed  3. its volume is dropped, or kept  4. the status."""
    parts, run = live.parts, live.run
    if run.placement is not None:
        await attempt(run.id, "end the run", parts.compute.kill(run.id, run.placement))
        await attempt(run.id, "read the end of its log", asyncio.to_thread(parts.logs.gather, run.id))
    await attempt(run.id, "seal the checkpoints", parts.catalogue.seal_run(run.id))
    await attempt(run.id, "clear its messages", parts.commands.forget(run.id))
    message = await _settle_volume(live, ending.message)
    outcome = "errored" if ending.event in (Event.FAILED, Event.LOST) else "stopped"
    await live.update(ended=parts.clock.now(), outcome=outcome, outcome_message=message[:4096])
    with contextlib.suppress(Conflict, NotFound):
        await live.move(ending.event, message=message, stop_reason=live.studio.stop_reason)
    await parts.edge.revoke(run=run.id)
    await parts.records.add_event(f"studio-{outcome}", live.studio, run=run.id, message=message[:500])


async def _settle_volume(live: "LiveRun", message: str) -> str:
    """Drop the volume when nothing in it would be missed; else it is salvaged at the next start."""
    run, compute = live.run, live.parts.compute
    worthless = not run.launched and not run.salvage
    if run.final_saved or worthless:
        await attempt(run.id, "drop the volume", compute.release(run.session_id))
        return message
    if run.placement is None or not compute.has_volume(run.session_id):
        return message
    if "saved at its next start" in message:  # the agent said so already
        return message
    return f"{message}\n{KEPT}" if message else KEPT


async def attempt(run_id: str, what: str, step: Awaitable[object]) -> None:
    """A step whose failure is told in the log and holds up nothing."""
    try:
        await step
    except Exception as error:
        _log.warning("run %s: could not %s: %s", run_id, what, error)
