"""Things that are looked after while people work, each in a loop of its own."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator

from portico_agent.desk import Desk
from portico_agent.errors import AgentError, CheckpointError
from portico_agent.overlay.volume import Volume, free_share
from portico_shared.clock import Clock

START_CHECKPOINT_WAIT = 60.0
"""Seconds the first checkpoint waits for the tool to answer, so as not to slow its start down."""
DISK_LOW, DISK_FINE = 0.05, 0.10
"""Shares of the volume that are free: below the first people are warned, above the second they may be again."""
DISK_SECONDS = 15.0
_log = logging.getLogger(__name__)


async def watch_disk(volume: Volume, warn: Callable[[str, str], None], clock: Clock) -> None:
    """Warn when the studio's own space runs out; the studio goes on."""
    warned = False
    while True:
        free = await asyncio.to_thread(free_share, volume)
        if free < DISK_LOW and not warned:
            warn("disk", f"The studio's disk is nearly full ({free:.0%} free): remove what is not needed.")
        warned = free < DISK_LOW or (warned and free < DISK_FINE)
        await clock.sleep(DISK_SECONDS)


async def first_checkpoint(desk: Desk, ready: asyncio.Task[None], clock: Clock) -> None:
    """The one a run begins with, once the tool answers or has had its time."""
    sleeping = asyncio.ensure_future(clock.sleep(START_CHECKPOINT_WAIT))
    try:
        await asyncio.wait({ready, sleeping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        sleeping.cancel()
    try:
        await desk.make("start")
    except CheckpointError as error:
        _log.warning("the first checkpoint failed, another follows: %s", error)


@contextlib.contextmanager
def first_failure() -> Iterator[None]:
    """Tasks of a group fail together; who waits for them handles one error of ours."""
    try:
        yield
    except* AgentError as group:
        raise _leaf(group) from None


def _leaf(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
