"""Who may use which topic."""

import pytest

from portico_gateway.bus.policy import CONTROL, OwnTopics, split

RUN, OTHER = "r" + "1" * 16, "r" + "2" * 16
ALL = [f"portico/runs/{run}/{leaf}" for run in (RUN, OTHER) for leaf in ("status", "report", "answer", "command")]
policy = OwnTopics()


def test_a_run_publishes_its_own_news_and_nothing_else() -> None:
    assert [to for to in ALL if policy.may_publish(RUN, to)] == ALL[:3]


def test_a_run_subscribes_its_own_commands_and_nothing_else() -> None:
    wild = [
        "#",
        "+/+/+/+",
        "portico/#",
        "$SYS/#",
        "$SYS/broker/version",
        f"portico/runs/{RUN}/#",
        "portico/runs/+/command",
    ]
    assert [f for f in ALL + wild if policy.may_subscribe(RUN, f)] == [f"portico/runs/{RUN}/command"]


def test_control_publishes_to_runs_and_hears_them_all() -> None:
    assert [to for to in [*ALL, "portico/other", "$SYS/x"] if policy.may_publish(CONTROL, to)] == ALL
    assert policy.may_subscribe(CONTROL, "portico/runs/+/status")
    assert not policy.may_subscribe(CONTROL, "#") and not policy.may_subscribe(CONTROL, "portico/runs/+/command")


@pytest.mark.parametrize("user", ["", "r1", "control2", "+", "#"])
def test_nobody_else_may_do_anything(user: str) -> None:
    assert not any(policy.may_publish(user, to) or policy.may_subscribe(user, to) for to in ALL)


@pytest.mark.parametrize(
    "name",
    ["", "portico", "portico/runs", f"portico/runs/{RUN}", f"x/runs/{RUN}/status", f"portico/runs/{RUN}/status/x"],
)
def test_other_topics_are_not_ours(name: str) -> None:
    assert split(name) is None
