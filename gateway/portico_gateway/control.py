"""The control process: UI, API, agents' calls, lifecycle, broker. Put together here, and taken down in order.

    python -m portico_gateway.control [--data DIR] [--listen HOST:PORT] [--config FILE]

It listens on Unix sockets of the data folder only; the edge worker brings it the world. Studios are none of its
children: it may end and come back, and they do not notice.

    <data>/run/control.sock    HTTP, 0600        <data>/run/broker.json     where the broker listens, 0600
    <data>/run/link.sock       the edge, 0600    <data>/run/welcome.json    the first administrator's link, 0600
"""

import argparse
import asyncio
import contextlib
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from aiohttp import web

from portico_gateway.agentapi.routes import AgentApi
from portico_gateway.api.app import build_api
from portico_gateway.api.doors import Parts as ApiParts
from portico_gateway.bus.broker import EmbeddedBroker
from portico_gateway.bus.client import Bus
from portico_gateway.compute.choice import Compute
from portico_gateway.control_app import compose
from portico_gateway.control_parts import Control, assemble, write_private
from portico_gateway.control_signals import Ending, signals, watch_for_file
from portico_gateway.errors import PorticoError, Unavailable
from portico_gateway.link.server import LinkServer
from portico_gateway.objects.local_folder import LocalFolder
from portico_gateway.settings import Settings, load
from portico_gateway.store.engine import Store
from portico_gateway.web.app import build_web
from portico_gateway.web.studio_pages import StudioPages
from portico_shared.clock import Clock, SystemClock
from portico_shared.messages import Answer, Command

HEAD_LIMIT = 64 * 1024
"""Bytes of a request line or header: the edge has checked them already against tighter limits."""
SHUTDOWN_SECONDS = 5.0
BROKER_SECONDS = 15.0
SECRET_VARIABLES = ("PORTICO_S3_ACCESS_KEY", "PORTICO_S3_SECRET_KEY", "PORTICO_BOOTSTRAP_TOKEN", "PORTICO_DATABASE")

Say = Callable[[str], None]
_log = logging.getLogger(__name__)


class OpenedBus(Protocol):
    """The way to agents and back, open while its context is."""

    connected: asyncio.Event

    async def command(self, run_id: str, command: Command, *, timeout: float) -> Answer: ...

    async def forget(self, run_id: str) -> None: ...


OpenBus = Callable[[Control], AbstractAsyncContextManager[OpenedBus]]


@contextlib.asynccontextmanager
async def embedded_bus(control: Control) -> AsyncIterator[OpenedBus]:
    """The broker in this process, and our own client of it, connected."""

    async def check(run_id: str, token: str) -> bool:
        try:
            run, _ = await control.credentials.check(token)
        except PorticoError:
            return False
        return run.run_id == run_id

    async with EmbeddedBroker(control.settings.run_dir, check) as broker:
        bus = Bus(lambda: (broker.host, broker.port), lambda: broker.secret, control.lifecycle.on_message)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(bus.run(), name="bus")
            try:
                async with asyncio.timeout(BROKER_SECONDS):
                    await bus.connected.wait()
                yield bus
            except TimeoutError:
                raise Unavailable("the embedded broker did not come up; its log says more") from None
            finally:
                task.cancel()


class _Commands:
    """`studios.needs.Commands` from before the bus is open until after it has closed."""

    def __init__(self) -> None:
        self.bus: OpenedBus | None = None

    @property
    def missing(self) -> str:
        up = self.bus is not None and self.bus.connected.is_set()
        return "" if up else "the message broker is not up"

    async def command(self, run_id: str, command: Command, *, timeout: float) -> Answer:
        return await self._opened().command(run_id, command, timeout=timeout)

    async def forget(self, run_id: str) -> None:
        await self._opened().forget(run_id)

    def _opened(self) -> OpenedBus:
        if self.bus is None:
            raise Unavailable("the way to agents is not open at the moment")
        return self.bus


async def run_control(
    settings: Settings,
    ending: Ending,
    say: Say,
    *,
    open_bus: OpenBus,
    clock: Clock | None = None,
    compute: Compute | None = None,
    ready: Callable[[Control], Awaitable[None]] | None = None,
) -> None:
    """1. store  2. parts  3. bus  4. link  5. HTTP  6. adoption  7. until told to end; then all of it backwards.

    `ready` is awaited once everything is open. Raises PorticoError when store, settings or sockets do not allow it.
    """
    clock = clock or SystemClock()
    settings.run_dir.mkdir(parents=True, exist_ok=True)
    async with Store(settings.database_url) as store:
        commands = _Commands()
        control = await assemble(settings, clock, store, commands, compute)
        _tell_supervisor(settings, control.welcome)
        application = _application(settings, control, commands)
        async with _bus(control, commands, open_bus), _link(settings, control), _http(settings, application):
            async with asyncio.TaskGroup() as group:
                life = group.create_task(control.lifecycle.run(), name="lifecycle")
                if ready is not None:
                    await ready(control)
                await ending.asked.wait()
                if ending.stop_studios:
                    await _stop_studios(settings, control, ending, say)
                life.cancel()
        control.auth.close()


def _tell_supervisor(settings: Settings, welcome: str | None) -> None:
    file = settings.run_dir / "welcome.json"
    if welcome is None:
        file.unlink(missing_ok=True)
    else:
        write_private(file, {"url": welcome})


async def _stop_studios(settings: Settings, control: Control, ending: Ending, say: Say) -> None:
    async with asyncio.TaskGroup() as group:
        file = settings.run_dir / "leave-studios"
        file.unlink(missing_ok=True)
        looking = group.create_task(watch_for_file(file, ending, control.clock))
        await control.lifecycle.stop_all(say, ending.abandon)
        looking.cancel()


@contextlib.asynccontextmanager
async def _bus(control: Control, commands: _Commands, open_bus: OpenBus) -> AsyncIterator[None]:
    async with open_bus(control) as bus:
        commands.bus = bus
        try:
            yield
        finally:
            commands.bus = None


@contextlib.asynccontextmanager
async def _link(settings: Settings, control: Control) -> AsyncIterator[None]:
    async with LinkServer(settings.run_dir / "link.sock", control.link) as server:
        control.edge.open(server)
        try:
            yield
        finally:
            control.edge.open(None)


@contextlib.asynccontextmanager
async def _http(settings: Settings, application: web.Application) -> AsyncIterator[None]:
    """On shutdown event streams end first, then requests in work have a few seconds."""
    runner = web.AppRunner(
        application,
        access_log=None,
        keepalive_timeout=300.0,  # longer than the edge keeps a connection: it is the one to close
        shutdown_timeout=SHUTDOWN_SECONDS,
        max_line_size=HEAD_LIMIT,
        max_field_size=HEAD_LIMIT,
    )
    await runner.setup()
    path = settings.run_dir / "control.sock"
    try:
        await web.SockSite(runner, _private_socket(path), backlog=1024).start()
        yield
    finally:
        await runner.cleanup()
        path.unlink(missing_ok=True)


def _application(settings: Settings, control: Control, commands: _Commands) -> web.Application:
    c = control

    async def missing() -> str:
        return commands.missing or await c.missing()

    routes = AgentApi.make(c.credentials, c.lifecycle, c.clock).routes()
    if isinstance(c.objects, LocalFolder):
        routes += c.objects.routes()
    return compose(
        build_web(c.studios, c.auth, c.people, settings, c.clock),
        build_api(ApiParts(c.studios, c.auth, c.people, c.rights, c.labels, settings, c.clock)),
        routes,
        StudioPages(c.studios, c.auth, settings, c.clock),
        missing,
    )


def _private_socket(path: Path) -> socket.socket:
    """Bound, and closed to other accounts before anybody could connect."""
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.bind(str(path))
        path.chmod(0o600)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


# --- the process ----------------------------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> int:
    """The exit status: 0 told to end, 2 when it cannot run like this."""
    options = _options(argv)
    try:
        settings = load({"data": options.data, "listen": options.listen}, os.environ, options.config)
        for name in SECRET_VARIABLES:  # what we start needs none of them
            os.environ.pop(name, None)
        _log_to_stderr(settings)
        asyncio.run(_run(settings))
    except PorticoError as error:
        sys.stderr.write(f"portico control: {error.message}\n")
        return 2
    return 0


def _log_to_stderr(settings: Settings) -> None:
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for talkative in ("alembic", "amqtt", "transitions", "aiosqlite", "mqtt", "botocore"):
        logging.getLogger(talkative).setLevel(logging.WARNING)


async def _run(settings: Settings) -> None:
    ending = Ending()
    async with signals(ending):
        await run_control(settings, ending, _say, open_bus=embedded_bus)


def _say(line: str) -> None:
    """For the person at the terminal."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="portico_gateway.control")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--listen")
    parser.add_argument("--config", type=Path)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
