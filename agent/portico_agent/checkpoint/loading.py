"""A restore job from end to end: fetch, verify, land beside `current`, switch. Runs in the child's event loop.

A checkpoint that turns out damaged is named, and the next of the restore point's fallbacks is tried; what is in
`current` changes only when all of one is there.
"""

import asyncio
import contextlib
import errno
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from portico_agent.checkpoint import kernel, moment
from portico_agent.checkpoint.fetching import StoredSegment, fetch_contents, fetch_segments
from portico_agent.checkpoint.jobs import Progress, RestoreJob, RestoreResult
from portico_agent.checkpoint.landing import Landing
from portico_agent.checkpoint.reindex import Digests, write_index
from portico_agent.checkpoint.saving import is_over, waiting
from portico_agent.checkpoint.transfer import Gateway, Transfer
from portico_agent.errors import AgentError
from portico_shared.checkpoint.entries import Order
from portico_shared.checkpoint.faults import Damaged, FormatError
from portico_shared.checkpoint.head import Head, Layer, decode_head
from portico_shared.messages import RestorePoint

STAGING = "restore-"
THREADS = min(4, (os.cpu_count() or 1) + 1)
ROOM = 1.25
"""A volume is a quarter larger than its studio's quota, and may have been full."""


class NotRestorable(AgentError):
    """This checkpoint is whole, but not for this studio."""


async def load(job: RestoreJob, gateway: Gateway, tell: Callable[[Progress], None]) -> RestoreResult:
    """Never raises for what can go wrong with a checkpoint; cancelling leaves `current` as it was."""
    start, notes = time.monotonic(), list[str]()
    transfer = Transfer(gateway, patience=job.patience, waiting=waiting(tell))
    try:
        for point in (job.point, *job.point.fallbacks):
            try:
                head, lowers = await _load(job, point, transfer, tell, notes)
            except FormatError as fault:
                notes.append(f"Checkpoint '{point.name}' is damaged ({fault}).")
                continue
            if notes and point is not job.point:
                notes.append(f"Checkpoint '{point.name}' was restored instead.")
            return RestoreResult(
                ok=True,
                head=point.head,
                checkpoint_id=point.checkpoint_id,
                name=point.name,
                entries=head.entries,
                content_bytes=head.content_bytes,
                seconds=time.monotonic() - start,
                lowers=lowers,
                notes=tuple(notes),
            )
    except (AgentError, OSError) as error:
        return RestoreResult(ok=False, notes=tuple(notes), error=_words(error), over=is_over(error))
    return RestoreResult(ok=False, notes=tuple(notes), error=" ".join([*notes, "No other checkpoint is left to try."]))


async def _load(
    job: RestoreJob, point: RestorePoint, transfer: Transfer, tell: Callable[[Progress], None], notes: list[str]
) -> tuple[Head, tuple[str, ...]]:
    """Raises FormatError for a damaged checkpoint, NotRestorable, AgentError, OSError."""
    tell(Progress(stage="download", total=point.size))
    content = await transfer.get("head", point.head)
    try:
        head = decode_head(content)
    except Damaged as fault:
        raise Damaged(fault.message, f"heads/{point.head}") from None
    _require_fit(job, head)
    target = Path(job.target)
    staging = await asyncio.to_thread(_make_staging, target.parent)
    try:
        names = _layer_names(head)
        tops = [await _land(job, head, number, staging / name, transfer, tell) for number, name in enumerate(names)]
        tell(Progress(stage="finish"))
        await asyncio.to_thread(_switch, staging, target)
    finally:
        await asyncio.to_thread(moment.remove_tree, staging)
    if job.lower and head.lower and head.lower != job.lower:
        notes.append("The machine's own programs differ from those this checkpoint was made on: some may not fit.")
    if any(each.owners_lost for each in tops):
        notes.append("Some files belong to you now: only root may give them back their owners.")
    top = tops[0]
    segments = (each.read(head.pack_sizes()) for each in top.segments)
    with contextlib.suppress(OSError):  # without an index the first checkpoint takes longer, that is all
        await asyncio.to_thread(write_index, Path(job.index), target / names[0], head, content, segments, top.digests)
    return head, tuple(str(target / name) for name in names[1:])


def _require_fit(job: RestoreJob, head: Head) -> None:
    if head.root != job.root:
        raise NotRestorable(
            f"this checkpoint holds {_ROOTS[head.root]}, and this machine can only keep {_ROOTS[job.root]}: "
            "start the studio where it was made, or begin a new one"
        )
    if head.root == "folders" and len(head.layers) > 1:
        raise NotRestorable("this checkpoint has several layers, which only an overlay can hold")
    if job.quota and head.content_bytes > job.quota * ROOM:
        raise NotRestorable(
            f"this checkpoint holds {head.content_bytes // 2**20} MiB, this studio may have "
            f"{job.quota // 2**20} MiB: raise the quota"
        )


_ROOTS = {"overlay": "a whole root file system", "folders": "home and workspace"}


def _layer_names(head: Head) -> list[str]:
    """Where each layer goes below `current`, topmost first; '' is `current` itself."""
    if head.root == "folders":
        return [""]
    return ["upper", *(f"lower-{number}" for number in range(1, len(head.layers)))]


@dataclass(frozen=True, slots=True)
class _Landed:
    segments: list[StoredSegment]
    digests: Digests
    owners_lost: int


async def _land(
    job: RestoreJob, head: Head, number: int, root: Path, transfer: Transfer, tell: Callable[[Progress], None]
) -> _Landed:
    """One layer into the folder `root`, which is made."""
    layer, sizes = head.layers[number], head.pack_sizes()
    segments = await fetch_segments(transfer, layer)
    root.mkdir(exist_ok=True)
    with moment.opened(root) as folder, ThreadPoolExecutor(THREADS, thread_name_prefix="restore") as pool:
        landing = Landing(folder, overlay=job.root == "overlay")
        try:
            await asyncio.to_thread(_place, landing, layer, segments, sizes)

            def progress(done: int) -> None:
                tell(Progress(stage="download", done=done, total=layer.content_bytes))

            await fetch_contents(transfer, landing.wanted, landing.write, progress, pool)
            await asyncio.to_thread(landing.finish)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            landing.close()
    return _Landed(segments, landing.digests, landing.owners_lost)


def _place(landing: Landing, layer: Layer, segments: list[StoredSegment], sizes: dict[bytes, int]) -> None:
    order = Order()
    for stored in segments:
        segment = stored.read(sizes)
        order.take(segment.groups)
        if order.entries > layer.entries or order.content_bytes > layer.content_bytes:
            raise Damaged("a layer holds more than its head says")
        landing.place(segment.groups, segment.blocks)
    order.finish()
    if (order.entries, order.content_bytes) != (layer.entries, layer.content_bytes):
        raise Damaged("a layer holds less than its head says")


def _make_staging(parent: Path) -> Path:
    for left in parent.glob(f"{STAGING}*"):
        moment.remove_tree(left)
    name = f"{STAGING}{os.getpid()}"
    with moment.opened(parent) as folder:
        try:
            kernel.create_subvolume(folder, name)
        except OSError:  # no btrfs: a folder does
            os.mkdir(name, 0o700, dir_fd=folder)
    return parent / name


def _switch(staging: Path, target: Path) -> None:
    """Durable first, then in place of what was there, which lies at `staging` afterwards."""
    with moment.opened(staging) as folder:
        kernel.sync_filesystem(folder)
    with moment.opened(target.parent) as folder:
        try:
            kernel.exchange(folder, staging.name, target.name)
        except FileNotFoundError:
            kernel.rename_new(folder, staging.name, target.name)


def _words(error: BaseException) -> str:
    if isinstance(error, OSError):
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return "the studio's disk is too small for this checkpoint: raise the quota, or free space on the machine"
        return f"the studio's disk could not be written: {error}"
    return str(error)
