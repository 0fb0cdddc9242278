"""The bookkeeping of one run's connections, without a socket."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portico_gateway.tunnel.pool import BURST, FLOOR, MAX_CONNECTIONS, MOVES, Pool, State, Waiter, move


@dataclass(eq=False)
class Wire:
    state: State = State.SPARE
    port: int = 0


def pool(spares: int = 0) -> Pool[Wire, str]:
    made: Pool[Wire, str] = Pool(run="r1")
    for _ in range(spares):
        made.add_spare(Wire())
    return made


def wait(in_pool: Pool[Wire, str], ticket: str, port: int = 80) -> None:
    in_pool.waiters.append(Waiter(port=port, kind="http", ticket=ticket))


def test_a_spare_is_claimed_for_the_port_that_is_wanted() -> None:
    p = pool(spares=8)
    wait(p, "a", port=8888)
    (assigned,) = p.assign()
    assert assigned.claim is not None and (assigned.claim.port, assigned.claim.wanted) == (8888, 1)
    assert assigned.connection.state is State.CLAIMING and len(p.spares) == 7


def test_an_idle_connection_of_the_port_is_used_before_a_spare_and_needs_no_claim() -> None:
    p = pool(spares=2)
    wait(p, "a")
    first = p.assign()[0].connection
    move(first, State.BUSY)
    p.give_back(first)
    wait(p, "b")
    (assigned,) = p.assign()
    assert assigned.connection is first and assigned.claim is None


def test_an_idle_connection_serves_its_own_port_only() -> None:
    p = pool(spares=1)
    wait(p, "a", port=80)
    first = p.assign()[0].connection
    move(first, State.BUSY)
    p.give_back(first)
    wait(p, "b", port=81)
    assert p.assign() == [] and p.take_idle(81) is None and p.take_idle(80) is first


def test_the_connection_used_last_is_taken_first() -> None:
    p = pool(spares=2)
    wait(p, "a")
    wait(p, "b")
    one, two = (a.connection for a in p.assign())
    for wire in (one, two):
        move(wire, State.BUSY)
        p.give_back(wire)
    assert p.take_idle(80) is two and p.take_idle(80) is one


def test_waiters_are_served_in_order() -> None:
    p = pool()
    for ticket in "abc":
        wait(p, ticket)
    assert p.assign() == []
    p.add_spare(Wire())
    p.add_spare(Wire())
    assert [a.waiter.ticket for a in p.assign()] == ["a", "b"]
    assert [w.ticket for w in p.waiters] == ["c"]


def test_a_burst_asks_for_what_waits_and_the_floor() -> None:
    p = pool(spares=1)
    for n in range(20):
        wait(p, str(n))
    (assigned,) = p.assign()
    assert assigned.claim is not None and assigned.claim.wanted == 19 + FLOOR


def test_a_burst_asks_for_a_bounded_number() -> None:
    p = pool(spares=1)
    for n in range(120):
        wait(p, str(n))
    assert p.assign()[0].claim.wanted == BURST  # type: ignore[union-attr]


def test_a_run_near_its_limit_is_not_asked_for_more_than_it_may_have() -> None:
    p = pool(spares=1)
    p.connections |= {Wire(State.BUSY) for _ in range(MAX_CONNECTIONS - 3)}
    for n in range(20):
        wait(p, str(n))
    assert p.assign()[0].claim.wanted == 2  # type: ignore[union-attr]


@pytest.mark.parametrize("state", list(State))
def test_a_removed_connection_is_in_no_list(state: State) -> None:
    p = pool(spares=3)
    wire = p.spares[1]
    if state is not State.SPARE:
        p.spares.remove(wire)
        wire.state, wire.port = state, 80
    if state is State.IDLE:
        p.idle[80] = [wire]
    p.remove(wire)
    p.remove(wire)
    assert wire.state is State.CLOSED
    assert wire not in p.connections and wire not in p.spares and wire not in p.idle.get(80, [])


@pytest.mark.parametrize("start", list(State))
@pytest.mark.parametrize("to", list(State))
def test_only_the_moves_of_the_table_are_made(start: State, to: State) -> None:
    wire = Wire(start)
    if to in MOVES[start]:
        move(wire, to)
        assert wire.state is to
    else:
        with pytest.raises(AssertionError, match="cannot go"):
            move(wire, to)


@given(st.lists(st.sampled_from(["spare", "wait", "done", "lost", "accept"]), max_size=60))
def test_no_history_gives_one_connection_to_two_streams(history: list[str]) -> None:
    p = pool()
    busy: list[Wire] = []
    claiming: list[Wire] = []
    for n, what in enumerate(history):
        match what:
            case "spare":
                p.add_spare(Wire())
            case "wait":
                wait(p, str(n), port=80 + n % 2)
            case "accept" if claiming:
                move(claiming[0], State.BUSY)
                busy.append(claiming.pop(0))
            case "done" if busy:
                p.give_back(busy.pop(0))
            case "lost" if p.connections:
                gone = next(iter(p.connections))
                p.remove(gone)
                busy, claiming = [w for w in busy if w is not gone], [w for w in claiming if w is not gone]
        for assigned in p.assign():
            assert assigned.connection not in busy and assigned.connection not in claiming
            assert assigned.connection.port == assigned.waiter.port
            (claiming if assigned.claim else busy).append(assigned.connection)
        assert not p.waiters or not p.spares
        listed = {*p.spares, *(w for idle in p.idle.values() for w in idle)}
        assert listed | set(busy) | set(claiming) == p.connections
