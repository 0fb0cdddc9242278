"""A capture job from end to end: capture, put the head, commit, keep the index. Runs in the child's event loop."""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from portico_agent.checkpoint.capture import Abandoned, Capture, Captured
from portico_agent.checkpoint.freezer import Guardian
from portico_agent.checkpoint.jobs import CaptureJob, CaptureResult, Progress
from portico_agent.checkpoint.transfer import Gateway, Transfer, Uploads
from portico_agent.errors import AgentError, GatewayError, Refused, RunOver
from portico_shared.checkpoint.faults import FormatError
from portico_shared.messages import CommitCall, CommitReply


class CommittingGateway(Gateway, Protocol):
    """What a capture needs of `portico_agent.gateway.GatewayClient`."""

    async def commit(self, call: CommitCall) -> CommitReply: ...


async def save(
    job: CaptureJob,
    gateway: CommittingGateway,
    tell: Callable[[Progress], None],
    guardian: Guardian | None = None,
) -> CaptureResult:
    """Never raises for what can go wrong with a checkpoint; cancelling gives it up."""
    start = time.monotonic()
    try:
        return await _save(job, gateway, tell, guardian, start)
    except (AgentError, FormatError, OSError, Abandoned) as error:
        return CaptureResult(
            ok=False, seconds=time.monotonic() - start, error=_words(error), over=is_over(error, job.row)
        )


async def _save(
    job: CaptureJob,
    gateway: CommittingGateway,
    tell: Callable[[Progress], None],
    guardian: Guardian | None,
    start: float,
) -> CaptureResult:
    transfer = Transfer(gateway, patience=job.patience, waiting=waiting(tell))
    captured = await _capture(job, transfer, tell, guardian, use_index=True)
    try:
        try:
            reply = await _commit(job, gateway, transfer, captured, tell)
        except Refused as refused:
            if refused.status != 404:
                raise
            # The store lacks a pack that the index counts on (collected, or lost): everything is sent anew, once.
            captured.drop()
            captured = await _capture(job, transfer, tell, guardian, use_index=False)
            reply = await _commit(job, gateway, transfer, captured, tell)
        rows = captured.committed | {job.row: captured.name.hash}
        await asyncio.to_thread(captured.keep, rows)
    finally:
        captured.drop()
    return CaptureResult(
        ok=True,
        changed=reply is not None,
        head=captured.name.hash,
        checkpoint_id=0 if reply is None else reply.checkpoint_id,
        name="" if reply is None else reply.name,
        entries=captured.head.entries,
        content_bytes=captured.head.content_bytes,
        uploaded_bytes=transfer.uploaded,
        seconds=time.monotonic() - start,
        pause_ms=captured.pause_ms,
        taken_at=captured.taken_at,
        notes=captured.notes,
    )


def waiting(tell: Callable[[Progress], None]) -> Callable[[str], None]:
    """Says what a job waits for."""
    return lambda words: tell(Progress(stage="waiting", words=words))


async def _capture(
    job: CaptureJob,
    transfer: Transfer,
    tell: Callable[[Progress], None],
    guardian: Guardian | None,
    *,
    use_index: bool,
) -> Captured:
    uploads = Uploads(transfer, asyncio.get_running_loop())
    capture = Capture(job, uploads, tell, guardian=guardian, use_index=use_index)
    running = asyncio.ensure_future(asyncio.to_thread(capture.run))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        capture.stop.set()
        uploads.cancel()
        await asyncio.wait([running])
        raise
    finally:
        uploads.cancel()


async def _commit(
    job: CaptureJob,
    gateway: CommittingGateway,
    transfer: Transfer,
    captured: Captured,
    tell: Callable[[Progress], None],
) -> CommitReply | None:
    """None when the row has exactly this head already."""
    if captured.committed.get(job.row) == captured.name.hash:
        return None
    tell(Progress(stage="commit"))
    await transfer.put(captured.name, captured.content)
    return await gateway.commit(
        CommitCall(
            head=captured.name,
            packs=captured.packs,
            reason=job.reason,
            row=job.row,
            content_bytes=captured.head.content_bytes,
            uploaded_bytes=transfer.uploaded,
            entries=captured.head.entries,
            lower=job.lower,
            taken_at=captured.taken_at,
        )
    )


def is_over(error: BaseException, row: int = 0) -> bool:
    """Whether the gateway wants nothing more of this run. A 409 about a row of its own says nothing of the run."""
    if isinstance(error, Refused):
        return error.status == 410 or (error.status == 409 and row == 0)
    return isinstance(error, RunOver)


def _words(error: BaseException) -> str:
    if isinstance(error, OSError) and not isinstance(error, GatewayError):
        return f"the studio's files could not be read: {error}"
    return str(error) or type(error).__name__
