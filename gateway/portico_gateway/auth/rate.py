"""Wrong passwords slow the next attempt down: by account and by address, in bounded memory."""

from collections import OrderedDict
from dataclasses import dataclass

from portico_gateway.errors import TooMany
from portico_shared.clock import Clock

FREE = 5
"""Wrong attempts on one account from one address before any delay: people mistype."""
FREE_FROM_ADDRESS = 50
"""From one address, whatever the account: an office behind one address mistypes more."""
LONGEST = 300.0
FORGET = 3600.0
REMEMBERED = 20_000


@dataclass(slots=True)
class _Record:
    failures: int
    last: float


class SignInRate:
    """`attempt` before the password is looked at, `succeeded` when it was right.

    Keys: account with address, and address alone. An account alone is no key: a stranger must not be able to lock its
    owner out from elsewhere.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._records: OrderedDict[tuple[str, str], _Record] = OrderedDict()

    def attempt(self, name: str, peer: str) -> None:
        """Count an attempt, as a wrong one until it is known better: many at once must not slip through together.

        Raises TooMany with the seconds to wait; a refused attempt is not counted.
        """
        now = self._clock.monotonic()
        keys = (((name, peer), FREE), (("", peer), FREE_FROM_ADDRESS))
        for key, free in keys:
            self._refuse(key, free, now)
        for key, _ in keys:
            record = self._records.pop(key, None) or _Record(0, now)
            record.failures, record.last = min(record.failures + 1, 64), now
            self._records[key] = record
        while len(self._records) > REMEMBERED:
            self._records.popitem(last=False)

    def _refuse(self, key: tuple[str, str], free: int, now: float) -> None:
        record = self._records.get(key)
        if record is None:
            return
        if now - record.last > FORGET:
            del self._records[key]
        elif record.failures >= free:
            left = record.last + min(LONGEST, 2.0 ** (record.failures - free)) - now
            if left > 0:
                raise TooMany(f"too many wrong attempts; try again in {int(left) + 1} s")

    def succeeded(self, name: str, peer: str) -> None:
        self._records.pop((name, peer), None)
        address = self._records.get(("", peer))
        if address is not None:
            address.failures = max(0, address.failures - 1)
