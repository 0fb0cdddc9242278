"""The agent's side of a job: start the child, hand it the job, hear how it goes.

result = await run_capture(CaptureJob(…), on_progress)
"""

import asyncio
import contextlib
import logging
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import msgspec

from portico_agent import launch
from portico_agent.checkpoint.jobs import (
    MAX_LINE,
    AnyJob,
    CaptureJob,
    CaptureResult,
    Line,
    Progress,
    RestoreJob,
    RestoreResult,
)

OnProgress = Callable[[Progress], None]
LAST_WORDS = 2000
"""Bytes of the child's stderr that go into the error when it died without a result."""
_log = logging.getLogger(__name__)


def command() -> list[str]:
    """The child's argument list, the same in a studio and in a checkout."""
    return [sys.executable, "-I", str(Path(launch.__file__)), "portico_agent.checkpoint"]


async def run_capture(
    job: CaptureJob, on_progress: OnProgress | None = None, *, argv: Sequence[str] | None = None
) -> CaptureResult:
    """Make a checkpoint. Never raises for what can go wrong with it: `ok` is False and `error` a sentence.

    Cancelling ends the child; what it has uploaded is found again by the next one.
    """
    result = await _run(job, on_progress, argv or command())
    return result if isinstance(result, CaptureResult) else CaptureResult(ok=False, error=str(result))


async def run_restore(
    job: RestoreJob, on_progress: OnProgress | None = None, *, argv: Sequence[str] | None = None
) -> RestoreResult:
    """Bring a checkpoint back to `job.target`, wholly or not at all; errors as in `run_capture`."""
    result = await _run(job, on_progress, argv or command())
    return result if isinstance(result, RestoreResult) else RestoreResult(ok=False, error=str(result))


async def _run(job: AnyJob, on_progress: OnProgress | None, argv: Sequence[str]) -> CaptureResult | RestoreResult | str:
    try:
        async with _child(argv) as child:
            assert child.stdin is not None and child.stdout is not None and child.stderr is not None
            async with asyncio.TaskGroup() as group:
                words = group.create_task(_last_words(child.stderr))
                child.stdin.write(msgspec.json.encode(job) + b"\n")
                result = await _listen(child.stdout, on_progress)
                code = await child.wait()
            if result is not None:
                return result
            said = words.result().decode(errors="replace").strip()
            return f"the checkpoint process ended ({code}) without a result: {said or 'it said nothing'}"
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        return f"the checkpoint process could not be used: {error}"


async def _listen(output: asyncio.StreamReader, on_progress: OnProgress | None) -> CaptureResult | RestoreResult | None:
    while line := await output.readline():
        message: Line = msgspec.json.decode(line, type=Line)
        if not isinstance(message, Progress):
            return message
        if on_progress is not None:
            on_progress(message)
    return None


async def _last_words(stderr: asyncio.StreamReader) -> bytes:
    """All of it is read, for a full pipe would stop the child; the end of it is kept."""
    kept = b""
    while data := await stderr.read(65536):
        _log.debug("checkpoint process: %s", data.decode(errors="replace").rstrip())
        kept = (kept + data)[-LAST_WORDS:]
    return kept


@contextlib.asynccontextmanager
async def _child(argv: Sequence[str]) -> AsyncIterator[asyncio.subprocess.Process]:
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe, stderr=pipe, limit=MAX_LINE)
    try:
        yield child
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await asyncio.shield(child.wait())
