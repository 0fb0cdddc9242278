"""The only way into the broker: a loopback port whose every packet is vetted before the broker sees it.

The broker on its own drops or takes over the session of whoever has the same client id before it has asked for a
credential, publishes a last will to any topic, reads packets of any size and ignores a silent client. So here:

1. CONNECT within 5 s, clean session, client id = user name (of a run), last will on the run's own status only;
2. the credential is checked; who fails gets "not authorised" and is gone;
3. an older connection of the same client is ended first, so that its last will comes before the new one's status;
4. then packet by packet: size, topic, pace, and silence of more than 1.5 keepalives.
"""

import asyncio
import contextlib
import hmac
import logging
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Protocol, Self

from amqtt.adapters import ReaderAdapter, StreamWriterAdapter, WriterAdapter

from portico_gateway.bus.packets import REFUSED, BadPacket, Connect, Packets, PacketType, parse_connect, publish_topic
from portico_gateway.bus.policy import CONTROL, TopicPolicy
from portico_shared.ids import is_run_id
from portico_shared.messages import topic
from portico_shared.tasks import spawn

CheckCredential = Callable[[str, str], Awaitable[bool]]
"""(run id, short token) -> whether that token is this run's and still counts."""

CONNECT_SECONDS = 5.0
MAX_CLIENTS = 4096
MAX_WILL = 4096
PACE, BURST = 50.0, 500.0
"""Packets a second a run may send for long, and at once: ten times what an agent with much to tell sends."""
SILENCE = 1.5
"""Keepalives without a packet after which a client counts as lost, as MQTT says."""
END_SECONDS = 2.0
READ_SIZE = 16 * 1024

_log = logging.getLogger(__name__)


class Refusal(Exception):
    """This client may not come in; the text is for our log alone."""


class Inside(Protocol):
    """What is behind the door (the broker)."""

    async def external_connected(self, reader: ReaderAdapter, writer: WriterAdapter, listener_name: str) -> None: ...


class Door:
    """Listens on 127.0.0.1, a free port, while its context is open; `port` is known then."""

    def __init__(self, inside: Inside, check: CheckCredential, control_secret: str, policy: TopicPolicy) -> None:
        self.port = 0
        self.refused = 0
        self._inside = inside
        self._check = check
        self._control_secret = control_secret
        self._policy = policy
        self._clients: dict[str, tuple[asyncio.StreamWriter, asyncio.Event]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    def admitted(self, client_id: str, user: str) -> bool:
        """Whether this client came in by the door, with a credential."""
        return client_id in self._clients and client_id == user

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._knock, "127.0.0.1", 0, limit=READ_SIZE)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _knock(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = spawn(self._visit(reader, writer), name="mqtt client")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _visit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        packets = Packets()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                first = await _first_packet(reader, packets)
                connect = parse_connect(first)
                await self._admit(connect)
        except (Refusal, BadPacket, OSError, EOFError) as error:
            self.refused += 1
            _log.warning("mqtt: a client was refused: %s", str(error) or type(error).__name__)
            with contextlib.suppress(OSError):
                writer.write(REFUSED)
            writer.close()
            return
        await self._take_in(connect, _Vetted(reader, packets, first, connect, self._policy), writer)

    async def _admit(self, connect: Connect) -> None:
        """Raises Refusal."""
        user = connect.user
        if connect.client_id != user or not connect.clean_session:
            raise Refusal(f"{user[:40]!r}: the client id must be the user name, and the session clean")
        own = (None,) if user == CONTROL else (None, topic(user, "status"))
        if connect.will_topic not in own or len(connect.will_message) > MAX_WILL:
            raise Refusal(f"{user[:40]!r}: a last will that is not a status of its own")
        if user == CONTROL:
            allowed = hmac.compare_digest(connect.password.encode(), self._control_secret.encode())
        else:
            allowed = is_run_id(user) and await self._check(user, connect.password)
        if not allowed:
            raise Refusal(f"{user[:40]!r}: the credential does not count")
        if len(self._clients) >= MAX_CLIENTS:
            raise Refusal(f"{user!r}: there are {MAX_CLIENTS} clients already")

    async def _take_in(self, connect: Connect, reader: "_Vetted", writer: asyncio.StreamWriter) -> None:
        while (older := self._clients.get(connect.client_id)) is not None:
            older[0].transport.abort()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(END_SECONDS):
                    await older[1].wait()
            if self._clients.get(connect.client_id) is older:
                break
        ended = asyncio.Event()
        self._clients[connect.client_id] = (writer, ended)
        try:
            await self._inside.external_connected(reader, StreamWriterAdapter(writer), "default")
        finally:
            ended.set()
            if self._clients.get(connect.client_id) == (writer, ended):
                del self._clients[connect.client_id]
            writer.transport.abort()


async def _first_packet(reader: asyncio.StreamReader, packets: Packets) -> bytes:
    while (packet := packets.take()) is None:
        if not (data := await reader.read(READ_SIZE)):
            raise EOFError("it left before it said who it is")
        packets.feed(data)
    return packet


class _Vetted(ReaderAdapter):  # type: ignore[misc]  # amqtt has no types
    """What the broker reads from: whole packets that were looked at."""

    def __init__(
        self, reader: asyncio.StreamReader, packets: Packets, first: bytes, connect: Connect, policy: TopicPolicy
    ) -> None:
        self._reader = reader
        self._packets = packets
        self._ready = bytearray(first)
        self._connect = connect
        self._policy = policy
        self._heard = asyncio.get_running_loop().time()
        self._credit, self._credited = BURST, self._heard
        self._over = False

    async def read(self, n: int = -1) -> bytes:
        """Exactly `n` bytes; IncompleteReadError at the end, of whatever kind. May be cancelled without loss."""
        while len(self._ready) < n or (n < 0 and not self._ready):
            packet = await self._next()
            if packet is None:
                raise asyncio.IncompleteReadError(bytes(self._ready), n)
            self._ready += packet
        end = len(self._ready) if n < 0 else n
        taken = bytes(self._ready[:end])
        del self._ready[:end]
        return taken

    def feed_eof(self) -> None:
        self._over = True

    async def _next(self) -> bytes | None:
        """The next packet; None = the client is gone, silent, or misbehaves."""
        if self._over:
            return None
        try:
            await self._pace()
            while (packet := self._packets.take()) is None:
                async with asyncio.timeout_at(self._silent_at()):
                    data = await self._reader.read(READ_SIZE)
                if not data:
                    return None
                self._packets.feed(data)
            self._vet(packet)
        except (BadPacket, OSError) as error:  # TimeoutError is an OSError
            _log.warning("mqtt: %s is cut off: %s", self._connect.user, str(error) or "silent for too long")
            self._over = True
            return None
        self._heard = asyncio.get_running_loop().time()
        return packet

    def _silent_at(self) -> float | None:
        return self._heard + SILENCE * self._connect.keepalive if self._connect.keepalive else None

    async def _pace(self) -> None:
        """Wait until one more packet is within the pace; the client is held back by its own socket meanwhile."""
        if self._connect.user == CONTROL:
            return
        now = asyncio.get_running_loop().time()
        self._credit = min(BURST, self._credit + (now - self._credited) * PACE)
        self._credited = now
        if self._credit < 1:
            await asyncio.sleep((1 - self._credit) / PACE)
            self._credit, self._credited = 1.0, asyncio.get_running_loop().time()
        self._credit -= 1

    def _vet(self, packet: bytes) -> None:
        kind = packet[0] >> 4
        if kind == PacketType.CONNECT:
            raise BadPacket("a second CONNECT")
        if kind == PacketType.PUBLISH and not self._policy.may_publish(self._connect.user, publish_topic(packet)):
            raise BadPacket(f"a message to {publish_topic(packet)[:80]!r}")
