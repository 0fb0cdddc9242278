"""Broker and control's client of it, opened and closed together: the bus of a gateway on one machine."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from portico_gateway.bus.broker import EmbeddedBroker
from portico_gateway.bus.client import Bus, BusStatistics, OnMessage
from portico_gateway.bus.door import CheckCredential
from portico_shared.clock import Clock
from portico_shared.messages import Answer, Command

READY_SECONDS = 15.0


class EmbeddedBus:
    """What control holds of it."""

    def __init__(self, broker: EmbeddedBroker, bus: Bus) -> None:
        self._broker = broker
        self._bus = bus

    @property
    def address(self) -> tuple[str, int]:
        """Where the broker listens: the edge relays agents there."""
        return self._broker.host, self._broker.port

    @property
    def statistics(self) -> BusStatistics:
        return self._bus.statistics

    async def command(self, run_id: str, command: Command, *, timeout: float) -> Answer:
        """See `Bus.command`."""
        return await self._bus.command(run_id, command, timeout=timeout)

    async def forget(self, run_id: str) -> None:
        """See `Bus.forget`."""
        await self._bus.forget(run_id)


@asynccontextmanager
async def open_embedded_bus(
    run_dir: Path, check: CheckCredential, on_message: OnMessage, *, clock: Clock | None = None
) -> AsyncIterator[EmbeddedBus]:
    """Ready to command when it yields. Raises TimeoutError when the client cannot reach its own broker."""
    async with EmbeddedBroker(run_dir, check) as broker, asyncio.TaskGroup() as group:
        bus = Bus(lambda: (broker.host, broker.port), lambda: broker.secret, on_message, clock=clock)
        running = group.create_task(bus.run())
        try:
            async with asyncio.timeout(READY_SECONDS):
                await bus.connected.wait()
            yield EmbeddedBus(broker, bus)
        finally:
            running.cancel()
