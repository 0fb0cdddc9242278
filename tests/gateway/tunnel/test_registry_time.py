"""What the registry does as time passes, with transports that only remember and a clock that jumps."""

import asyncio
from typing import Any, cast

import pytest

from portico_gateway.errors import TooMany, Unavailable
from portico_gateway.link.messages import Route, Tunnels
from portico_gateway.tunnel.connection import TunnelConnection
from portico_gateway.tunnel.pool import FLOOR, MAX_CONNECTIONS
from portico_gateway.tunnel.registry import (
    ACCEPT_SECONDS,
    EXCESS_SECONDS,
    IDLE_SECONDS,
    SWEEP_SECONDS,
    Registry,
    ToolRefused,
)
from portico_shared.clock import JumpingClock
from portico_shared.tunnel import KEEPALIVE, KEEPALIVE_INTERVAL

STUDIO, RUN = "00000001", "r" + "1" * 16


class Wire:
    """A transport: what was written to it, and whether it was closed."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed = False
        self.protocol: Any = None

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def is_reading(self) -> bool:
        return True

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def get_extra_info(self, name: str) -> None:
        return None


class World:
    def __init__(self) -> None:
        self.clock = JumpingClock()
        self.told: list[Tunnels] = []
        self.registry = Registry(self.told.append, self.clock)
        self.registry.apply(Route(session_id=STUDIO, state="running", run=RUN, port=80))

    def spare(self) -> Wire:
        wire = Wire()
        self.registry.add(cast(asyncio.Transport, wire), STUDIO, RUN)
        return wire

    def pass_time(self, seconds: float) -> None:
        self.clock._monotonic += seconds
        self.registry.sweep()

    async def claimed(self, wire: Wire, port: int = 80) -> TunnelConnection:
        """Claim, with the agent saying yes on this wire."""
        asked = asyncio.ensure_future(self.registry.claim(STUDIO, port))
        await asyncio.sleep(0)
        wire.protocol.data_received(b"+")
        return await asked


@pytest.fixture
def world() -> World:
    return World()


async def test_a_spare_hears_from_the_gateway_every_25_seconds(world: World) -> None:
    wire = world.spare()
    world.pass_time(KEEPALIVE_INTERVAL - 1)
    assert wire.written == []
    world.pass_time(1)
    world.pass_time(1)
    assert wire.written == [KEEPALIVE]
    world.pass_time(KEEPALIVE_INTERVAL)
    assert wire.written == [KEEPALIVE] * 2


async def test_the_sweep_runs_by_itself(world: World) -> None:
    wire = world.spare()
    task = asyncio.ensure_future(world.registry.run())
    await asyncio.sleep(0)
    await world.clock.jump(KEEPALIVE_INTERVAL + SWEEP_SECONDS)
    assert wire.written == [KEEPALIVE]
    task.cancel()


async def test_a_claimed_connection_hears_nothing_but_its_claim(world: World) -> None:
    wire = world.spare()
    await world.claimed(wire)
    world.pass_time(100)
    assert wire.written == [b"CLAIM 80 http 8\n"] and not wire.closed


async def test_an_agent_that_does_not_answer_a_claim_costs_that_spare_and_the_next_is_tried(world: World) -> None:
    good, mute = world.spare(), world.spare()
    asked = asyncio.ensure_future(world.registry.claim(STUDIO, 80))
    await asyncio.sleep(0)
    assert mute.written and not good.written
    world.pass_time(ACCEPT_SECONDS + 0.1)
    assert mute.closed and good.written
    good.protocol.data_received(b"+")
    assert (await asked).transport is cast(asyncio.Transport, good)


async def test_three_dead_spares_are_enough_for_one_stream(world: World) -> None:
    wires = [world.spare() for _ in range(5)]
    asked = asyncio.ensure_future(world.registry.claim(STUDIO, 80))
    await asyncio.sleep(0)
    for wire in reversed(wires[2:]):
        wire.protocol.connection_lost(ConnectionResetError())
    with pytest.raises(Unavailable, match="does not answer"):
        await asked
    assert not wires[0].written and not wires[1].written


async def test_a_no_is_final_and_costs_one_spare(world: World) -> None:
    other, wire = world.spare(), world.spare()
    asked = asyncio.ensure_future(world.registry.claim(STUDIO, 80))
    await asyncio.sleep(0)
    wire.protocol.data_received(b"-")
    with pytest.raises(ToolRefused):
        await asked
    assert not other.written


@pytest.mark.parametrize("answer", [b"?", b"-+", b"HTTP/1.1 200 OK\r\n", b"\n"])
async def test_any_other_answer_to_a_claim_is_a_fault(world: World, answer: bytes) -> None:
    good, bad = world.spare(), world.spare()
    asked = asyncio.ensure_future(world.registry.claim(STUDIO, 80))
    await asyncio.sleep(0)
    bad.protocol.data_received(answer)
    assert bad.closed and good.written
    good.protocol.data_received(b"+")
    await asked


async def test_a_spare_that_speaks_is_dropped(world: World) -> None:
    wire = world.spare()
    wire.protocol.data_received(b"\n")
    assert wire.closed and world.registry.statistics()[STUDIO].spare == 0


async def test_an_idle_connection_that_speaks_is_dropped_and_not_used_again(world: World) -> None:
    wire = world.spare()
    connection = await world.claimed(wire)
    world.registry.give_back(connection)
    wire.protocol.data_received(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    assert wire.closed and world.registry.take(STUDIO, 80) is None


async def test_bytes_with_the_yes_are_kept_for_who_asked(world: World) -> None:
    wire = world.spare()
    asked = asyncio.ensure_future(world.registry.claim(STUDIO, 22, "raw"))
    await asyncio.sleep(0)
    wire.protocol.data_received(b"+SSH-2.0")
    wire.protocol.data_received(b"-x\r\n")
    assert (await asked).attach(asyncio.Protocol()) == b"SSH-2.0-x\r\n"


async def test_a_connection_lost_right_after_its_yes_is_replaced(world: World) -> None:
    good, bad = world.spare(), world.spare()
    asked = asyncio.ensure_future(world.registry.claim(STUDIO, 80))
    await asyncio.sleep(0)
    bad.protocol.data_received(b"+")
    bad.protocol.connection_lost(None)
    await asyncio.sleep(0)
    good.protocol.data_received(b"+")
    assert (await asked).transport is cast(asyncio.Transport, good)


async def test_a_connection_not_used_for_a_minute_is_let_go(world: World) -> None:
    wire = world.spare()
    world.registry.give_back(await world.claimed(wire))
    world.pass_time(IDLE_SECONDS)
    assert not wire.closed
    world.pass_time(1)
    assert wire.closed


async def test_after_a_burst_the_spares_above_the_floor_are_let_go(world: World) -> None:
    wires = [world.spare() for _ in range(FLOOR + 4)]
    world.pass_time(EXCESS_SECONDS)
    assert not any(wire.closed for wire in wires)
    world.pass_time(1)
    assert [wire.closed for wire in wires] == [True] * 4 + [False] * FLOOR


async def test_a_run_has_a_bounded_number_of_connections(world: World) -> None:
    for _ in range(MAX_CONNECTIONS):
        world.spare()
    with pytest.raises(TooMany):
        world.spare()


async def test_counts_are_told_with_the_sweep_and_first_and_last_at_once(world: World) -> None:
    wires = [world.spare() for _ in range(3)]
    assert [t.connections for t in world.told] == [1]
    world.pass_time(1)
    world.pass_time(1)
    assert [t.connections for t in world.told] == [1, 3]
    for wire in wires:
        wire.protocol.connection_lost(None)
    assert [t.connections for t in world.told] == [1, 3, 0]


async def test_a_stream_that_waits_for_a_run_that_ends_is_told(world: World) -> None:
    asked = asyncio.ensure_future(world.registry.claim(STUDIO, 80))
    await asyncio.sleep(0)
    world.registry.apply(Route(session_id=STUDIO, state="stopped"))
    with pytest.raises(Unavailable, match="another run"):
        await asked


async def test_a_connection_of_a_closed_pool_may_be_given_back_and_dropped(world: World) -> None:
    connection = await world.claimed(world.spare())
    world.registry.apply(Route(session_id=STUDIO, state="starting", run="r" + "2" * 16))
    world.registry.give_back(connection)
    world.registry.drop(connection)
    world.registry.drop(connection)
    assert world.registry.statistics()[STUDIO].idle == 0
