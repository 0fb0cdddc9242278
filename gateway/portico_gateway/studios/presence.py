"""Who is connected to which studio, as the edge workers say."""

from portico_gateway.link.messages import Presence
from portico_shared.clock import Clock

FORGET_AFTER = 120.0
"""Seconds without a word of a worker after which its visitors count as gone: it repeats itself every few seconds."""


class Visitors:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: dict[tuple[str, str], tuple[float, dict[int, float]]] = {}

    def report(self, worker: str, presence: Presence) -> bool:
        """Take what a worker says, which replaces what it said before. Whether the people changed."""
        key = (presence.session_id, worker)
        before = set(self.of(presence.session_id))
        if presence.users:
            self._seen[key] = (self._clock.monotonic(), dict(presence.users))
        else:
            self._seen.pop(key, None)
        return set(self.of(presence.session_id)) != before

    def worker_gone(self, worker: str) -> None:
        for key in [key for key in self._seen if key[1] == worker]:
            del self._seen[key]

    def of(self, session_id: str) -> dict[int, float]:
        """User id -> last seen (epoch seconds)."""
        limit = self._clock.monotonic() - FORGET_AFTER
        found: dict[int, float] = {}
        for (studio, _), (at, users) in self._seen.items():
            if studio == session_id and at >= limit:
                for user, seen in users.items():
                    found[user] = max(seen, found.get(user, 0.0))
        return found
