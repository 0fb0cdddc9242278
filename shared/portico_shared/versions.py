"""Which protocol a side speaks, and when two versions get along.

Versions meet in the first message (`messages.Identify`). A gateway accepts agents of its own minor version and two
minors back, because an agent is frozen in a user's image and lives longer than a gateway.
"""

from typing import NamedTuple


class Version(NamedTuple):
    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


PROTOCOL = Version(1, 0)
MINORS_BACK = 2


def accepts(mine: Version, theirs: Version) -> bool:
    """Whether a gateway that speaks `mine` works with an agent that speaks `theirs`."""
    return mine.major == theirs.major and 0 <= mine.minor - theirs.minor <= MINORS_BACK
