"""Asking a run's agent for a checkpoint, whatever becomes of agent and run meanwhile."""

import asyncio
import secrets
from collections.abc import Awaitable
from typing import TYPE_CHECKING, TypeVar

from portico_gateway.errors import PorticoError, Unavailable
from portico_shared.messages import MakeCheckpoint

if TYPE_CHECKING:
    from portico_gateway.studios.live_run import LiveRun

CHECKPOINT_TIMEOUT = 3600.0
ASK_EVERY = 15.0
"""Seconds after which the same is asked again: a question may be lost with a connection, and so may its answer."""

T = TypeVar("T")


async def have_checkpoint_made(live: "LiveRun", row: int) -> str:
    """Why it was not made; '' when the agent says it was. Asked again of an agent that took another's place or was away
    for a moment: the same command is done once, however often it arrives."""
    command = MakeCheckpoint(id=secrets.token_hex(8), row=row)
    clock = live.parts.clock
    deadline = clock.monotonic() + CHECKPOINT_TIMEOUT
    while not live.over.is_set():
        asked, again = clock.monotonic(), live.ask_again
        try:
            answer = await unless(again, live.parts.commands.command(live.run.id, command, timeout=ASK_EVERY))
        except Unavailable as error:
            now = clock.monotonic()
            if now - asked < 0.9 * ASK_EVERY or now >= deadline:  # no way to the agent at all, or no hope
                return error.message
        except PorticoError as error:
            return error.message
        else:
            if answer is not None:
                return "" if answer.ok else answer.detail or "the agent could not make it"
    return "the studio ended before it was saved"


async def unless(event: asyncio.Event, work: Awaitable[T]) -> T | None:
    """What `work` gives; None when `event` was set first, and the work is cancelled."""
    working, waiting = asyncio.ensure_future(work), asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait((working, waiting), return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        working.cancel()
        waiting.cancel()
        await asyncio.gather(working, waiting, return_exceptions=True)
