"""The control road end to end: the real broker, control's client, agents through the gateway's upgrade."""

import asyncio
import json
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import aiomqtt
import msgspec
import pytest

from portico_agent.control_road import ControlRoad
from portico_gateway.bus.policy import CONTROL
from portico_gateway.errors import Unavailable
from portico_shared.messages import MAX_MESSAGE, Answer, MakeCheckpoint, Reidentify, Status, Step, Stop, topic
from support.bus import OTHER, RUN, RUNS, Agent, BusHouse, bus_house, quick
from support.roads import until


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[BusHouse]:
    async with bus_house(tmp_path) as made:
        yield made


class AllowAll:
    """What a careless set-up would say."""

    def may_publish(self, user: str, to: str) -> bool:
        return True

    def may_subscribe(self, user: str, topic_filter: str) -> bool:
        return True


def status(phase: str = "running", run: str = RUN) -> Status:
    return Status(run=run, agent=0, seq=0, phase=phase)  # type: ignore[arg-type]


def step(n: int) -> Step:
    return Step(run=RUN, at=float(n), name=f"step {n}", state="done")


async def test_a_status_and_reports_come_up_in_order(house: BusHouse) -> None:
    async with Agent(house).running() as agent:
        agent.road.publish_status(status("launching"))
        assert (await house.next_status("launching")).agent == 1
        for n in range(20):
            agent.road.report(step(n))
        heard = [await house.said.get() for _ in range(20)]
        assert heard == [(RUN, step(n)) for n in range(20)]


async def test_a_command_is_done_and_answered(house: BusHouse) -> None:
    async with Agent(house).running() as agent:
        answer = await house.bus.command(RUN, Stop(id="c1", reason="user"), timeout=5)
        assert answer == Answer(id="c1", run=RUN, ok=True, detail="done")
        assert agent.commands == [Stop(id="c1", reason="user")]


async def test_a_repeated_command_is_answered_from_memory(house: BusHouse) -> None:
    async with Agent(house).running() as agent:
        for _ in range(3):
            assert (await house.bus.command(RUN, MakeCheckpoint(id="c1"), timeout=5)).ok
        assert len(agent.commands) == 1


async def test_a_command_repeated_while_it_is_being_done_is_done_once(house: BusHouse) -> None:
    async with Agent(house).running() as agent:
        agent.gate.clear()
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(house.bus.command(RUN, MakeCheckpoint(id="c1"), timeout=5)) for _ in range(3)]
            await until(lambda: len(agent.commands) == 1)
            agent.gate.set()
        assert [task.result().ok for task in asked] == [True] * 3 and len(agent.commands) == 1


async def test_a_command_that_fails_is_answered_with_its_words(house: BusHouse) -> None:
    async def fails(command: object) -> Answer:
        raise RuntimeError("the disk is full")

    agent = Agent(house)
    agent.road._on_command = fails
    async with agent.running():
        answer = await house.bus.command(RUN, MakeCheckpoint(id="c1"), timeout=5)
        assert (answer.ok, answer.detail) == (False, "the disk is full")


async def test_a_command_to_nobody_is_unavailable(house: BusHouse) -> None:
    with pytest.raises(Unavailable, match="did not answer"):
        await house.bus.command(RUN, Reidentify(id="c1"), timeout=0.05)


async def test_a_killed_agent_is_unreachable_within_a_second(house: BusHouse) -> None:
    async with Agent(house).running() as agent:
        agent.road.publish_status(status())
        await house.next_status("running")
        assert agent.road._pipe is not None
        agent.road._pipe.abort()  # as the kernel does for a killed process
        assert (await house.next_status("unreachable", seconds=1.0)).agent == 1
        await house.next_status("running")  # it is back, and says again where it is


async def test_a_cancelled_agent_leaves_its_will(house: BusHouse) -> None:
    async with Agent(house).running() as agent:
        agent.road.publish_status(status())
        await house.next_status("running")
    await house.next_status("unreachable", seconds=2.0)


async def test_an_agent_that_leaves_fires_no_will(house: BusHouse) -> None:
    async with Agent(house).running() as agent:
        agent.road.report(step(1))
        assert await agent.road.leave(status("left"))
    heard = []
    async with asyncio.timeout(5):
        while not heard or heard[-1] != "left":
            _, said = await house.said.get()
            heard.append(said.phase if isinstance(said, Status) else "report")
    assert "report" in heard or await house.said.get()
    await until(lambda: house.broker.statistics()["clients"] == 1)
    assert house.said.empty() or isinstance((await house.said.get())[1], Step)


async def test_a_dead_gateway_is_redialled_and_what_was_said_meanwhile_arrives(house: BusHouse) -> None:
    async with Agent(house).running() as agent:
        agent.road.publish_status(status("launching"))
        await house.next_status("launching")
        await house.gatehouse.die()
        house.gatehouse.acceptor.close()
        await house.next_status("unreachable")
        await until(lambda: not agent.road.connected.is_set())
        agent.road.publish_status(status("running"))
        agent.road.report(step(7))
        await house.gatehouse.listen(house.folder / "edge.sock")
        newest = await house.next_status("running")
        assert newest.seq > 1_000_000
        async with asyncio.timeout(5):
            assert await house.said.get() == (RUN, step(7))


async def test_a_broker_that_restarts_hears_everything_again(house: BusHouse) -> None:
    async with Agent(house).running() as agent:
        agent.road.publish_status(status("running"))
        before = await house.next_status("running")
        await house.restart_broker()
        after = await house.next_status("running", seconds=10)
        assert after.seq > before.seq
        assert (await house.bus.command(RUN, Reidentify(id="c9"), timeout=5)).ok


async def test_a_status_is_kept_for_a_control_that_comes_late(house: BusHouse) -> None:
    async with Agent(house).running() as agent:
        agent.road.publish_status(status("running"))
        await house.next_status("running")
        late = BusHouse(house.folder)
        late.broker = house.broker
        async with asyncio.TaskGroup() as group:
            task = group.create_task(late.bus.run())  # takes the place of the first
            assert (await late.next_status("running")).run == RUN
            task.cancel()


async def test_what_a_run_left_behind_can_be_cleared(house: BusHouse) -> None:
    async with Agent(house).running() as agent:
        await agent.road.leave(status("left"))
    await house.next_status("left")
    await house.bus.forget(RUN)
    async with house.raw(CONTROL, house.broker.secret) as control:
        await control.subscribe("portico/runs/+/status", qos=1)
        await control.publish(topic(OTHER, "status"), b"mark", qos=1)
        async for message in control.messages:
            assert message.payload == b"mark"
            break


@pytest.mark.parametrize(
    ("user", "password", "options"),
    [
        (RUN, "token-2", {}),
        (RUN, "", {}),
        (CONTROL, "token-1", {}),
        ("root", "token-1", {}),
        (RUN, RUNS[RUN], {"identifier": OTHER}),
        (RUN, RUNS[RUN], {"identifier": "anything"}),
        (RUN, RUNS[RUN], {"clean_session": False}),
        (RUN, RUNS[RUN], {"will": aiomqtt.Will(topic(OTHER, "status"), b"x")}),
        (RUN, RUNS[RUN], {"will": aiomqtt.Will(topic(RUN, "status"), b"x" * 5000)}),
        (RUN, RUNS[RUN], {"protocol": aiomqtt.ProtocolVersion.V31}),
    ],
)
async def test_who_is_not_a_run_with_its_own_credential_is_refused(
    house: BusHouse, user: str, password: str, options: dict[str, object]
) -> None:
    async with house.raw(RUN, RUNS[RUN]):
        pass  # the right one gets in
    with pytest.raises(aiomqtt.MqttError):
        async with house.raw(user, password, **options):
            raise AssertionError("it was let in")


async def test_a_wrong_credential_does_not_disturb_the_run_it_names(house: BusHouse) -> None:
    async with Agent(house).running() as agent:
        agent.road.publish_status(status())
        await house.next_status("running")
        for options in ({}, {"clean_session": False}):
            with pytest.raises(aiomqtt.MqttError):
                async with house.raw(RUN, "stolen?", **options):
                    pass
        assert (await house.bus.command(RUN, Reidentify(id="c1"), timeout=5)).ok
        assert agent.road.connected.is_set() and house.said.empty()


async def test_an_older_connection_of_a_run_gives_way_and_its_will_comes_first(house: BusHouse) -> None:
    async with Agent(house, number=1).running() as older:
        older.road.publish_status(status())
        await house.next_status("running")
        older.road._backoff.failures = 30  # it stays away a while
        older.road._backoff.cap = 60
        older.road._backoff.base = 60
        async with Agent(house, number=2).running() as newer:
            newer.road.publish_status(status())
            heard = [(await house.said.get())[1] for _ in range(2)]
            assert [(s.phase, s.agent) for s in heard if isinstance(s, Status)] == [("unreachable", 1), ("running", 2)]
            assert (await house.bus.command(RUN, Reidentify(id="c1"), timeout=5)).ok


# --- topics -----------------------------------------------------------------------------------------------------


async def _is_heard(house: BusHouse, user: str, to: str) -> bool:
    """Whether what `user` publishes there comes out at a listener of everything."""
    async with house.raw(CONTROL, house.broker.secret) as control:
        for leaf in ("status", "report", "answer"):
            await control.subscribe(f"portico/runs/+/{leaf}", qos=1)
        try:
            async with house.raw(user, RUNS[user]) as client:
                await client.publish(to, b"hello", qos=1)
        except aiomqtt.MqttError:
            pass
        await control.publish(topic(RUN, "status"), b"mark", qos=1)
        async for message in control.messages:
            if message.payload == b"mark":
                return False
            if message.payload == b"hello":
                return True
    raise AssertionError("the mark did not come")


@pytest.fixture
async def own_broker(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[BusHouse]:
    """A broker without control's bus, so that a test can be control."""
    house = BusHouse(tmp_path, getattr(request, "param", None))
    async with house.broker:
        yield house


@pytest.mark.parametrize("leaf", ["status", "report", "answer"])
async def test_a_run_is_heard_on_its_own_topics(own_broker: BusHouse, leaf: str) -> None:
    assert await _is_heard(own_broker, RUN, f"portico/runs/{RUN}/{leaf}")


@pytest.mark.parametrize("own_broker", [AllowAll()], indirect=True)
async def test_without_the_policy_a_run_would_be_heard_on_anothers_topic(own_broker: BusHouse) -> None:
    assert await _is_heard(own_broker, RUN, topic(OTHER, "status"))


@pytest.mark.parametrize("leaf", ["status", "report", "answer"])
async def test_a_run_is_not_heard_on_anothers_topics(own_broker: BusHouse, leaf: str) -> None:
    assert not await _is_heard(own_broker, RUN, f"portico/runs/{OTHER}/{leaf}")


async def _may_listen(house: BusHouse, topic_filter: str, to: str) -> bool:
    """Whether run 2, subscribed with this filter and to its own commands, hears what control says to `to`."""
    own = topic(OTHER, "command")
    async with house.raw(CONTROL, house.broker.secret) as control, house.raw(OTHER, RUNS[OTHER]) as spy:
        for wanted in (topic_filter, own):
            await spy.subscribe(wanted, qos=1)
        await control.publish(to, b"hello", qos=1)
        await control.publish(own, b"mark", qos=1)
        async with asyncio.timeout(5):
            async for message in spy.messages:
                return message.payload == b"hello"
    raise AssertionError("the mark did not come")


async def test_a_run_hears_its_own_commands(own_broker: BusHouse) -> None:
    assert await _may_listen(own_broker, topic(OTHER, "command"), topic(OTHER, "command"))


@pytest.mark.parametrize("own_broker", [AllowAll()], indirect=True)
async def test_without_the_policy_a_run_would_hear_anothers_commands(own_broker: BusHouse) -> None:
    assert await _may_listen(own_broker, topic(RUN, "command"), topic(RUN, "command"))


@pytest.mark.parametrize(
    "topic_filter",
    [topic(RUN, "command"), topic(OTHER, "status"), "portico/runs/+/command", "#", "+/+/+/+", "$SYS/#", "portico/#"],
)
async def test_a_run_hears_nothing_else(own_broker: BusHouse, topic_filter: str) -> None:
    assert not await _may_listen(own_broker, topic_filter, topic(RUN, "command"))


# --- what user code may say -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("leaf", "payload"),
    [
        ("status", b"\xff\xfe"),
        ("status", b"{"),
        ("status", b"[" * 60_000),
        ("status", b'{"type":"status","run":"r1"}'),
        ("report", b'{"type":"nonsense"}'),
        ("answer", b"[1,2,3]"),
        ("status", msgspec.json.encode(Status(run=OTHER, agent=1, seq=1, phase="running"))),
    ],
)
async def test_garbage_is_counted_and_dropped(house: BusHouse, leaf: str, payload: bytes) -> None:
    async with house.raw(RUN, RUNS[RUN]) as client:
        await client.publish(f"portico/runs/{RUN}/{leaf}", payload, qos=1)
        await client.publish(topic(RUN, "report"), msgspec.json.encode(step(1)), qos=1)
        assert await house.said.get() == (RUN, step(1))
    assert house.bus.statistics.garbage == 1


async def test_a_message_over_the_limit_ends_the_connection_and_nothing_else(house: BusHouse) -> None:
    async with Agent(house, OTHER).running():
        with pytest.raises(aiomqtt.MqttError):
            async with house.raw(RUN, RUNS[RUN]) as client:
                await client.publish(topic(RUN, "report"), b"x" * (MAX_MESSAGE * 2), qos=1)
        assert (await house.bus.command(OTHER, Reidentify(id="c1"), timeout=5)).ok


async def test_a_handler_that_raises_does_not_end_the_bus(house: BusHouse, caplog: pytest.LogCaptureFixture) -> None:
    hear = house.bus._on_message

    async def fails_once(run: str, said: object) -> None:
        house.bus._on_message = hear
        raise KeyError("a fault of ours")

    house.bus._on_message = fails_once  # type: ignore[assignment]
    async with Agent(house).running() as agent:
        agent.road.report(step(1))
        agent.road.report(step(2))
        assert await house.said.get() == (RUN, step(2))
    assert "a fault of ours" in caplog.text


async def test_a_flood_is_slowed_and_others_go_on(house: BusHouse) -> None:
    async with house.raw(RUN, RUNS[RUN], max_inflight_messages=2000) as client, Agent(house, OTHER).running():
        client.pending_calls_threshold = 10_000
        async with asyncio.TaskGroup() as group:
            flood = [
                group.create_task(client.publish(topic(RUN, "report"), msgspec.json.encode(step(n)), qos=1, timeout=60))
                for n in range(1500)
            ]
            for n in range(10):
                assert (await house.bus.command(OTHER, Reidentify(id=f"c{n}"), timeout=5)).ok
            assert sum(task.done() for task in flood) < 1000
            for task in flood:
                task.cancel()


# --- files ------------------------------------------------------------------------------------------------------


async def test_the_address_file_is_private_and_goes_with_the_broker(tmp_path: Path) -> None:
    async with BusHouse(tmp_path).broker as broker:
        file = tmp_path / "broker.json"
        assert json.loads(file.read_text()) == {"host": "127.0.0.1", "port": broker.port}
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == []


async def test_a_road_leaves_no_socket_behind(house: BusHouse) -> None:
    async with Agent(house).running():
        assert stat.S_IMODE((house.folder / f"{RUN}-1" / "mqtt.sock").stat().st_mode) == 0o600
    assert list((house.folder / f"{RUN}-1").iterdir()) == []


async def test_a_refused_token_is_forgotten(house: BusHouse) -> None:
    agent = Agent(house)
    agent.gateway.current = "expired"
    async with asyncio.TaskGroup() as group:
        task = group.create_task(agent.road.run())
        await until(lambda: "expired" in agent.gateway.forgotten)
        agent.gateway.current = RUNS[RUN]
        await agent.road.connected.wait()
        task.cancel()


async def test_a_gateway_without_a_broker_says_so_and_the_agent_waits(tmp_path: Path) -> None:
    house = BusHouse(tmp_path)
    await house.gatehouse.listen(tmp_path / "edge.sock")
    agent = Agent(house)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(agent.road.run())
        await until(lambda: house.gatehouse.requests >= 3)
        async with house.broker:
            await agent.road.connected.wait()
            task.cancel()
    await house.gatehouse.die()
    assert isinstance(agent.road, ControlRoad) and quick().failures == 0


async def test_a_client_that_falls_silent_is_cut_off_and_its_will_heard(house: BusHouse) -> None:
    def text(value: str) -> bytes:
        return len(value).to_bytes(2, "big") + value.encode()

    will = msgspec.json.encode(status("unreachable")).decode()
    rest = text(RUN) + text(topic(RUN, "status")) + text(will) + text(RUN) + text(RUNS[RUN])
    content = text("MQTT") + bytes([4, 0xEE, 0, 1]) + rest  # keepalive: one second
    reader, writer = await asyncio.open_connection(house.broker.host, house.broker.port)
    length = len(content)
    writer.write(bytes([0x10, length % 128 | 128, length // 128]) + content)
    assert (await reader.readexactly(4))[3] == 0
    await house.next_status("unreachable", seconds=4)
    assert await reader.read() == b""
    writer.close()
