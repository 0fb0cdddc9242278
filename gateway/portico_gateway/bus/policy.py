"""Who may use which topic: the one table the door and the broker's plugin read.

a run       publishes   its own status, report, answer      subscribes   its own command
control     publishes   any run's command; clears           subscribes   all runs' status, report, answer
                        what a run has left behind
"""

from typing import Literal, Protocol

from portico_shared.ids import is_run_id
from portico_shared.messages import topic

CONTROL = "control"
"""The user name of the gateway's own client."""

Leaf = Literal["status", "report", "answer"]
UP: tuple[Leaf, ...] = ("status", "report", "answer")
CONTROL_FILTERS = frozenset(f"portico/runs/+/{leaf}" for leaf in UP)


class TopicPolicy(Protocol):
    """Answers for a user that has proved who it is."""

    def may_publish(self, user: str, to: str) -> bool: ...

    def may_subscribe(self, user: str, topic_filter: str) -> bool: ...


class OwnTopics:
    """The policy of the product."""

    def may_publish(self, user: str, to: str) -> bool:
        if user == CONTROL:
            return split(to) is not None
        return any(to == topic(user, leaf) for leaf in UP)

    def may_subscribe(self, user: str, topic_filter: str) -> bool:
        if user == CONTROL:
            return topic_filter in CONTROL_FILTERS
        return topic_filter == topic(user, "command")


def split(name: str) -> tuple[str, str] | None:
    """Run and leaf of one of our topics; None for any other."""
    parts = name.split("/")
    if len(parts) != 4 or parts[:2] != ["portico", "runs"] or not is_run_id(parts[2]):
        return None
    return (parts[2], parts[3]) if parts[3] in (*UP, "command") else None
