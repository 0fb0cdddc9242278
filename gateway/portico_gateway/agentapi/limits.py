"""How often one run may call: a bucket that fills with time."""

from collections import OrderedDict

from portico_gateway.errors import TooMany
from portico_shared.clock import Clock

MAX_KEYS = 10_000


class Buckets:
    """One bucket per key: `burst` calls at once, `rate` a second in the long run. Old keys are forgotten."""

    def __init__(self, clock: Clock, *, rate: float, burst: float) -> None:
        self._clock = clock
        self._rate = rate
        self._burst = burst
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str) -> None:
        """Raises TooMany when the bucket is empty."""
        now = self._clock.monotonic()
        level, at = self._levels.pop(key, (self._burst, now))
        level = min(self._burst, level + (now - at) * self._rate)
        self._levels[key] = (max(0.0, level - 1), now)
        while len(self._levels) > MAX_KEYS:
            self._levels.popitem(last=False)
        if level < 1:
            raise TooMany("too many calls: slow down and try again")
