"""A broker, control's client of it, and agents' roads to it through a gatehouse."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiomqtt

from portico_agent.control_road import ControlRoad
from portico_gateway.bus.broker import EmbeddedBroker
from portico_gateway.bus.client import Bus
from portico_gateway.bus.policy import TopicPolicy
from portico_gateway.tunnel.acceptor import broker_address
from portico_shared.backoff import Backoff
from portico_shared.messages import Answer, Command, Report, Status
from support.roads import Gatehouse, GatewayStub

RUNS = {"r" + "1" * 16: "token-1", "r" + "2" * 16: "token-2"}
RUN, OTHER = RUNS


def quick() -> Backoff:
    return Backoff(base=0.02, cap=0.1)


class BusHouse:
    """Everything of the gateway that the control road touches, in one folder."""

    def __init__(self, folder: Path, policy: TopicPolicy | None = None) -> None:
        self.folder = folder
        self.policy = policy
        self.said: asyncio.Queue[tuple[str, Status | Report]] = asyncio.Queue()
        self.broker = self._new_broker()
        self.bus = Bus(
            lambda: (self.broker.host, self.broker.port) if self.broker.port else None,
            lambda: self.broker.secret,
            self._hear,
            backoff=quick(),
        )
        self.gatehouse = Gatehouse(broker_address(folder / "broker.json"))
        self.gatehouse.tokens = {token: ("00000001", run) for run, token in RUNS.items()}

    def _new_broker(self) -> EmbeddedBroker:
        return EmbeddedBroker(self.folder, self.check, policy=self.policy)

    async def check(self, run: str, token: str) -> bool:
        return RUNS.get(run) == token

    async def _hear(self, run: str, said: Status | Report) -> None:
        self.said.put_nowait((run, said))

    async def next_status(self, phase: str, seconds: float = 5.0) -> Status:
        """The next status with this phase; what else is said meanwhile is passed over."""
        async with asyncio.timeout(seconds):
            while True:
                _, said = await self.said.get()
                if isinstance(said, Status) and said.phase == phase:
                    return said

    async def restart_broker(self) -> None:
        await self.broker.__aexit__(None, None, None)
        self.broker = self._new_broker()
        await self.broker.__aenter__()

    def raw(self, user: str, password: str, **options) -> aiomqtt.Client:  # type: ignore[no-untyped-def]
        """A client of the broker's own port, with nothing of ours in between."""
        return aiomqtt.Client(
            self.broker.host,
            self.broker.port,
            **{"username": user, "password": password, "identifier": user, "timeout": 2, **options},
        )


@asynccontextmanager
async def bus_house(folder: Path, policy: TopicPolicy | None = None) -> AsyncIterator[BusHouse]:
    house = BusHouse(folder, policy)
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        await house.broker.__aenter__()
        running = group.create_task(house.bus.run())
        await house.gatehouse.listen(folder / "edge.sock")
        await house.bus.connected.wait()
        try:
            yield house
        finally:
            running.cancel()
            await house.gatehouse.die()
            stack.push_async_callback(house.broker.__aexit__, None, None, None)


class Agent:
    """A control road, and what was asked of it."""

    def __init__(self, house: BusHouse, run: str = RUN, number: int = 1) -> None:
        self.commands: list[Command] = []
        self.gate = asyncio.Event()
        self.gate.set()
        state = house.folder / f"{run}-{number}"
        state.mkdir(exist_ok=True)
        self.gateway = GatewayStub(house.gatehouse.address, run=run, current=RUNS[run])
        self.road = ControlRoad(self.gateway, number, state, self._do, backoff=quick())

    async def _do(self, command: Command) -> Answer:
        self.commands.append(command)
        await self.gate.wait()
        return Answer(id=command.id, run=self.gateway.run, ok=True, detail="done")

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Agent"]:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.road.run())
            await self.road.connected.wait()
            yield self
            task.cancel()
