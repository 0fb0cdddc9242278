"""The checkpoint store is away: what agents say of it, and how long they wait."""

import asyncio
from pathlib import Path

import pytest

from portico_agent.board import Board
from portico_agent.checkpoint.transfer import Transfer
from portico_agent.credential import Credential
from portico_agent.desk import Captured, Desk
from portico_agent.errors import CheckpointError, GatewayBusy, StorageAway
from portico_agent.gateway import GatewayClient
from portico_agent.settings import Secrets
from portico_shared.clock import JumpingClock
from portico_shared.messages import CheckpointDone, Grant, ObjectName, Report, Status
from support.agent_gateway import HOST, RUN, RUN_TOKEN, agent_gateway

PACK = ObjectName(kind="pack", hash="0" * 64, size=3, crc32c="AAAAAA==")


async def test_busy_gateway_is_waited_for_and_its_words_are_passed_on(tmp_path: Path) -> None:
    clock, heard = JumpingClock(), list[str]()
    credential = Credential(RUN, Secrets(run_token=RUN_TOKEN, seed=bytes(32)))
    async with agent_gateway(tmp_path) as (server, address):
        async with GatewayClient(address, HOST, credential, clock=clock, patience=60, waiting=heard.append) as gateway:
            await gateway.identify()
            server.failures = [503] * 1000
            asking = asyncio.ensure_future(gateway.reads((PACK,)))
            async with asyncio.timeout(10):
                while not heard:  # noqa: ASYNC110 - what it waits for is a callback's list
                    await asyncio.sleep(0)
                while not asking.done():
                    await clock.jump(20)
                    await asyncio.sleep(0)
            with pytest.raises(GatewayBusy) as error:
                await asking
            assert heard and set(heard) == {str(error.value)}


async def test_absent_gateway_is_not_told_as_the_stores_absence(tmp_path: Path) -> None:
    heard = list[str]()
    credential = Credential(RUN, Secrets(run_token=RUN_TOKEN, seed=bytes(32)))
    address = f"unix:{tmp_path / 'nobody.sock'}"
    async with GatewayClient(address, HOST, credential, patience=0.6, waiting=heard.append) as gateway:
        with pytest.raises(Exception, match="gateway does not answer"):
            await gateway.identify(patience=0.6)
    assert heard == []


class AbsentStore:
    """Grants everything, takes nothing."""

    def __init__(self) -> None:
        self.tried = asyncio.Event()

    async def grants(self, objects: tuple[ObjectName, ...]) -> tuple[Grant, ...]:
        return tuple(Grant(hash=each.hash, method="PUT", url="https://s3.example.org/", headers={}) for each in objects)

    reads = grants

    async def put(self, grant: Grant, body: bytes) -> None:
        self.tried.set()
        raise StorageAway("the store does not answer")

    async def get(self, grant: Grant, *, start: int = 0, length: int = 0) -> bytes:
        self.tried.set()
        raise StorageAway("the store does not answer")


@pytest.mark.parametrize("way", ["put", "get"])
async def test_transfer_says_what_it_waits_for_until_its_patience_ends(way: str) -> None:
    clock, heard, store = JumpingClock(), list[str](), AbsentStore()
    transfer, began = Transfer(store, clock, patience=100, waiting=heard.append), clock.monotonic()
    work = asyncio.ensure_future(transfer.put(PACK, b"abc") if way == "put" else transfer.get("pack", PACK.hash))
    await store.tried.wait()
    assert not work.done()
    for _ in range(50):
        await asyncio.sleep(0)
    assert heard == ["the store does not answer"]
    while not work.done():
        await clock.jump(10)
        for _ in range(20):
            await asyncio.sleep(0)
    with pytest.raises(StorageAway):
        await work
    assert 50 < clock.monotonic() - began <= 120


class Paper:
    """A road that keeps what is said."""

    def __init__(self) -> None:
        self.reports = list[Report]()

    def publish_status(self, status: Status) -> None:
        pass

    def report(self, report: Report) -> None:
        self.reports.append(report)


class Moody:
    """An engine that fails while `away`, and never finds anything new."""

    away = True

    async def capture(self, reason: str, row: int) -> Captured:
        if self.away:
            raise CheckpointError("the store is away")
        return Captured(head="0" * 64, changed=False)


async def test_end_of_trouble_is_told_even_when_nothing_has_changed() -> None:
    clock, road, engine = JumpingClock(), Paper(), Moody()
    desk = Desk(engine, Board(RUN, 1, clock, road), clock)
    with pytest.raises(CheckpointError):
        await desk.make("request", row=7)
    engine.away = False
    for _ in range(3):
        await desk.make("interval")
    said = [report.ok for report in road.reports if isinstance(report, CheckpointDone)]
    assert said == [False, True], "once, not at every interval"
