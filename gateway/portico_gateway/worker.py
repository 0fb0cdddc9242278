"""The edge worker: the process that owns client connections and tunnels. Put together, started and drained here.

Listening sockets are inherited (`PORTICO_FDS`), so that a restart closes no queue; what is told by control outlives
control's absence.
"""

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterable
from pathlib import Path

import uvloop

from portico_gateway.edge.connection import log
from portico_gateway.edge.dispatch import Edge, sweep_forever
from portico_gateway.edge.gate import Gate
from portico_gateway.edge.presence import PresenceBook
from portico_gateway.edge.routes import RouteTable
from portico_gateway.edge.visitors import Visitors
from portico_gateway.errors import PorticoError
from portico_gateway.link.client import LinkClient, News
from portico_gateway.link.messages import ControlMessage, Hello, Probe
from portico_gateway.proxy.upstream import ControlUpstream
from portico_gateway.settings import Settings, load
from portico_gateway.tunnel.acceptor import Acceptor, broker_address
from portico_gateway.tunnel.probe import probe
from portico_gateway.tunnel.registry import Registry
from portico_shared.clock import SystemClock
from portico_shared.tasks import spawn

DRAIN_SECONDS = 30.0
READY_EVERY = 1.0
BACKLOG = 4096


class Worker:
    """One edge worker of this machine."""

    def __init__(self, settings: Settings) -> None:
        self.clock = SystemClock()
        self.settings = settings
        run = settings.run_dir
        hello = Hello(worker=f"edge-{os.getpid()}", pid=os.getpid())
        self.link = LinkClient(run / "link.sock", hello, self._pushed, greet=self._greet)
        self.registry = Registry(self.link.tell, self.clock)
        self.acceptor = Acceptor(self.registry, broker_address(run / "broker.json"))
        self.routes = RouteTable()
        self.presence = PresenceBook(self.link.tell, self.clock)
        self.upstream = ControlUpstream(run / "control.sock")
        self.visitors = Visitors(self.clock)
        self._control_ready = False
        self.edge = Edge(
            settings,
            control=self.link,
            upstream=self.upstream,
            registry=self.registry,
            acceptor=self.acceptor,
            visitors=self.visitors,
            gate=Gate(self.visitors, self.link, settings),
            routes=self.routes,
            presence=self.presence,
            clock=self.clock,
            ready=lambda: self._control_ready and self.link.connected.is_set() and self.routes.known,
        )

    async def run(self, sockets: Iterable[socket.socket]) -> None:
        """Serve until SIGTERM, then drain: stop accepting, finish what is under way, at most 30 s."""
        loop = asyncio.get_running_loop()
        leaving = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, leaving.set)
        loop.add_signal_handler(signal.SIGINT, lambda: None)  # the supervisor decides
        try:
            await self.serve(sockets, leaving)
        finally:
            loop.remove_signal_handler(signal.SIGTERM)
            loop.remove_signal_handler(signal.SIGINT)

    async def serve(self, sockets: Iterable[socket.socket], leaving: asyncio.Event) -> None:
        """Serve until `leaving` is set, then drain."""
        loop = asyncio.get_running_loop()
        servers = [await self._listen(loop, each) for each in sockets]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self.link.run(), name="link"),
                    group.create_task(self.registry.run(), name="tunnels"),
                    group.create_task(sweep_forever(self.edge, self.clock), name="sweep"),
                    group.create_task(self._watch_control(), name="readiness"),
                ]
                await leaving.wait()
                for server in servers:
                    server.close()
                self.edge.drain()
                await self._drained()
                for task in tasks:
                    task.cancel()
        finally:
            self.acceptor.close()
            self.upstream.close()

    async def _listen(self, loop: asyncio.AbstractEventLoop, listener: socket.socket) -> asyncio.AbstractServer:
        if listener.family == socket.AF_UNIX:
            return await loop.create_unix_server(self.edge.protocol, sock=listener, backlog=BACKLOG)
        return await loop.create_server(self.edge.protocol, sock=listener, backlog=BACKLOG)

    async def _drained(self) -> None:
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                while self.edge.connections:  # noqa: ASYNC110 - the sweep moves them on
                    await asyncio.sleep(0.05)
        except TimeoutError:
            log.warning("%d connections did not end within %.0f s", len(self.edge.connections), DRAIN_SECONDS)

    # --- control ------------------------------------------------------------------------------------------------

    def _greet(self) -> list[News]:
        return [*self.registry.contacts(), *self.presence.all()]

    def _pushed(self, message: ControlMessage) -> None:
        if isinstance(message, Probe):
            spawn(self._probe(message), name="probe")
        else:
            self.edge.apply(message)

    async def _probe(self, question: Probe) -> None:
        self.link.tell(await probe(self.registry, question))

    async def _watch_control(self) -> None:
        """Ask control's own /readyz every second, so that ours answers at once."""
        while True:
            self._control_ready = await self._is_ready()
            await self.clock.sleep(READY_EVERY if self._control_ready else READY_EVERY / 5)

    async def _is_ready(self) -> bool:
        try:
            async with asyncio.timeout(3):
                reader, writer = await asyncio.open_unix_connection(str(self.settings.run_dir / "control.sock"))
                try:
                    writer.write(b"GET /readyz HTTP/1.1\r\nHost: control\r\nConnection: close\r\n\r\n")
                    return (await reader.readline()).startswith(b"HTTP/1.1 200")
                finally:
                    writer.close()
        except OSError:
            return False


def listeners(settings: Settings) -> list[socket.socket]:
    """The inherited sockets; started alone (no `PORTICO_FDS`), sockets of our own."""
    inherited = os.environ.get("PORTICO_FDS", "")
    if inherited:
        found = [socket.socket(fileno=int(fd)) for fd in inherited.split(",")]
    else:
        found = [socket.create_server((settings.listen_host, settings.listen_port), backlog=BACKLOG)]
    for each in found:
        each.setblocking(False)
    return found


def main() -> None:
    try:
        settings = load({}, os.environ, Path(config) if (config := os.environ.get("PORTICO_CONFIG")) else None)
    except PorticoError as error:
        sys.exit(f"portico worker: {error.message}")
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s")
    worker, sockets = Worker(settings), listeners(settings)
    gc.collect()
    gc.freeze()  # modules and what was built so far are never garbage
    gc.set_threshold(20_000, 50, 50)
    uvloop.run(worker.run(sockets))


if __name__ == "__main__":
    main()
