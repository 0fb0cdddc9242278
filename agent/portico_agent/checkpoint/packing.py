"""From raw blocks to sealed packs: hashed and compressed in threads, kept in order, handed on when a pack is full.

Everything here is called from one thread, the capture's; only `_make` runs elsewhere. What is in flight is bounded:
LOOKAHEAD raw blocks, one open pack, and as many sealed ones as the receiver lets through.
"""

import base64
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, Protocol

from crc32c import crc32c

from portico_agent.checkpoint.blocks import Block, BlockTable, PackInfo
from portico_shared.checkpoint.block import Codec, encode
from portico_shared.checkpoint.digest import digest, name_of
from portico_shared.checkpoint.entries import HOLE
from portico_shared.checkpoint.limits import BLOCK_TARGET
from portico_shared.checkpoint.pack import PackWriter
from portico_shared.messages import ObjectName

LOOKAHEAD = 12
"""Raw blocks read ahead of the pack builder: three for each thread of the pool."""
_ZEROS = bytes(BLOCK_TARGET)

Source = Callable[[], bytes]


class Receiver(Protocol):
    """Takes sealed packs; blocks while too many are on their way."""

    def reserve(self) -> None:
        """Wait for room for one more pack in memory. Raises what made an earlier one fail."""
        ...

    def send(self, name: ObjectName, content: bytes) -> None:
        """From any thread; gives back what `reserve` took once the object is durable."""
        ...


@dataclass(frozen=True, slots=True)
class _Made:
    hash: bytes
    raw: int
    codec: Codec = Codec.STORED
    stored: bytes | None = None
    """None: nothing to store, it is known or all zeros."""


class Packer:
    """`add` gives each block a number at once; what the number stands for is known after `flush`."""

    def __init__(self, table: BlockTable, pool: ThreadPoolExecutor, receiver: Receiver) -> None:
        self._table = table
        self._pool = pool
        self._receiver = receiver
        self._making: deque[tuple[int, Future[_Made]]] = deque()
        self._pack = PackWriter()
        self._info = PackInfo()
        self._sealing: list[Future[None]] = []
        self.packed = 0
        """Raw bytes that went into new packs."""

    def add(self, source: Source, number: int | None = None) -> int:
        """A block whose bytes `source` gives, in a thread. Waits when too much is in flight."""
        number = self._table.reserve() if number is None else number
        while len(self._making) >= LOOKAHEAD:
            self._take()
        self._making.append((number, self._pool.submit(self._make, source)))
        return number

    def settle(self) -> None:
        """Every number added so far has its meaning, packs may still be open."""
        while self._making:
            self._take()

    def flush(self) -> None:
        """All blocks are in sealed packs, which have their names; they may still be on their way."""
        self.settle()
        if len(self._pack):
            self._seal()
        for sealing in self._sealing:
            sealing.result()
        self._sealing.clear()

    def cancel(self) -> None:
        for _, making in self._making:
            making.cancel()

    def _make(self, source: Source) -> _Made:
        raw = source()
        if not raw[0] and raw == _ZEROS[: len(raw)]:
            return _Made(b"", len(raw))
        found = digest(raw)
        if found in self._table.by_hash:
            return _Made(found, len(raw))
        return _Made(found, len(raw), *encode(raw))

    def _take(self) -> None:
        number, making = self._making.popleft()
        made = making.result()
        if not made.hash:
            self._table.aliases[number] = HOLE
        elif (known := self._table.by_hash.get(made.hash)) is not None:
            self._table.aliases[number] = known
        else:
            assert made.stored is not None
            offset = self._pack.add(made.raw, made.codec, made.stored, made.hash)
            block = Block(self._info, offset, len(made.stored), made.raw, made.codec, made.hash)
            self._table.put(number, block)
            self.packed += made.raw
            if self._pack.full:
                self._seal()

    def _seal(self) -> None:
        self._receiver.reserve()
        pack, info = self._pack, self._info
        info.raw = pack.raw
        self._table.packs.append(info)
        self._pack, self._info = PackWriter(), PackInfo()
        self._sealing.append(self._pool.submit(self._finish, pack, info))

    def _finish(self, pack: PackWriter, info: PackInfo) -> None:
        content = pack.seal()
        name = named("pack", content)
        info.name, info.size = bytes.fromhex(name.hash), name.size
        self._receiver.send(name, content)


def named(kind: Literal["pack", "head"], content: bytes) -> ObjectName:
    """An object's name with all that a grant for it needs."""
    spelt = base64.b64encode(crc32c(content).to_bytes(4, "big")).decode()
    return ObjectName(kind=kind, hash=name_of(content), size=len(content), crc32c=spelt)
