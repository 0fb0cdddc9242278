"""Who watches a workspace is told what changes in it, and can never hold anyone up."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator

from portico_gateway.studios.values import StudioEvent

MAX_PENDING = 1024
"""Changes kept for a watcher that does not read. The same change of the same studio is kept once, so this many studios
would have to change meanwhile; then the oldest are dropped, and a watcher reads the rest anew anyway."""


class _Watcher:
    __slots__ = ("pending", "some", "workspace_id")

    def __init__(self, workspace_id: int) -> None:
        self.workspace_id = workspace_id
        self.pending: OrderedDict[StudioEvent, None] = OrderedDict()
        self.some = asyncio.Event()

    def put(self, event: StudioEvent) -> None:
        self.pending[event] = None
        self.pending.move_to_end(event)
        while len(self.pending) > MAX_PENDING:
            self.pending.popitem(last=False)
        self.some.set()


class EventHub:
    """`publish` never waits; each watcher has a bounded queue of its own."""

    def __init__(self) -> None:
        self._watchers: set[_Watcher] = set()

    def publish(self, event: StudioEvent) -> None:
        for watcher in self._watchers:
            if watcher.workspace_id == event.workspace_id:
                watcher.put(event)

    async def watch(self, workspace_id: int) -> AsyncGenerator[StudioEvent, None]:
        """What happens from the first `anext` on, until the iterator is closed."""
        watcher = _Watcher(workspace_id)
        self._watchers.add(watcher)
        try:
            while True:
                await watcher.some.wait()
                watcher.some.clear()
                while watcher.pending:
                    event, _ = watcher.pending.popitem(last=False)
                    yield event
        finally:
            self._watchers.discard(watcher)

    @property
    def watchers(self) -> int:
        return len(self._watchers)
