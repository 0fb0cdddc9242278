"""What counts no more, told to everybody who may still be holding it."""

from collections.abc import Callable

from portico_gateway.link.messages import Revoke
from portico_shared.clock import Clock


class Revocations:
    """Owner of the generation: it grows with each revocation and, starting from the clock, with each start of control,
    so that an older copy of the database makes nothing valid again."""

    def __init__(self, clock: Clock) -> None:
        self.generation = int(clock.now() * 1000)
        self._listeners: list[Callable[[Revoke], None]] = []

    def listen(self, listener: Callable[[Revoke], None]) -> None:
        """`listener` is called with every revocation from now on; it must not raise."""
        self._listeners.append(listener)

    def revoke(self, *, user_id: int = 0, session_id: str = "", sign_in: str = "", run: str = "") -> None:
        self.generation += 1
        message = Revoke(generation=self.generation, user_id=user_id, session_id=session_id, sign_in=sign_in, run=run)
        for listener in self._listeners:
            listener(message)
