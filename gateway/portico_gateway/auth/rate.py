"""Wrong passwords slow the next attempt down: by account and by address, in bounded memory."""

from collections import OrderedDict
from dataclasses import dataclass

from portico_gateway.errors import TooMany
from portico_shared.clock import Clock

FREE = 5
"""Wrong attempts before any delay: people mistype."""
LONGEST = 300.0
FORGET = 3600.0
REMEMBERED = 20_000


@dataclass(slots=True)
class _Record:
    failures: int
    last: float


class SignInRate:
    """`check` before an attempt, `failed` or `succeeded` after it. Keys: account name with address, and address alone.

    An account alone is no key: a stranger must not be able to lock its owner out from elsewhere.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._records: OrderedDict[str, _Record] = OrderedDict()

    def check(self, name: str, peer: str) -> None:
        """Raises TooMany with the seconds to wait."""
        for key, free in _keys(name, peer):
            record = self._records.get(key)
            if record is None or record.failures < free:
                continue
            delay = min(LONGEST, 2.0 ** (record.failures - free))
            left = record.last + delay - self._clock.monotonic()
            if left > 0:
                raise TooMany(f"too many wrong attempts; try again in {int(left) + 1} s")

    def failed(self, name: str, peer: str) -> None:
        now = self._clock.monotonic()
        for key, _ in _keys(name, peer):
            record = self._records.pop(key, None) or _Record(0, now)
            if now - record.last > FORGET:
                record.failures = 0
            record.failures, record.last = min(record.failures + 1, 64), now
            self._records[key] = record
        while len(self._records) > REMEMBERED:
            self._records.popitem(last=False)

    def succeeded(self, name: str, peer: str) -> None:
        self._records.pop(_keys(name, peer)[0][0], None)


def _keys(name: str, peer: str) -> tuple[tuple[str, int], tuple[str, int]]:
    return (f"{name}\0{peer}", FREE), (f"\0{peer}", FREE * 10)
