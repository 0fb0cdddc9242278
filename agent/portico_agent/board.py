"""What the run's status is right now, and the only place where it changes."""

from typing import Any, Protocol

import msgspec

from portico_shared.clock import Clock
from portico_shared.messages import Phase, Report, Status, Step


class Road(Protocol):
    """Where it is told: neither call waits."""

    def publish_status(self, status: Status) -> None: ...

    def report(self, report: Report) -> None: ...


class Board:
    """Holds the newest status and tells each change of it."""

    def __init__(self, run: str, agent: int, clock: Clock, road: Road) -> None:
        self._clock = clock
        self._road = road
        self.status = Status(run=run, agent=agent, seq=1, phase="preparing")

    def set(self, **changes: Any) -> None:
        """Change some fields of the status; an unchanged one is not told again."""
        fresh = msgspec.structs.replace(self.status, **changes)
        if fresh != self.status:
            self.status = fresh
            self.tell()

    def tell(self) -> None:
        """The road numbers and keeps it; a repeated one is harmless."""
        self.status = msgspec.structs.replace(self.status, seq=self.status.seq + 1)
        self._road.publish_status(self.status)

    def enter(self, phase: Phase, detail: str = "") -> None:
        self.set(phase=phase, detail=detail, done=0, total=0)

    def report(self, report: Report) -> None:
        self._road.report(report)

    def step(self, name: str, state: str, detail: str = "") -> None:
        """One line of the progress that people see."""
        step = Step(run=self.status.run, at=self._clock.now(), name=name, state=state, detail=detail)  # type: ignore[arg-type]
        self.report(step)
