"""The embedded broker: amqtt behind the door, its address in a file for the edge workers."""

import asyncio
import contextlib
import json
import logging
import os
import secrets
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from amqtt.adapters import ReaderAdapter, WriterAdapter
from amqtt.broker import Broker
from amqtt.contexts import BrokerConfig, ListenerConfig, ListenerType

from portico_gateway.bus.door import CheckCredential, Door
from portico_gateway.bus.policy import OwnTopics, TopicPolicy

ADDRESS_FILE = "broker.json"
SHUTDOWN_SECONDS = 5.0


class EmbeddedBroker:
    """Runs while its context is open; keeps everything in memory (agents republish their status on each connect).

    `check(run id, short token)` decides about runs; `secret` is the password of control's own client, new with each
    process. `<run_dir>/broker.json` (0600) says where it listens.
    """

    def __init__(self, run_dir: Path, check: CheckCredential, *, policy: TopicPolicy | None = None) -> None:
        self.host = "127.0.0.1"
        self.port = 0
        self.secret = secrets.token_urlsafe(32)
        self._file = run_dir / ADDRESS_FILE
        self._policy = policy or OwnTopics()
        self._door = Door(self, check, self.secret, self._policy)
        self._broker: Broker | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        logging.getLogger("amqtt").setLevel(logging.ERROR)  # it tells of every packet
        async with AsyncExitStack() as stack:
            self._broker = Broker(self._config())
            await self._broker.start()
            stack.push_async_callback(self._shut_down, self._broker)
            await stack.enter_async_context(self._door)
            self.port = self._door.port
            self._write_address()
            stack.callback(self._file.unlink, missing_ok=True)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def external_connected(self, reader: ReaderAdapter, writer: WriterAdapter, listener_name: str) -> None:
        """A client the door has let in, until it leaves."""
        assert self._broker is not None
        await self._broker.external_connected(reader, writer, listener_name)

    async def _shut_down(self, broker: Broker) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SHUTDOWN_SECONDS):
                await broker.shutdown()

    def statistics(self) -> dict[str, int]:
        return {"clients": len(self._door._clients), "refused": self._door.refused}

    def _config(self) -> BrokerConfig:
        plugins: dict[str, Any] = {
            "portico_gateway.bus.plugins.DoorAuth": {"door": self._door},
            "portico_gateway.bus.plugins.PolicyTopics": {"policy": self._policy},
        }
        return BrokerConfig(listeners={"default": ListenerConfig(type=ListenerType.EXTERNAL)}, plugins=plugins)

    def _write_address(self) -> None:
        fresh = self._file.with_suffix(".new")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as out:
            json.dump({"host": self.host, "port": self.port}, out)
        fresh.replace(self._file)
