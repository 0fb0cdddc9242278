"""Blocks of a checkpoint from the store: neighbours in one request, several requests in flight, each block verified."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from portico_agent.checkpoint.landing import Wanted
from portico_agent.checkpoint.transfer import Transfer
from portico_shared.checkpoint.block import BlockRef, decode
from portico_shared.checkpoint.entries import Segment, decode_segment
from portico_shared.checkpoint.faults import FormatError
from portico_shared.checkpoint.head import Layer, check_refs

SPAN = 8 * 1024 * 1024
"""Bytes asked for at once at most: large enough for a store far away, small enough to begin writing early."""
GAP = 256 * 1024
"""Bytes nobody needs that are fetched along rather than asking twice."""
IN_FLIGHT = 4

Item = TypeVar("Item")


@dataclass(slots=True)
class Span:
    """A run of bytes of one pack, and the blocks in it."""

    pack: bytes
    start: int
    length: int
    refs: list[BlockRef] = field(default_factory=list)


def spans(refs: Iterable[BlockRef]) -> list[Span]:
    """Requests for all of these, each block once."""
    found: list[Span] = []
    for ref in sorted(set(refs), key=lambda each: (each.pack, each.offset)):
        last = found[-1] if found else None
        if last is not None and last.pack == ref.pack:
            end = ref.offset + ref.stored - last.start
            if ref.offset <= last.start + last.length + GAP and end <= SPAN:
                last.length = max(last.length, end)
                last.refs.append(ref)
                continue
        found.append(Span(ref.pack, ref.offset, ref.stored, [ref]))
    return found


@dataclass(frozen=True, slots=True)
class StoredSegment:
    """A segment as it lies in its pack: small enough to keep, decoded when it is looked at."""

    ref: BlockRef
    stored: bytes

    def read(self, pack_sizes: dict[bytes, int]) -> Segment:
        """Raises FormatError that names the pack."""
        with_name = f"packs/{self.ref.pack.hex()}"
        try:
            segment = decode_segment(decode(self.ref, self.stored))
            check_refs(segment.blocks, pack_sizes)
        except FormatError as fault:
            raise type(fault)(fault.message, fault.object_name or with_name) from None
        return segment


async def fetch_segments(transfer: Transfer, layer: Layer) -> list[StoredSegment]:
    """In the layer's order."""
    refs = [segment.block for segment in layer.segments]
    pieces: dict[tuple[bytes, int], bytes] = {}

    async def fetch(span: Span) -> None:
        content = await transfer.get("pack", span.pack.hex(), start=span.start, length=span.length)
        for ref in span.refs:
            begin = ref.offset - span.start
            pieces[ref.pack, ref.offset] = content[begin : begin + ref.stored]

    await in_parallel(spans(refs), fetch, IN_FLIGHT)
    return [StoredSegment(ref, pieces[ref.pack, ref.offset]) for ref in refs]


async def fetch_contents(
    transfer: Transfer,
    wanted: dict[tuple[bytes, int], Wanted],
    write: Callable[[Wanted, bytes], None],
    progress: Callable[[int], None],
    pool: ThreadPoolExecutor,
) -> None:
    """Every wanted block is verified and given to `write` (in threads). `progress` hears of raw bytes written."""
    done = 0
    loop = asyncio.get_running_loop()

    def unpack(span: Span, content: bytes) -> int:
        total = 0
        for ref in span.refs:
            begin = ref.offset - span.start
            try:
                raw = decode(ref, memoryview(content)[begin : begin + ref.stored])
            except FormatError as fault:
                raise type(fault)(fault.message, f"packs/{ref.pack.hex()}") from None
            write(wanted[ref.pack, ref.offset], raw)
            total += len(raw)
        return total

    async def fetch(span: Span) -> None:
        nonlocal done
        content = await transfer.get("pack", span.pack.hex(), start=span.start, length=span.length)
        done += await loop.run_in_executor(pool, unpack, span, content)
        progress(done)

    await in_parallel(spans(each.ref for each in wanted.values()), fetch, IN_FLIGHT)


async def in_parallel(items: Sequence[Item], work: Callable[[Item], Awaitable[None]], count: int) -> None:
    """`work` on every item, `count` at a time, in order. Raises the first error."""
    source = iter(items)

    async def worker() -> None:
        for item in source:
            await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(worker())
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
