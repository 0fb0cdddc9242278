"""Control's view of one connected edge worker: its name, what it told, its questions in work, its probes."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

import msgspec

from portico_gateway.errors import PorticoError
from portico_gateway.link.client import Question
from portico_gateway.link.framing import BadFrame, from_edge, pack
from portico_gateway.link.messages import (
    ControlMessage,
    EdgeMessage,
    Hello,
    Presence,
    Probe,
    ProbeReply,
    Tunnels,
    Verdict,
)

MAX_AT_ONCE = 256
"""Questions of one worker in work at once; further ones wait unread in the socket."""
MAX_UNREAD = 8 * 1024 * 1024
"""Bytes a worker may leave unread; beyond it is cut off and gets a fresh snapshot when it comes back."""
HELLO_SECONDS = 5.0
PROBE_GRACE = 1.0
READ_SIZE = 64 * 1024

_log = logging.getLogger(__name__)


class LinkHandler(Protocol):
    """What control does with what workers say."""

    async def answer(self, message: Question) -> Verdict:
        """The verdict on a question; its id is set by the server. A PorticoError raised becomes its status."""
        ...

    def told(self, worker: str, message: Hello | Tunnels | Presence) -> None:
        """News of a worker. When a worker is lost, what it last told is taken back: `Tunnels` with 0 connections and
        `Presence` without users, so the handler needs no bookkeeping of workers."""
        ...

    def snapshot(self) -> Sequence[ControlMessage]:
        """The whole truth, sent first to each worker: Keys, then Routes."""
        ...


class WorkerConnection:
    """`follow()` is its life; `send` and `probe` are for the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handler: LinkHandler) -> None:
        self.name = ""
        self.tunnels: dict[str, Tunnels] = {}
        self._reader = reader
        self._frames = from_edge()
        self._early: list[EdgeMessage] = []  # came in one piece with the hello
        self._writer = writer
        self._handler = handler
        self._present: set[str] = set()
        self._probes: dict[int, asyncio.Future[ProbeReply]] = {}
        self._slots = asyncio.Semaphore(MAX_AT_ONCE)
        self._working: set[asyncio.Task[None]] = set()

    def reaches(self, session_id: str) -> bool:
        return any(t.session_id == session_id for t in self.tunnels.values())

    def send(self, frame: bytes) -> None:
        """Never waits. A worker that does not read is cut off."""
        if self._writer.transport.get_write_buffer_size() > MAX_UNREAD:
            _log.warning("link: worker %s does not read; cut off", self.name)
            self._writer.transport.abort()
            return
        self._writer.write(frame)

    async def greeted(self) -> None:
        """Wait for Hello, answer with the snapshot. Raises BadFrame or TimeoutError for what is no worker."""
        async with asyncio.timeout(HELLO_SECONDS):
            while not (messages := self._frames.feed(await self._read())):
                pass
        if not isinstance(messages[0], Hello):
            raise BadFrame(f"a worker begins with hello, not with {type(messages[0]).__name__}")
        self.name = messages[0].worker
        self._handler.told(self.name, messages[0])
        for message in self._handler.snapshot():
            self.send(pack(message))
        self._early = messages[1:]

    async def follow(self) -> None:
        """Read until the worker goes away; questions still in work then are dropped."""
        async with asyncio.TaskGroup() as group:
            try:
                for message in self._early:
                    await self._take(message, group)
                while data := await self._reader.read(READ_SIZE):
                    for message in self._frames.feed(data):
                        await self._take(message, group)
            finally:
                for task in self._working:
                    task.cancel()

    async def _read(self) -> bytes:
        if not (data := await self._reader.read(READ_SIZE)):
            raise BadFrame("a worker hung up before its hello")
        return data

    async def _take(self, message: EdgeMessage, group: asyncio.TaskGroup) -> None:
        match message:
            case ProbeReply():
                asker = self._probes.pop(message.id, None)
                if asker is not None and not asker.done():
                    asker.set_result(message)
            case Tunnels():
                self._note(message)
            case Presence():
                (self._present.add if message.users else self._present.discard)(message.session_id)
                self._handler.told(self.name, message)
            case Hello():
                raise BadFrame("a second hello")
            case _:
                await self._slots.acquire()
                task = group.create_task(self._answer(message))
                self._working.add(task)
                task.add_done_callback(self._working.discard)

    def _note(self, message: Tunnels) -> None:
        if message.connections:
            self.tunnels[message.run] = message
        else:
            self.tunnels.pop(message.run, None)
        self._handler.told(self.name, message)

    async def _answer(self, question: Question) -> None:
        try:
            verdict = await self._handler.answer(question)
        except PorticoError as error:
            verdict = Verdict(id=question.id, status=error.status, message=error.message)
        except Exception:
            _log.exception("link: no answer to %s", type(question).__name__)
            verdict = Verdict(id=question.id, status=500, message="Portico could not answer; its log says why.")
        finally:
            self._slots.release()
        self.send(pack(msgspec.structs.replace(verdict, id=question.id)))

    async def probe(self, question: Probe) -> ProbeReply:
        """Status 0 when the worker does not answer in time or goes away."""
        answer: asyncio.Future[ProbeReply] = asyncio.get_running_loop().create_future()
        self._probes[question.id] = answer
        try:
            self.send(pack(question))
            async with asyncio.timeout(question.timeout + PROBE_GRACE):
                return await answer
        except TimeoutError:
            return ProbeReply(id=question.id, status=0, detail="the edge did not answer in time")
        finally:
            self._probes.pop(question.id, None)

    def lost(self) -> None:
        """Take back what this worker told; wake who waits for it."""
        for number, asked in self._probes.items():
            if not asked.done():
                asked.set_result(ProbeReply(id=number, status=0, detail="the edge worker went away"))
        for t in list(self.tunnels.values()):
            self._note(Tunnels(run=t.run, session_id=t.session_id, connections=0))
        for session_id in self._present:
            self._handler.told(self.name, Presence(session_id=session_id, users=()))
        self._writer.close()
