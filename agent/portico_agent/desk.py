"""Where checkpoints are asked for: one at a time, each reported, failures told and retried later."""

import asyncio
import logging
from dataclasses import dataclass
from typing import Protocol

from portico_agent.board import Board
from portico_agent.errors import CheckpointError
from portico_shared.backoff import Backoff
from portico_shared.clock import Clock
from portico_shared.messages import CheckpointDone

FINAL_ATTEMPTS = 5
"""For the last checkpoint of a run: some minutes of trying; then the volume is kept, and salvaged at the next start."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Captured:
    """A durable checkpoint."""

    head: str
    changed: bool = True
    """False: nothing had changed since the newest one, which `head` names."""
    uploaded: int = 0
    seconds: float = 0.0
    pause_ms: float = 0.0
    notes: tuple[str, ...] = ()


class Engine(Protocol):
    """What the desk needs of the checkpoint engine."""

    async def capture(self, reason: str, row: int) -> Captured:
        """Make a checkpoint, durable and committed. Raises CheckpointError, or RunOver when none will ever be taken.
        Cancelling it leaves the one before whole."""
        ...


class Desk:
    """Owns when a checkpoint is made. Every method is safe to call at any time; they queue for one another."""

    def __init__(self, engine: Engine, board: Board, clock: Clock) -> None:
        self._engine = engine
        self._board = board
        self._clock = clock
        self._turn = asyncio.Lock()
        self._safe_since = clock.monotonic()
        self._failed = False
        """People were told that the newest attempt failed, and not yet that all is well again."""

    async def make(self, reason: str, row: int = 0) -> Captured:
        """Raises CheckpointError, after reporting the failure, or RunOver."""
        async with self._turn:
            try:
                captured = await self._engine.capture(reason, row)
            except CheckpointError as error:
                self._report_failure(reason, error)
                raise
        self._safe_since = self._clock.monotonic()
        self._board.set(last_checkpoint=self._clock.now(), checkpoint_lag=0.0)
        if captured.changed or reason != "interval" or self._failed:
            self._report(reason, captured)
            self._failed = False
        return captured

    async def make_final(self, reason: str) -> Captured:
        """The last one of a run: tried several times. Raises AgentError when all failed."""
        backoff = Backoff(base=1.0)
        for _ in range(FINAL_ATTEMPTS - 1):
            try:
                return await self.make(reason)
            except CheckpointError:
                await self._clock.sleep(backoff.next_delay())
        return await self.make(reason)

    async def every(self, interval: float) -> None:
        """At each interval; where nothing changed the engine sends nothing. Goes on after failures."""
        while True:
            await self._clock.sleep(interval)
            try:
                await self.make("interval")
            except CheckpointError as error:
                _log.warning("checkpoint failed: %s", error)

    def _report(self, reason: str, captured: Captured) -> None:
        done = CheckpointDone(
            run=self._board.status.run,
            at=self._clock.now(),
            ok=True,
            reason=reason,
            head=captured.head,
            uploaded=captured.uploaded,
            seconds=captured.seconds,
            pause_ms=captured.pause_ms,
            detail="; ".join(captured.notes)[:1000],
        )
        self._board.report(done)

    def _report_failure(self, reason: str, error: CheckpointError) -> None:
        self._failed = True
        run, now = self._board.status.run, self._clock.now()
        self._board.set(checkpoint_lag=self._clock.monotonic() - self._safe_since)
        self._board.report(CheckpointDone(run=run, at=now, ok=False, reason=reason, detail=str(error)[:1000]))
