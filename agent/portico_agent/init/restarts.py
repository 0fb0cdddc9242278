"""When a dead agent is started again."""

from dataclasses import dataclass

FIRST_SECONDS = 0.1
LONGEST_SECONDS = 15.0
STEADY_SECONDS = 10.0
"""An agent that lived this long was no failure at the start: the next restart is quick again."""
HOPELESS = 20
"""After this many failures in a row (about four minutes), with no tool to keep alive, the run ends."""


@dataclass(slots=True)
class Restarts:
    """Counts starts and failures; holds when the next start is due."""

    number: int = 0
    """The agent's number: grows with each start."""
    due: float | None = 0.0
    """Monotonic seconds; None = an agent runs, or none is to."""
    failures: int = 0
    _started: float = 0.0

    def begin(self, now: float) -> None:
        self.number += 1
        self.due, self._started = None, now

    def failed(self, now: float) -> None:
        """The agent died (or could not start): the first restarts come within a second."""
        self.failures = 1 if now - self._started >= STEADY_SECONDS else self.failures + 1
        self.due = now + min(LONGEST_SECONDS, FIRST_SECONDS * 2 ** (self.failures - 1))

    @property
    def hopeless(self) -> bool:
        return self.failures >= HOPELESS
