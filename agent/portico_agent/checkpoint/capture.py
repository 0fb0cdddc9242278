"""One checkpoint, from the moment to the head. The commit is the caller's.

flush      what is dirty is written out while everything runs
moment     a snapshot; or one pass unheld, then a second one, short, while the studio stands still
scan       the tree against the index: what changed is read, packed, uploaded
layer      segments of the manifest, packed, uploaded
head       the small object that names it all; it is handed out when everything it names is durable
"""

import errno
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from portico_agent.checkpoint import exclusions, moment
from portico_agent.checkpoint.blocks import BlockTable
from portico_agent.checkpoint.freezer import Guardian
from portico_agent.checkpoint.index import IndexReader, IndexWriter, Trailer, open_index
from portico_agent.checkpoint.jobs import CaptureJob, Progress
from portico_agent.checkpoint.packing import Packer, Receiver, named
from portico_agent.checkpoint.scan import YOUNG, Scan
from portico_agent.checkpoint.segments import LayerWriter
from portico_agent.checkpoint.walk import Walk
from portico_shared.checkpoint.head import Head, encode_head
from portico_shared.messages import ObjectName

NOTES = 20
THREADS = min(4, (os.cpu_count() or 1) + 1)


class Abandoned(Exception):
    """The agent is gone, or does not want the result any more."""


class Outbox(Receiver, Protocol):
    """Where a capture's packs go; called from the capture's threads."""

    def finish(self) -> None:
        """Everything sent is durable. Raises what made one fail."""
        ...


@dataclass(frozen=True, slots=True)
class Captured:
    """A head whose packs are durable."""

    content: bytes
    name: ObjectName
    packs: tuple[ObjectName, ...]
    head: Head
    pause_ms: float
    taken_at: float
    committed: dict[int, str]
    """Heads that the rows of this run have already."""
    notes: tuple[str, ...]
    writer: IndexWriter
    trailer: Trailer

    def keep(self, rows: dict[int, str]) -> None:
        """The next capture builds on this one, of which these rows have this head now."""
        self.trailer.committed = rows
        self.writer.finish(self.trailer)

    def drop(self) -> None:
        """It is not committed: the next capture builds on the one before. After `keep` this does nothing."""
        self.writer.discard()


class Capture:
    """Blocking: call `run` once, in a thread. After `stop` is set it raises Abandoned soon."""

    def __init__(
        self,
        job: CaptureJob,
        outbox: Outbox,
        tell: Callable[[Progress], None],
        *,
        guardian: Guardian | None = None,
        use_index: bool = True,
    ) -> None:
        self._job = job
        self._outbox = outbox
        self._tell = tell
        self._guardian = guardian
        self._before = open_index(Path(job.index)) if use_index else None
        self._notes: list[str] = []
        self.stop = threading.Event()

    def run(self) -> Captured:
        """Raises OSError, Abandoned, FreezeFailed and what the outbox raises; nothing is left behind then."""
        source, last = Path(self._job.source), self._last
        self._tell(Progress(stage="flush"))
        if moment.can_snapshot(source):  # without one, files are read as programs see them, written out or not
            moment.flush(source, 0.0 if last is None else last.taken_at)
        table = BlockTable() if last is None else _known(last)
        with ThreadPoolExecutor(THREADS, thread_name_prefix="checkpoint") as pool:
            packer = Packer(table, pool, self._outbox)
            writer = IndexWriter(Path(self._job.index))
            try:
                passes = _Passes(self, table, packer, pool)
                taken, unchanged = passes.see(source, self._before, writer)
                return self._conclude(table, packer, writer, taken, unchanged)
            except BaseException:
                packer.cancel()
                writer.discard()
                raise

    # --- from records to the head -------------------------------------------------------------------------------------

    def _conclude(
        self, table: BlockTable, packer: Packer, writer: IndexWriter, taken: "_Moment", unchanged: bool
    ) -> Captured:
        trailer = self._unchanged(taken) if unchanged else None
        if trailer is None:
            trailer = self._changed(table, packer, writer, taken)
        self._tell(Progress(stage="upload"))
        self._outbox.finish()
        head = msgspec.json.decode(trailer.head, type=Head)
        return Captured(
            content=trailer.head,
            name=named("head", trailer.head),
            packs=tuple(ObjectName(kind="pack", hash=name, size=size) for name, size in head.packs),
            head=head,
            pause_ms=taken.pause * 1000,
            taken_at=taken.at,
            committed=dict(trailer.committed) if trailer.run == self._job.run else {},
            notes=tuple(self._notes),
            writer=writer,
            trailer=msgspec.structs.replace(trailer, run=self._job.run),
        )

    def _unchanged(self, taken: "_Moment") -> Trailer | None:
        """The trailer before, when it says everything: no folder differs, and what lies below is the same."""
        if (last := self._last) is None:
            return None
        head = msgspec.json.decode(last.head, type=Head)
        if head.lower != self._job.lower or head.root != self._job.root:
            return None
        return msgspec.structs.replace(last, taken_at=taken.at)

    def _changed(self, table: BlockTable, packer: Packer, writer: IndexWriter, taken: "_Moment") -> Trailer:
        packer.flush()
        layer = LayerWriter(table, packer)
        layer.write(writer.records())
        packer.flush()
        written = layer.layer()
        packs = tuple((pack.name.hex(), pack.size) for pack in table.used_packs())
        head = Head(root=self._job.root, lower=self._job.lower, layers=(written,), packs=packs)
        packs_kept, blocks_kept, thinned = table.rows()
        last = self._last
        return Trailer(
            packs=packs_kept,
            blocks=blocks_kept,
            aliases={number: table.aliases[number] for number in layer.used if number in table.aliases},
            next_id=table.next_id,
            head=encode_head(head),
            committed={} if last is None or last.run != self._job.run else last.committed,
            taken_at=taken.at,
            run=self._job.run,
            thinned=thinned,
        )

    # --- what the passes need -----------------------------------------------------------------------------------------

    @property
    def _last(self) -> Trailer | None:
        return None if self._before is None else self._before.trailer

    @property
    def job(self) -> CaptureJob:
        return self._job

    @property
    def guardian(self) -> Guardian | None:
        return self._guardian

    def begin_pass(self) -> None:
        self._notes.clear()

    def check(self, read: int) -> None:
        """Called again and again while scanning. Raises Abandoned."""
        if self.stop.is_set():
            raise Abandoned("the checkpoint was given up")
        self._tell(Progress(stage="scan", done=read))

    def note(self, why: str, path: bytes) -> None:
        self.remark(f"left out ({why}): {path[:200].decode(errors='backslashreplace')}")

    def remark(self, words: str) -> None:
        """What people should know although the checkpoint is made."""
        if len(self._notes) < NOTES:
            self._notes.append(words)


@dataclass(frozen=True, slots=True)
class _Moment:
    at: float
    pause: float
    """Seconds, both."""


@dataclass(frozen=True, slots=True)
class _Passes:
    """The ways to see one moment of the tree. Each gives it, and whether no folder differs from the index."""

    capture: Capture
    table: BlockTable
    packer: Packer
    pool: ThreadPoolExecutor

    def see(self, source: Path, before: IndexReader | None, writer: IndexWriter) -> tuple[_Moment, bool]:
        """By snapshot if that is possible. A disk too full for one is a reason to save what is on it, not to fail."""
        if not moment.can_snapshot(source):
            return self._held_still(source, before, writer)
        at, snapshot = time.time(), moment.Snapshot(source)
        try:
            snapshot.take()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            return self._held_still(source, before, writer, crowded=True)
        try:
            unchanged = self._scan(snapshot.path, at, before, writer)
        finally:
            snapshot.drop()
        return _Moment(at, snapshot.seconds), unchanged

    def _held_still(
        self, source: Path, before: IndexReader | None, writer: IndexWriter, *, crowded: bool = False
    ) -> tuple[_Moment, bool]:
        """What changed is read while everything runs; then, held still, only what changed since."""
        guardian = self.capture.guardian
        if guardian is None:
            at = time.time()
            unchanged = self._scan(source, at, before, writer)
            if crowded:
                self.capture.remark(
                    "the disk is too full for a snapshot: files that changed meanwhile may not fit together"
                )
            return _Moment(at, 0.0), unchanged
        first = IndexWriter(Path(self.capture.job.index), ".first")
        try:
            as_before = self._scan(source, time.time(), before, first)
            with guardian.hold():
                at, start = time.time(), time.monotonic()
                still_so = self._scan(source, at, IndexReader(first.records()), writer)
                pause = time.monotonic() - start
        finally:
            first.discard()
        return _Moment(at, pause), as_before and still_so

    def _scan(self, source: Path, at: float, before: IndexReader | None, writer: IndexWriter) -> bool:
        """True when every folder is as `before` has it. Every block is read when this returns."""
        capture = self.capture
        overlay = capture.job.root == "overlay"
        capture.begin_pass()
        scan = Scan(
            self.table,
            self.packer,
            self.pool,
            overlay=overlay,
            young=int(at * 1e9) - YOUNG,
            check=capture.check,
            note=capture.note,
        )
        rules = exclusions.Exclusions(exclusions.rules(capture.job.root))
        try:
            with moment.opened(source / "upper" if overlay else source) as folder:
                scan.run(Walk(folder, rules, capture.note), before, writer)
            self.packer.settle()
        finally:
            scan.close()
        return before is not None and not scan.fresh


def _known(last: Trailer) -> BlockTable:
    return BlockTable.from_rows(last.packs, last.blocks, dict(last.aliases), last.next_id)
