"""Waiting for whichever comes first, something that happens or a moment on the clock."""

import asyncio

from portico_shared.clock import Clock


async def happens_within(event: asyncio.Event, clock: Clock, seconds: float) -> bool:
    """Whether `event` was set before `seconds` had passed."""
    if event.is_set():
        return True
    async with asyncio.TaskGroup() as group:
        waits = {group.create_task(event.wait()), group.create_task(clock.sleep(max(0.0, seconds)))}
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
    return event.is_set()
