"""What the run's status is right now, and the only place where it changes."""

import asyncio
from typing import Any

import msgspec

from portico_shared.clock import Clock
from portico_shared.messages import Phase, Report, Status, Step

MAX_REPORTS = 256
"""Unsent reports kept while the control road is away; the oldest go first. A start makes about twenty."""


class Board:
    """Holds the newest status and the reports that wait to be sent. The control road reads, the session writes."""

    def __init__(self, run: str, agent: int, clock: Clock) -> None:
        self._clock = clock
        self.status = Status(run=run, agent=agent, seq=1, phase="preparing")
        self.changed = asyncio.Event()
        """Set at each change of the status and each new report; whoever publishes clears it first."""
        self.reports: list[Report] = []

    def set(self, **changes: Any) -> None:
        """Change some fields of the status; an unchanged one is not published again."""
        fresh = msgspec.structs.replace(self.status, **changes)
        if fresh != self.status:
            self.status = msgspec.structs.replace(fresh, seq=self.status.seq + 1)
            self.changed.set()

    def enter(self, phase: Phase, detail: str = "") -> None:
        self.set(phase=phase, detail=detail, done=0, total=0)

    def report(self, report: Report) -> None:
        self.reports.append(report)
        del self.reports[:-MAX_REPORTS]
        self.changed.set()

    def take_reports(self) -> list[Report]:
        taken, self.reports = self.reports, []
        return taken

    def step(self, name: str, state: str, detail: str = "") -> None:
        """One line of the progress that people see."""
        step = Step(run=self.status.run, at=self._clock.now(), name=name, state=state, detail=detail)  # type: ignore[arg-type]
        self.report(step)
