"""The agent's end of the control road: status and reports up, commands down, over MQTT through the gateway's port.

The MQTT library dials a private Unix socket in the state folder; what it says there is piped to a connection that was
upgraded by the gateway. A lost connection fires the last will (`unreachable`); only `leave` ends without it.
"""

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Literal, Protocol, cast

import aiomqtt
import msgspec
from aiomqtt.exceptions import MqttConnectError

from portico_agent.errors import GatewayError
from portico_agent.outbox import Outbox, Said
from portico_agent.tunnel.address import parse_address
from portico_agent.tunnel.upgrade import Declined, upgrade
from portico_shared.backoff import Backoff
from portico_shared.clock import Clock, SystemClock
from portico_shared.messages import MAX_MESSAGE, MQTT_PATH, Answer, Command, Report, Status, topic
from portico_shared.relay import Relay, join
from portico_shared.tasks import heed_cancellation
from portico_shared.tunnel import upgrade_request

KEEPALIVE = 10
MQTT_UPGRADE = "portico-mqtt"
SOCKET = "mqtt.sock"
MAX_REMEMBERED = 256
"""Commands whose answers are kept, so that a repeated one is answered again and not done again."""
MAX_AT_ONCE = 16
LEAVE_SECONDS = 5.0
GOODBYE_SECONDS = 2.0

OnCommand = Callable[[Command], Awaitable[Answer]]
_log = logging.getLogger(__name__)
_commands = msgspec.json.Decoder(Command)


class Gateway(Protocol):
    """How to reach the gateway and who we are to it (`GatewayClient` is one)."""

    @property
    def address(self) -> str: ...

    @property
    def host(self) -> str: ...

    @property
    def run(self) -> str: ...

    async def token(self) -> str: ...

    def forget_token(self, token: str) -> None: ...


class ControlRoad:
    """`await run()` connects for ever; `publish_status` and `report` may be called at any time and never wait.

    `on_command` does one command and answers it; what it raises becomes an answer that says so. Each command id is
    done once, however often it arrives. `agent` is the number of this start of the agent (see `Status`).
    """

    def __init__(
        self,
        gateway: Gateway,
        agent: int,
        state: Path,
        on_command: OnCommand,
        *,
        clock: Clock | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self.connected = asyncio.Event()
        self.outbox = Outbox()
        self._gateway = gateway
        self._address = parse_address(gateway.address)
        self._agent = agent
        self._socket = state / SOCKET
        self._on_command = on_command
        self._clock = clock or SystemClock()
        self._backoff = backoff or Backoff()
        self._answers: OrderedDict[str, Answer | None] = OrderedDict()
        self._more = asyncio.Event()
        self._empty = asyncio.Event()
        self._leaving = asyncio.Event()
        self._left = asyncio.Event()
        self._working = 0
        self._pipe: Relay | None = None
        self._pipe_closed = asyncio.Event()

    # --- for the session ------------------------------------------------------------------------------------------

    def publish_status(self, status: Status) -> None:
        """The newest counts; `agent` and `seq` are set here."""
        self._put(msgspec.structs.replace(status, agent=self._agent))

    def report(self, report: Report) -> None:
        self._put(report)

    async def leave(self, status: Status, *, timeout: float = LEAVE_SECONDS) -> bool:
        """Say this last status and all that is still to be said, then go without a last will. False = not all of it
        was said in time. `run` ends by itself then."""
        self.publish_status(status)
        said = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._empty.wait()
                said = True
        self._leaving.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._left.wait()
        return said

    def _put(self, said: Said) -> None:
        self.outbox.put(said)
        self._empty.clear()
        self._more.set()

    # --- the road -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Returns after `leave`; else only by cancellation."""
        try:
            async with asyncio.TaskGroup() as commands:
                while not self._leaving.is_set():
                    try:
                        await self._connect_once(commands)
                    except (aiomqtt.MqttError, GatewayError, OSError) as error:
                        heed_cancellation()
                        _log.warning("the control road is down: %s", str(error) or type(error).__name__)
                    await self._wait_before_next()
                self._left.set()  # commands that are still being done need not keep who waits for this
        finally:
            self._left.set()

    async def _wait_before_next(self) -> None:
        async with asyncio.TaskGroup() as group:
            leaving = group.create_task(self._leaving.wait())
            delay = group.create_task(self._clock.sleep(self._backoff.next_delay()))
            await asyncio.wait((leaving, delay), return_when=asyncio.FIRST_COMPLETED)
            leaving.cancel()
            delay.cancel()

    async def _connect_once(self, commands: asyncio.TaskGroup) -> None:
        run, token = self._gateway.run, await self._gateway.token()
        will = self.outbox.will(run, self._agent)
        async with self._piped(token):
            client = aiomqtt.Client(
                str(self._socket),
                transport="unix",
                username=run,
                password=token,
                identifier=run,
                clean_session=True,
                keepalive=KEEPALIVE,
                will=aiomqtt.Will(topic(run, "status"), msgspec.json.encode(will), qos=1, retain=True),
            )
            try:
                async with client:
                    try:
                        await self._converse(client, commands)
                    except BaseException:
                        self._cut()  # before the library says goodbye: the will is to be heard
                        raise
            except MqttConnectError:
                self._gateway.forget_token(token)
                raise
            await self._drained()

    async def _converse(self, client: aiomqtt.Client, commands: asyncio.TaskGroup) -> None:
        await client.subscribe(topic(self._gateway.run, "command"), qos=1)
        heed_cancellation()
        self._backoff.reset()
        self.connected.set()
        try:
            async with asyncio.TaskGroup() as group:
                listening = group.create_task(self._listen(client, commands))
                talking = group.create_task(self._talk(client))
                leaving = group.create_task(self._leaving.wait())
                await asyncio.wait((listening, talking, leaving), return_when=asyncio.FIRST_COMPLETED)
                for task in (listening, talking, leaving):
                    task.cancel()
        except ExceptionGroup as errors:
            broken, ours = errors.split(aiomqtt.MqttError)
            if broken is None or ours is not None:
                raise
            raise broken.exceptions[0] from errors
        finally:
            self.connected.clear()

    async def _talk(self, client: aiomqtt.Client) -> None:
        """Say what is in the outbox, in order, each until the broker has it."""
        run = self._gateway.run
        while True:
            self._more.clear()
            while (said := self.outbox.first()) is not None:
                leaf = _leaf(said)
                payload = msgspec.json.encode(said)
                if len(payload) <= MAX_MESSAGE:
                    await client.publish(topic(run, leaf), payload, qos=1, retain=leaf == "status")
                else:
                    _log.error("a %s of %d bytes is too large to be said", leaf, len(payload))
                self.outbox.said(said)
                heed_cancellation()
            self._empty.set()
            await self._more.wait()

    # --- commands -------------------------------------------------------------------------------------------------

    async def _listen(self, client: aiomqtt.Client, commands: asyncio.TaskGroup) -> None:
        async for message in client.messages:
            try:
                command = _commands.decode(message.payload)
            except msgspec.DecodeError as error:
                _log.error("a command that is none: %s", error)
                continue
            self._take(command, commands)

    def _take(self, command: Command, commands: asyncio.TaskGroup) -> None:
        if command.id in self._answers:
            if (answer := self._answers[command.id]) is not None:
                self._put(answer)
            return  # else it is being done, and will be answered
        if self._working >= MAX_AT_ONCE:
            self._put(Answer(id=command.id, run=self._gateway.run, ok=False, detail="too many commands at once"))
            return
        while len(self._answers) >= MAX_REMEMBERED:
            self._answers.popitem(last=False)
        self._answers[command.id] = None
        self._working += 1
        commands.create_task(self._do(command))

    async def _do(self, command: Command) -> None:
        try:
            answer = await self._on_command(command)
        except Exception as error:
            _log.exception("command %s failed", type(command).__name__)
            answer = Answer(id=command.id, run=self._gateway.run, ok=False, detail=str(error)[:500])
        finally:
            self._working -= 1
        self._answers[command.id] = answer
        self._put(answer)

    # --- the pipe -------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _piped(self, token: str) -> AsyncIterator[None]:
        """A Unix socket whose first connection is piped to the upgraded one; gone with the context."""
        request = upgrade_request(self._gateway.host, token, MQTT_PATH, MQTT_UPGRADE)
        try:
            remote, early = await upgrade(self._address, request)
        except Declined as declined:
            if declined.status == 401:
                self._gateway.forget_token(token)
            raise
        server: asyncio.Server | None = None
        try:
            self._socket.unlink(missing_ok=True)
            server = await asyncio.get_running_loop().create_unix_server(
                lambda: _Local(lambda local: self._join(local, remote, early)), str(self._socket)
            )
            self._socket.chmod(0o600)
            yield
        finally:
            self._cut()
            remote.abort()
            if server is not None:
                server.close()
            self._socket.unlink(missing_ok=True)

    def _join(self, local: asyncio.Transport, remote: asyncio.Transport, early: bytes) -> None:
        if self._pipe is not None:
            local.abort()
            return
        if early:
            local.write(early)
        self._pipe_closed.clear()
        self._pipe = join(local, remote, on_close=self._pipe_closed.set)

    async def _drained(self) -> None:
        """The library has said goodbye: let it reach the broker, which closes then."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_SECONDS):
                await self._pipe_closed.wait()

    def _cut(self) -> None:
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            pipe.abort()


def _leaf(said: Said) -> Literal["status", "report", "answer"]:
    match said:
        case Status():
            return "status"
        case Answer():
            return "answer"
    return "report"


class _Local(asyncio.Protocol):
    """The library's connection, handed over at once."""

    def __init__(self, arrived: Callable[[asyncio.Transport], None]) -> None:
        self._arrived = arrived

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._arrived(cast(asyncio.Transport, transport))
