"""Waiting longer after each failure, with jitter, so that a fleet does not come back at the same instant."""

from dataclasses import dataclass, field
from random import Random


@dataclass(slots=True)
class Backoff:
    """Full-jitter exponential backoff: the n-th delay is uniform in [base/2, base/2 + base*factor**n), capped.

    Base 0.5 s and cap 15 s: with 500 agents redialling that is about 33 handshakes a second at the worst, and
    nobody waits longer than 15 s for a gateway that is back.
    """

    base: float = 0.5
    cap: float = 15.0
    factor: float = 2.0
    random: Random = field(default_factory=Random)
    failures: int = 0

    def next_delay(self) -> float:
        """The delay in seconds before the next attempt; counts one more failure."""
        ceiling = min(self.cap, self.base * self.factor**self.failures)
        self.failures = min(self.failures + 1, 32)
        return min(self.cap, self.base / 2 + self.random.random() * ceiling)

    def reset(self) -> None:
        """Call after a success."""
        self.failures = 0
