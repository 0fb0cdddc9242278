"""Time as a thing that is handed over, so that tests can make it jump.

`Clock.now()` is wall-clock time (seconds since the epoch, UTC), for what people read and what is stored.
`Clock.monotonic()` never jumps; every deadline and every window is measured with it.
"""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    def now(self) -> float: ...

    def monotonic(self) -> float: ...

    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class JumpingClock:
    """A clock that moves only when told to; sleepers wake in the order of their deadlines."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self._now = now
        self._monotonic = 1000.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    async def sleep(self, seconds: float) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._sleepers.append((self._monotonic + seconds, waiter))
        await waiter

    async def jump(self, seconds: float) -> None:
        """Advance both clocks and let everything that became due run."""
        target = self._monotonic + seconds
        while True:
            self._sleepers = [s for s in self._sleepers if not s[1].done()]
            due = sorted((s for s in self._sleepers if s[0] <= target), key=lambda s: s[0])
            if not due:
                break
            when, waiter = due[0]
            self._now += when - self._monotonic
            self._monotonic = when
            waiter.set_result(None)
            for _ in range(10):
                await asyncio.sleep(0)
        self._now += target - self._monotonic
        self._monotonic = target
        for _ in range(10):
            await asyncio.sleep(0)

    def set_wall(self, now: float) -> None:
        """Move only the wall clock, as NTP or a suspended laptop does."""
        self._now = now
