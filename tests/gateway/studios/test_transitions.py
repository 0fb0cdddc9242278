"""The table itself: complete, reachable, and with a word for every no."""

import pytest

from portico_gateway.errors import Conflict
from portico_gateway.studios.transitions import (
    LIVE,
    NO_RIGHT,
    REFUSALS,
    RESTING,
    RIGHTS,
    TRANSITIONS,
    Event,
    after,
    allowed,
    refusal,
    require,
)
from portico_gateway.studios.values import Status

EVERY = [(action, status) for action in RIGHTS for status in Status]


def test_every_status_is_reached_from_stopped() -> None:
    reached, frontier = {Status.STOPPED}, [Status.STOPPED]
    while frontier:
        here = frontier.pop()
        for (status, _), following in TRANSITIONS.items():
            if status is here and following not in reached:
                reached.add(following)
                frontier.append(following)
    assert reached == set(Status)


def test_every_live_status_can_end_in_order_and_in_error() -> None:
    for status in LIVE:
        leads = _leads_to(status)
        assert Status.STOPPED in leads
        assert Status.ERRORED in leads


def test_every_resting_status_can_start_again() -> None:
    for status in RESTING:
        assert Status.RUNNING in _leads_to(status)
        assert allowed("start", status)


def test_every_event_has_a_place() -> None:
    assert {event for _, event in TRANSITIONS} == set(Event)


@pytest.mark.parametrize(("action", "status"), EVERY)
def test_an_action_is_allowed_or_refused_with_a_sentence(action: str, status: Status) -> None:
    sentence = refusal(action, status)
    assert allowed(action, status) == (sentence is None)
    if sentence is not None:
        assert len(sentence.split()) > 3
        with pytest.raises(Conflict, match=r"\w"):
            require(action, status)
    else:
        require(action, status)


def test_what_the_product_promises_for_each_status() -> None:
    def actions(status: Status) -> set[str]:
        return {action for action in RIGHTS if allowed(action, status)}

    assert actions(Status.RUNNING) == {"connect", "stop", "fork", "checkpoint", "extend", "logs"}
    assert actions(Status.STOPPED) == {"start", "fork", "edit", "delete", "logs"}
    assert actions(Status.ERRORED) == {"start", "fork", "edit", "delete", "logs"}
    assert actions(Status.STARTING) == {"stop", "logs"}
    assert actions(Status.STOPPING) == {"logs"}
    assert actions(Status.BUILDING) == {"stop", "logs"}
    assert actions(Status.BUILD_FAILED) == {"start", "edit", "delete", "logs"}


def test_actions_and_the_table_of_events_agree() -> None:
    for status in Status:
        assert allowed("start", status) == ((status, Event.START) in TRANSITIONS)
        assert allowed("stop", status) == ((status, Event.STOP) in TRANSITIONS)


def test_an_event_without_a_place_is_a_conflict() -> None:
    with pytest.raises(Conflict):
        after(Status.STOPPED, Event.ANSWERED)


def test_every_action_has_a_word_for_a_role_too_low() -> None:
    assert NO_RIGHT.keys() == RIGHTS.keys()
    assert {action for action, _ in REFUSALS} <= RIGHTS.keys()


def _leads_to(status: Status) -> set[Status]:
    reached: set[Status] = set()
    frontier = [status]
    while frontier:
        here = frontier.pop()
        for (before, _), following in TRANSITIONS.items():
            if before is here and following not in reached:
                reached.add(following)
                frontier.append(following)
    return reached
