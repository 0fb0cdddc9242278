"""One upgraded connection to the gateway for a road of its own (MQTT): dial, ask, and hand over the raw transport."""

import asyncio
from typing import cast

from portico_agent.tunnel.address import GatewayAddress
from portico_agent.tunnel.spare import Fault, read_status

UPGRADE_SECONDS = 10.0


class Declined(OSError):
    """The gateway answered the upgrade with another status than 101."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the gateway answered {status}")
        self.status = status


async def upgrade(address: GatewayAddress, request: bytes) -> tuple[asyncio.Transport, bytes]:
    """The raw connection, its reading paused, and what came after the gateway's answer already.

    Raises OSError; `Declined`, which is one, when the gateway said no.
    """
    waiting = _Waiting()
    transport, _ = await address.connect(lambda: waiting)
    try:
        transport.write(request)
        async with asyncio.timeout(UPGRADE_SECONDS):
            status = await waiting.status
        if status != 101:
            raise Declined(status)
    except BaseException:
        transport.abort()
        raise
    return transport, bytes(waiting.buffer)


class _Waiting(asyncio.Protocol):
    """Resolves `status` with the answer's; what follows its head stays in `buffer`."""

    def __init__(self) -> None:
        self.status: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if self.status.done():
            return
        try:
            status = read_status(self.buffer)
        except Fault as fault:
            self.status.set_exception(OSError(str(fault)))
            return
        if status is not None:
            self._transport.pause_reading()
            self.status.set_result(status)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.status.done():
            self.status.set_exception(ConnectionResetError("the gateway hung up on the upgrade"))
