"""How many connections, from whom. A crowd behind one address is normal (an office, a balancer): wide numbers."""

from collections import Counter

MOST = 16_384
MOST_OF_ONE = 4_096


class Limits:
    def __init__(self, most: int = MOST, most_of_one: int = MOST_OF_ONE) -> None:
        self._most = most
        self._most_of_one = min(most_of_one, most)
        self._total = 0
        self._of: Counter[str] = Counter()

    def enter(self, peer: str) -> bool:
        """Whether one more connection of this peer may be; if so it counts until `leave`."""
        if self._total >= self._most or self._of[peer] >= self._most_of_one:
            return False
        self._total += 1
        self._of[peer] += 1
        return True

    def leave(self, peer: str) -> None:
        self._total -= 1
        self._of[peer] -= 1
        if self._of[peer] <= 0:
            del self._of[peer]
