"""The edge worker: the process that owns client connections and tunnels. Put together, started and drained here.

Listening sockets are inherited (`PORTICO_FDS`), so that a restart closes no queue; what is told by control outlives
control's absence.
"""

import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterable
from pathlib import Path

import uvloop

from portico_gateway.edge import limits
from portico_gateway.edge.access_log import AccessLog
from portico_gateway.edge.connection import log
from portico_gateway.edge.dispatch import Edge, sweep_forever
from portico_gateway.edge.gate import Gate
from portico_gateway.edge.presence import PresenceBook
from portico_gateway.edge.routes import RouteTable
from portico_gateway.edge.visitors import Visitors
from portico_gateway.errors import PorticoError
from portico_gateway.link.client import LinkClient, News
from portico_gateway.link.messages import ControlMessage, Drain, Hello, Keys, Probe
from portico_gateway.proxy.upstream import ControlUpstream
from portico_gateway.settings import Settings, load
from portico_gateway.tunnel.acceptor import Acceptor, broker_address
from portico_gateway.tunnel.probe import probe
from portico_gateway.tunnel.registry import Registry
from portico_shared.clock import Clock, SystemClock
from portico_shared.tasks import spawn

DRAIN_SECONDS = 30.0
READY_EVERY = 1.0
RECHECK_EVERY = 60.0
BACKLOG = 4096


class Worker:
    """One edge worker of this machine."""

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        self.clock = clock or SystemClock()
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
        self.access = AccessLog(access_log_file(settings), self.clock)
        self.leaving = asyncio.Event()
        """Set by SIGTERM, or by control: time to drain."""
        self._control_ready = False
        self._doubts = asyncio.Event()
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
            access=self.access,
            most_connections=connections_allowed(),
            ready=lambda: self._control_ready and self.link.connected.is_set() and self.routes.known,
        )

    async def run(self, sockets: Iterable[socket.socket]) -> None:
        """Serve until SIGTERM, then drain: stop accepting, finish what is under way, at most 30 s."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.leaving.set)
        loop.add_signal_handler(signal.SIGINT, lambda: None)  # the supervisor decides
        try:
            await self.serve(sockets)
        finally:
            loop.remove_signal_handler(signal.SIGTERM)
            loop.remove_signal_handler(signal.SIGINT)

    async def serve(self, sockets: Iterable[socket.socket]) -> None:
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
                    group.create_task(self._recheck_forever(), name="recheck"),
                ]
                await self.leaving.wait()
                for server in servers:
                    server.close()
                self.edge.drain()
                await self._drained()
                for task in tasks:
                    task.cancel()
        finally:
            self.access.flush()
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
        elif isinstance(message, Drain):
            self.leaving.set()
        else:
            self.edge.apply(message)
            if isinstance(message, Keys):  # control is back; what it revoked meanwhile was told to nobody
                self._doubts.set()

    async def _probe(self, question: Probe) -> None:
        self.link.tell(await probe(self.registry, question))

    async def _recheck_forever(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RECHECK_EVERY):
                    await self._doubts.wait()
            self._doubts.clear()
            await self.edge.recheck()

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


def access_log_file(settings: Settings) -> Path | None:
    """At log level 'info' or below requests are logged, in a file: the terminal is for what a person should read."""
    if logging.getLevelNamesMapping().get(settings.log_level.upper(), logging.INFO) > logging.INFO:
        return None
    folder = settings.data / "logs"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder / "access.jsonl"


def connections_allowed() -> int:
    """Client connections this process has descriptors for: each may need one upstream; some stay for tunnels."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return max(16, min(limits.MOST, hard // 3))


def listeners(settings: Settings) -> list[socket.socket]:
    """The inherited sockets; started alone (no `PORTICO_FDS`), sockets of our own."""
    inherited = os.environ.get("PORTICO_FDS", "")
    if inherited:
        found = [socket.socket(fileno=int(fd)) for fd in inherited.split(",")]
    else:
        found = [socket.create_server((settings.listen_host, settings.listen_port), backlog=BACKLOG)]
    for each in found:
        each.setblocking(False)
        _notice_dead_clients(each)
    return found


def _notice_dead_clients(listener: socket.socket) -> None:
    """Accepted connections inherit these: a laptop that was closed under a WebSocket is noticed in two minutes."""
    if listener.family != socket.AF_UNIX:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)


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
