"""Who is connected to what: told to control when it changed, at most every few seconds."""

from collections.abc import Callable

from portico_gateway.link.messages import Presence
from portico_shared.clock import Clock

RECENT = 30.0
"""Seconds a request keeps its user 'here'; an open WebSocket does so all the time."""
MOST_USERS = 500


class PresenceBook:
    def __init__(self, tell: Callable[[Presence], object], clock: Clock) -> None:
        self._tell = tell
        self._clock = clock
        self._seen: dict[str, dict[int, float]] = {}
        self._open: dict[str, dict[int, int]] = {}
        self._told: dict[str, frozenset[int]] = {}

    def seen(self, session_id: str, user_id: int) -> None:
        users = self._seen.setdefault(session_id, {})
        if user_id in users or len(users) < MOST_USERS:
            users[user_id] = self._clock.now()

    def opened(self, session_id: str, user_id: int) -> None:
        users = self._open.setdefault(session_id, {})
        users[user_id] = users.get(user_id, 0) + 1

    def closed(self, session_id: str, user_id: int) -> None:
        users = self._open.get(session_id, {})
        users[user_id] = users.get(user_id, 1) - 1
        if users[user_id] <= 0:
            users.pop(user_id, None)
            self.seen(session_id, user_id)
        if not users:
            self._open.pop(session_id, None)

    def sweep(self) -> None:
        """Tell control of every studio whose set of people changed."""
        for session_id in set(self._seen) | set(self._open) | set(self._told):
            news = self._present(session_id)
            who = frozenset(user_id for user_id, _ in news.users)
            if who != self._told.get(session_id, frozenset()):
                self._tell(news)
            if who:
                self._told[session_id] = who
            else:
                self._told.pop(session_id, None)
                self._seen.pop(session_id, None)

    def all(self) -> list[Presence]:
        """For a control that has just come (back)."""
        return [self._present(session_id) for session_id in set(self._seen) | set(self._open)]

    def _present(self, session_id: str) -> Presence:
        now = self._clock.now()
        seen = self._seen.get(session_id, {})
        for user_id in [u for u, at in seen.items() if now - at > RECENT]:
            del seen[user_id]
        users = {**seen, **dict.fromkeys(self._open.get(session_id, {}), now)}
        return Presence(session_id=session_id, users=tuple(sorted(users.items())))
