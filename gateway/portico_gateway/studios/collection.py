"""What becomes of objects: which are known to be there, and the removal of those that no checkpoint needs.

Collection marks from all heads of a lineage and sweeps the rest, and only while nobody writes there: a live run of any
studio of the lineage puts it off until that run is over. `calm` keeps writers and the sweep apart.
"""

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import TypeVar
from weakref import WeakValueDictionary

from portico_gateway.errors import Conflict, PorticoError
from portico_gateway.objects.object_store import ObjectStore, object_key
from portico_gateway.studios.checkpoint_rows import CheckpointRows
from portico_shared.messages import ObjectName

AT_ONCE = 16
"""Questions put to the object store at the same time by one call."""
REMEMBERED = 256
"""Lineages whose objects are remembered, so that a commit asks the store for its new packs alone."""

Item = TypeVar("Item")
Answer = TypeVar("Answer")
_log = logging.getLogger(__name__)


class Collector:
    def __init__(self, rows: CheckpointRows, objects: ObjectStore) -> None:
        self._rows = rows
        self._objects = objects
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._stored: OrderedDict[str, dict[str, int]] = OrderedDict()

    @contextlib.asynccontextmanager
    async def calm(self, lineage: str) -> AsyncIterator[None]:
        """Nothing of the lineage is swept in here."""
        lock = self._locks.get(lineage)
        if lock is None:
            lock = self._locks[lineage] = asyncio.Lock()
        async with lock:
            yield

    def knows(self, lineage: str, each: ObjectName) -> bool:
        """Whether the store was seen to hold it, with this size, since the last sweep."""
        return self._stored.get(lineage, {}).get(f"{each.kind}s/{each.hash}") == each.size

    def remember(self, lineage: str, names: Iterable[ObjectName]) -> None:
        """These, and no others, are the lineage's newest."""
        self._stored[lineage] = {f"{each.kind}s/{each.hash}": each.size for each in names}
        self._stored.move_to_end(lineage)
        while len(self._stored) > REMEMBERED:
            self._stored.popitem(last=False)

    async def drop_unused(self, lineage: str, key: str) -> None:
        """Make room for an object of another size under this name. Raises Conflict when a checkpoint refers to it."""
        if key in await self._needed(lineage):
            raise Conflict(f"object {key} is in the store with another size, and a checkpoint refers to it")
        await self._objects.delete(key)

    async def collect(self, lineage: str, *, over: str = "") -> int:
        """Delete what no head of the lineage refers to; how many objects went. 0 also when somebody writes there.

        `over`: a run that counts as ended already. Never raises for the store's sake: the next time will do.
        """
        async with self.calm(lineage):
            if await self._rows.has_live_run(lineage, over):
                return 0
            self._stored.pop(lineage, None)
            try:
                return await self._sweep(lineage, await self._needed(lineage))
            except PorticoError as error:
                _log.warning("lineage %s: unused objects stay for now: %s", lineage, error.message)
                return 0

    async def _sweep(self, lineage: str, needed: set[str]) -> int:
        unused = [found.key async for found in self._objects.list_objects(f"{lineage}/") if found.key not in needed]
        await in_batches(self._objects.delete, unused)
        if unused:
            _log.info("lineage %s: %d unused objects deleted, %d kept", lineage, len(unused), len(needed))
        return len(unused)

    async def _needed(self, lineage: str) -> set[str]:
        heads, packs = await self._rows.objects(lineage)
        return {object_key(lineage, "head", name) for name in heads} | {
            object_key(lineage, "pack", name) for name in packs
        }


async def in_batches(ask: Callable[[Item], Awaitable[Answer]], items: Sequence[Item]) -> list[Answer]:
    """The answers in order, AT_ONCE questions at a time. Raises the first error."""
    answers: list[Answer] = []
    for start in range(0, len(items), AT_ONCE):
        answers += await asyncio.gather(*(ask(item) for item in items[start : start + AT_ONCE]))
    return answers
