"""A steady beat of requests to a studio while something is done to it: what was answered, and the longest silence."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator

import aiohttp

from portico_shared.tasks import spawn
from support.portico import Portico

BEAT = 0.05
PATIENCE = 20.0


class Pulse:
    """`async with Pulse.of(portico, session_id) as pulse:` beats meanwhile; afterwards its figures stand."""

    def __init__(self, portico: Portico, session_id: str) -> None:
        self.portico = portico
        self.session_id = session_id
        self.answers: Counter[str] = Counter()
        self.longest_gap = 0.0
        """Seconds between two good answers, at worst: each beat is sent only when the one before is over."""
        self._last = time.monotonic()

    @classmethod
    @contextlib.asynccontextmanager
    async def of(cls, portico: Portico, session_id: str) -> AsyncIterator["Pulse"]:
        pulse = cls(portico, session_id)
        beating = spawn(pulse._beat(), name="pulse")
        try:
            yield pulse
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)
        pulse._count_gap()

    async def next_good(self, seconds: float = PATIENCE) -> float:
        """Wait for good answers to requests that begin from now on. Returns the seconds until the first."""
        began, before = time.monotonic(), self.answers["200"]
        while self.answers["200"] < before + 2:  # the first may have been sent earlier
            assert time.monotonic() - began < seconds, f"no good answer within {seconds} s: {self.answers}"
            await asyncio.sleep(BEAT / 2)
        return time.monotonic() - began

    async def _beat(self) -> None:
        while True:
            try:
                async with asyncio.timeout(PATIENCE):
                    status, _ = await self.portico.studio_request(self.session_id, "/api/status")
                said = str(status)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                said = type(error).__name__
            self.answers[said] += 1
            if said == "200":
                self._count_gap()
            await asyncio.sleep(BEAT)

    def _count_gap(self) -> None:
        now = time.monotonic()
        self.longest_gap, self._last = max(self.longest_gap, now - self._last), now
