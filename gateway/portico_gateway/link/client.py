"""The edge's end of the link: asks, tells, and hears what control pushes. Outlives control's restarts."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from portico_gateway.errors import Unavailable
from portico_gateway.link.framing import BadFrame, from_control, pack
from portico_gateway.link.messages import (
    CheckRun,
    CheckToken,
    ControlMessage,
    Hello,
    Presence,
    ProbeReply,
    RedeemCode,
    Renew,
    Tunnels,
    Verdict,
)
from portico_shared.backoff import Backoff

Question = CheckToken | CheckRun | RedeemCode | Renew
News = Tunnels | Presence | ProbeReply

ASK_SECONDS = 5.0
MAX_OPEN_QUESTIONS = 1024
"""Beyond this control is not keeping up, and one more question would only wait for its timeout."""
MAX_UNSENT = 4 * 1024 * 1024
"""Bytes control may leave unread before news is dropped: with 1 MiB frames at most, a few of them."""
READ_SIZE = 64 * 1024

_log = logging.getLogger(__name__)


class LinkClient:
    """One connection to control at a time, dialled for ever.

    `on_push` gets every message that answers no question, in the order control sent them; it must not raise (if it
    does that is logged and the link goes on). `greet` gives what control must be told again after each connect.
    """

    def __init__(
        self,
        path: Path | str,
        hello: Hello,
        on_push: Callable[[ControlMessage], None],
        *,
        greet: Callable[[], Iterable[News]] = tuple,
        backoff: Backoff | None = None,
    ) -> None:
        self.connected = asyncio.Event()
        self.dropped = 0
        self._path = str(path)
        self._hello = hello
        self._on_push = on_push
        self._greet = greet
        self._backoff = backoff or Backoff(base=0.1, cap=2.0)
        self._writer: asyncio.StreamWriter | None = None
        self._questions: dict[int, asyncio.Future[Verdict]] = {}
        self._last_id = 0

    def statistics(self) -> dict[str, Any]:
        return {"connected": self.connected.is_set(), "asked": len(self._questions), "dropped": self.dropped}

    async def run(self) -> None:
        """Dial for ever; returns only by cancellation."""
        while True:
            try:
                await self._dial_once()
                _log.info("link to control: closed by control")
            except (OSError, BadFrame) as error:
                _log.warning("link to control at %s: %s", self._path, error)
            await asyncio.sleep(self._backoff.next_delay())

    async def _dial_once(self) -> None:
        reader, writer = await asyncio.open_unix_connection(self._path)
        try:
            writer.write(pack(self._hello))
            for news in self._greet():
                writer.write(pack(news))
            self._writer = writer
            self.connected.set()
            await self._listen(reader)
        finally:
            self._writer = None
            self.connected.clear()
            self._fail_questions()
            writer.close()

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        frames = from_control()
        while data := await reader.read(READ_SIZE):
            for message in frames.feed(data):
                self._backoff.reset()
                self._hear(message)

    def _hear(self, message: ControlMessage) -> None:
        if isinstance(message, Verdict):
            asker = self._questions.pop(message.id, None)
            if asker is not None and not asker.done():
                asker.set_result(message)
            return
        try:
            self._on_push(message)
        except Exception:
            _log.exception("link to control: %s could not be applied", type(message).__name__)

    def _fail_questions(self) -> None:
        questions, self._questions = self._questions, {}
        for asker in questions.values():
            if not asker.done():
                asker.set_exception(Unavailable("Portico's control process is restarting; try again in a moment."))

    async def ask(self, question: Question, *, timeout: float = ASK_SECONDS) -> Verdict:
        """Control's verdict; `question.id` is set here. Raises Unavailable when control is away or too slow."""
        if self._writer is None or len(self._questions) >= MAX_OPEN_QUESTIONS:
            raise Unavailable("Portico's control process cannot be reached just now; try again in a moment.")
        self._last_id += 1
        number = self._last_id
        answer: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._questions[number] = answer
        try:
            self._writer.write(pack(msgspec.structs.replace(question, id=number)))
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError:
            raise Unavailable(f"Portico's control process did not answer within {timeout:g} s; try again.") from None
        finally:
            self._questions.pop(number, None)

    def tell(self, message: News) -> bool:
        """Send without waiting. False when it was dropped: control is away (it will be greeted) or far behind."""
        if self._writer is None or self._writer.transport.get_write_buffer_size() > MAX_UNSENT:
            self.dropped += 1
            return False
        self._writer.write(pack(message))
        return True
