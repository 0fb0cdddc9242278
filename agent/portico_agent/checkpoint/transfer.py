"""Objects to and from the store: granted, moved, tried again. Runs in the event loop; captures feed it from threads."""

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol

from portico_agent.errors import StorageAway, StorageRefused
from portico_shared.backoff import Backoff
from portico_shared.checkpoint.digest import name_of
from portico_shared.checkpoint.faults import Damaged
from portico_shared.clock import Clock, SystemClock
from portico_shared.messages import Grant, ObjectName

IN_FLIGHT = 3
"""Sealed packs in memory on their way: enough to fill a line while each waits for its answer."""
PATIENCE = 180.0
"""Seconds one object is tried for while the store is away, where the job says nothing else."""
REFUSALS = 3
"""Fresh grants asked for when the store refuses one: it may have expired on a slow line."""
_log = logging.getLogger(__name__)


class Gateway(Protocol):
    """What a job needs of `portico_agent.gateway.GatewayClient` to move objects."""

    async def grants(self, objects: tuple[ObjectName, ...]) -> tuple[Grant, ...]: ...

    async def reads(self, objects: tuple[ObjectName, ...]) -> tuple[Grant, ...]: ...

    async def put(self, grant: Grant, body: bytes) -> None: ...

    async def get(self, grant: Grant, *, start: int = 0, length: int = 0) -> bytes: ...


class Transfer:
    """Moves whole objects up and pieces of objects down."""

    def __init__(
        self,
        gateway: Gateway,
        clock: Clock | None = None,
        *,
        patience: float = PATIENCE,
        waiting: Callable[[str], None] | None = None,
    ) -> None:
        """`waiting` is told why, each time that the store asks for patience."""
        self._gateway = gateway
        self._patience = patience
        self._waiting = waiting
        self._clock = clock or SystemClock()
        self._granted: dict[str, tuple[Grant, float]] = {}
        self.uploaded = 0
        """Bytes sent; what the store had already is not counted."""

    async def put(self, name: ObjectName, content: bytes) -> None:
        """The object is durable when this returns. Raises StorageAway or StorageRefused when patience is at its end."""
        deadline, backoff, refusals = self._clock.monotonic() + self._patience, Backoff(), 0
        while True:
            (grant,) = await self._gateway.grants((name,))
            if grant.exists:
                return
            try:
                await self._gateway.put(grant, content)
                self.uploaded += len(content)
                return
            except StorageRefused as refused:
                refusals += 1
                if refusals >= REFUSALS:
                    raise
                _log.info("%s %s: %s; once more with a new grant", name.kind, name.hash[:16], refused)
            except StorageAway as away:
                await self._wait(away, backoff, deadline)

    async def get(self, kind: str, name: str, *, start: int = 0, length: int = 0) -> bytes:
        """`length` bytes from `start`, or the whole object, checked against its name then. Raises StorageAway,
        StorageRefused, Damaged."""
        deadline, backoff, refusals = self._clock.monotonic() + self._patience, Backoff(), 0
        while True:
            grant = await self._grant(kind, name)
            try:
                content = await self._gateway.get(grant, start=start, length=length)
                if length and len(content) != length:
                    raise Damaged("it is shorter than it was", f"{kind}s/{name}")
                if not length and name_of(content) != name:
                    raise Damaged("its content does not match its name", f"{kind}s/{name}")
                return content
            except StorageRefused as refused:
                refusals += 1
                if refused.status in (404, 416) or refusals >= REFUSALS:
                    raise Damaged(
                        f"the store says {refused.status}: {refused.message[:200]}", f"{kind}s/{name}"
                    ) from None
                self._granted.pop(f"{kind}s/{name}", None)
            except StorageAway as away:
                await self._wait(away, backoff, deadline)

    async def _grant(self, kind: str, name: str) -> Grant:
        key, now = f"{kind}s/{name}", self._clock.monotonic()
        grant, until = self._granted.get(key, (None, 0.0))
        if grant is None or now >= until:
            wanted = ObjectName(kind="pack" if kind == "pack" else "head", hash=name)
            (grant,) = await self._gateway.reads((wanted,))
            self._granted[key] = grant, now + grant.expires_in / 2
        return grant

    async def _wait(self, away: StorageAway, backoff: Backoff, deadline: float) -> None:
        delay = backoff.next_delay()
        if self._clock.monotonic() + delay > deadline:
            raise away
        _log.info("the store is away (%s), again in %.1f s", away, delay)
        if self._waiting is not None:
            self._waiting(str(away))
        await self._clock.sleep(delay)


class Uploads:
    """A Receiver of packs for the capture's thread. At most IN_FLIGHT are held; the first failure ends it all."""

    def __init__(self, transfer: Transfer, loop: asyncio.AbstractEventLoop) -> None:
        self._transfer = transfer
        self._loop = loop
        self._room = threading.Semaphore(IN_FLIGHT)
        self._pending: set[Future[None]] = set()
        self._lock = threading.Lock()
        self._failure: BaseException | None = None

    def reserve(self) -> None:
        self._room.acquire()
        if self._failure is not None:
            self._room.release()
            raise self._failure

    def send(self, name: ObjectName, content: bytes) -> None:
        future = asyncio.run_coroutine_threadsafe(self._transfer.put(name, content), self._loop)
        with self._lock:
            self._pending.add(future)
        future.add_done_callback(self._done)

    def finish(self) -> None:
        """All that was sent is durable. Raises what made one fail."""
        with self._lock:
            pending = list(self._pending)
        for future in pending:
            future.exception()
        if self._failure is not None:
            raise self._failure

    def cancel(self) -> None:
        with self._lock:
            pending = list(self._pending)
        for future in pending:
            future.cancel()

    def _done(self, future: Future[None]) -> None:
        with self._lock:
            self._pending.discard(future)
        if future.cancelled():
            self._failure = self._failure or RuntimeError("the upload was given up")
        elif (error := future.exception()) is not None:
            self._failure = self._failure or error
        self._room.release()
