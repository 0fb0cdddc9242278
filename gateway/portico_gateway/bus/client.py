"""Control's client of the broker: what runs say comes up as checked structs, commands go down and are answered."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import aiomqtt
import msgspec

from portico_gateway.bus.policy import CONTROL, CONTROL_FILTERS, UP, split
from portico_gateway.errors import Unavailable
from portico_shared.backoff import Backoff
from portico_shared.clock import Clock, SystemClock
from portico_shared.messages import MAX_MESSAGE, Answer, Command, Report, Status, topic
from portico_shared.tasks import heed_cancellation

OnMessage = Callable[[str, Status | Report], Awaitable[None]]
"""(run id, what it said). Called one after the other, in the order things were said; what it raises is logged."""

KEEPALIVE = 10
MAX_UNHEARD = 20_000
"""Messages waiting for `on_message`; beyond it the oldest report is dropped, never a status."""
MAX_RUNS = 10_000
"""Runs whose newest status number is remembered."""

_log = logging.getLogger(__name__)
_decoders: dict[str, msgspec.json.Decoder[Status | Report | Answer]] = {
    "status": msgspec.json.Decoder(Status),
    "report": msgspec.json.Decoder(Report),
    "answer": msgspec.json.Decoder(Answer),
}


@dataclass(slots=True)
class BusStatistics:
    received: int = 0
    garbage: int = 0
    stale: int = 0
    dropped: int = 0


class Bus:
    """`await run()` connects for ever. What a run says is attributed by its topic (which the broker guards), never by
    a field; what does not decode, is too large or names another run is counted and dropped."""

    def __init__(
        self,
        address: Callable[[], tuple[str, int] | None],
        password: Callable[[], str],
        on_message: OnMessage,
        *,
        clock: Clock | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self.connected = asyncio.Event()
        self.statistics = BusStatistics()
        self._address = address
        self._password = password
        self._on_message = on_message
        self._clock = clock or SystemClock()
        self._backoff = backoff or Backoff(base=0.1, cap=2.0)
        self._client: aiomqtt.Client | None = None
        self._answers: dict[tuple[str, str], asyncio.Future[Answer]] = {}
        self._unheard: deque[tuple[str, Status | Report]] = deque()
        self._more = asyncio.Event()
        self._newest: dict[str, tuple[int, int]] = {}

    async def run(self) -> None:
        """Returns only by cancellation."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._deliver())
            while True:
                try:
                    await self._connect_once()
                except (aiomqtt.MqttError, OSError) as error:
                    heed_cancellation()
                    _log.warning("the broker is away: %s", error)
                await self._clock.sleep(self._backoff.next_delay())

    async def _connect_once(self) -> None:
        address = self._address()
        if address is None:
            raise ConnectionRefusedError("its address is not known yet")
        async with aiomqtt.Client(
            *address,
            username=CONTROL,
            password=self._password(),
            identifier=CONTROL,
            clean_session=True,
            keepalive=KEEPALIVE,
        ) as client:
            self._client = client
            client.pending_calls_threshold = 4096  # commands to a whole fleet at once are no mistake
            try:
                for topic_filter in sorted(CONTROL_FILTERS):
                    await client.subscribe(topic_filter, qos=1)
                    heed_cancellation()
                self._backoff.reset()
                self.connected.set()
                async for message in client.messages:
                    self._receive(str(message.topic), message.payload)
            finally:
                self._client = None
                self.connected.clear()

    # --- up ---------------------------------------------------------------------------------------------------------

    def _receive(self, name: str, payload: object) -> None:
        """Never raises: what comes here was said by user code."""
        self.statistics.received += 1
        where = split(name)
        if where is None or where[1] not in UP or not isinstance(payload, bytes):
            self._throw_away(name, "not a topic of ours")
            return
        if not payload:
            return  # somebody cleared what was retained there
        run, leaf = where
        if len(payload) > MAX_MESSAGE:
            self._throw_away(name, f"{len(payload)} bytes")
            return
        try:
            said = _decoders[leaf].decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._throw_away(name, str(error))
            return
        if said.run != run:
            self._throw_away(name, "it speaks for another run")
            return
        self._take(run, said)

    def _throw_away(self, name: str, why: str) -> None:
        self.statistics.garbage += 1
        _log.warning("mqtt: dropped a message on %.100s: %.200s", name, why)

    def _take(self, run: str, said: Status | Report | Answer) -> None:
        if isinstance(said, Answer):
            asked = self._answers.get((run, said.id))
            if asked is not None and not asked.done():
                asked.set_result(said)
            return
        if isinstance(said, Status) and not self._is_news(run, said):
            self.statistics.stale += 1
            return
        if len(self._unheard) >= MAX_UNHEARD:
            self._make_room()
        self._unheard.append((run, said))
        self._more.set()

    def _is_news(self, run: str, status: Status) -> bool:
        """A last will that comes late, or a status from before a reconnection, is older than what we know."""
        number = (status.agent, status.seq)
        if number < self._newest.get(run, (0, 0)):
            return False
        self._newest.pop(run, None)
        if len(self._newest) >= MAX_RUNS:
            del self._newest[next(iter(self._newest))]
        self._newest[run] = number
        return True

    def _make_room(self) -> None:
        """Drop the oldest report; of statuses, which replace one another, the oldest of the same kind."""
        self.statistics.dropped += 1
        for index, (_, said) in enumerate(self._unheard):
            if not isinstance(said, Status):
                del self._unheard[index]
                return
        self._unheard.popleft()

    async def _deliver(self) -> None:
        while True:
            self._more.clear()
            while self._unheard:
                run, said = self._unheard.popleft()
                try:
                    await self._on_message(run, said)
                except Exception:
                    _log.exception("what run %s said could not be taken: %s", run, type(said).__name__)
            await self._more.wait()

    # --- down -------------------------------------------------------------------------------------------------------

    async def command(self, run_id: str, command: Command, *, timeout: float) -> Answer:
        """Send and wait for the answer. Safe to repeat with the same id: an agent does a command once.
        Raises Unavailable when none came within `timeout` seconds, or the broker is away."""
        key = (run_id, command.id)
        answer = self._answers.setdefault(key, asyncio.get_running_loop().create_future())
        try:
            async with asyncio.timeout(timeout):
                await self._publish(topic(run_id, "command"), msgspec.json.encode(command))
                return await asyncio.shield(answer)
        except TimeoutError:
            raise Unavailable(f"The studio's agent did not answer within {timeout:g} s.") from None
        finally:
            if self._answers.get(key) is answer:
                del self._answers[key]

    async def forget(self, run_id: str) -> None:
        """The run is over: clear what the broker keeps of it. Raises Unavailable when the broker is away."""
        self._newest.pop(run_id, None)
        for leaf in UP:
            await self._publish(topic(run_id, leaf), b"", retain=True)

    async def _publish(self, to: str, payload: bytes, *, retain: bool = False) -> None:
        if self._client is None:
            raise Unavailable("The control road is away just now; try again in a moment.")
        try:
            await self._client.publish(to, payload, qos=1, retain=retain)
        except aiomqtt.MqttError as error:
            raise Unavailable(f"The control road broke: {error}; try again in a moment.") from error
