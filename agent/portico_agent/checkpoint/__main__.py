"""The child process of one job; `jobs.py` says what goes in and out."""

import asyncio
import base64
import contextlib
import fcntl
import gc
import logging
import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from portico_agent.checkpoint import kernel, moment
from portico_agent.checkpoint.freezer import Guardian
from portico_agent.checkpoint.jobs import MAX_LINE, AnyJob, CaptureJob, CaptureResult, Line, Progress, RestoreResult
from portico_agent.checkpoint.loading import load
from portico_agent.checkpoint.saving import save, waiting
from portico_agent.credential import Credential
from portico_agent.gateway import GatewayClient
from portico_agent.overlay.syscalls import hide_process
from portico_agent.settings import Secrets

URGENT = ("stop", "signal", "request", "salvage")
"""Somebody waits for these; the others give way to everything."""
PROGRESS_EVERY = 0.5
DESCRIPTORS = 65_536


def main() -> None:
    hide_process()  # a job holds the run's key
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    job = _read_job()
    _raise_descriptors()
    kernel.be_sparing()
    gc.disable()  # a process of one job: what it makes it keeps to its end
    guardian = None
    if isinstance(job, CaptureJob):
        if job.reason not in URGENT:
            kernel.be_modest()
        if job.freeze is not None:
            guardian = Guardian(job.freeze)
            guardian.start()
    try:
        with _alone(Path(job.index)):
            result = asyncio.run(_run(job, guardian))
    finally:
        if guardian is not None:
            guardian.close()
    if result is not None:
        _say(result)


async def _run(job: AnyJob, guardian: Guardian | None) -> CaptureResult | RestoreResult | None:
    """The result, or None when the agent has gone away meanwhile."""
    tell = _Teller()
    credential = Credential(job.run, Secrets(run_token="", seed=base64.b64decode(job.seed, validate=True)))
    client = GatewayClient(job.gateway, job.host, credential, patience=job.patience, waiting=waiting(tell))
    async with client as gateway:
        work: asyncio.Future[CaptureResult | RestoreResult] = asyncio.ensure_future(
            save(job, gateway, tell, guardian) if isinstance(job, CaptureJob) else load(job, gateway, tell)
        )
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), lambda: _agent_spoke(work))
        try:
            return await work
        except asyncio.CancelledError:
            return None
        finally:
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())


def _agent_spoke(work: "asyncio.Future[CaptureResult | RestoreResult]") -> None:
    """The pipe's end means that nobody waits for us any more; nothing else is ever sent."""
    if not os.read(sys.stdin.fileno(), 4096):
        work.cancel()
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())


class _Teller:
    """Progress, not more often than a person can read."""

    def __init__(self) -> None:
        self._stage = ""
        self._at = 0.0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        finished = progress.done == progress.total > 0
        if progress.stage != self._stage or finished or now - self._at >= PROGRESS_EVERY:
            self._stage, self._at = progress.stage, now
            _say(progress)


def _say(line: Line) -> None:
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
        sys.stdout.buffer.flush()


def _read_job() -> AnyJob:
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(sys.stdin.fileno(), 65536)
        line += piece
        if not piece or len(line) > MAX_LINE:
            raise SystemExit("a job is one line on the standard input")
    try:
        job: AnyJob = msgspec.json.decode(line, type=AnyJob)
        return job
    except msgspec.MsgspecError as error:
        raise SystemExit(f"this is no job: {error}") from None


@contextlib.contextmanager
def _alone(index: Path) -> Iterator[None]:
    """One job of a volume at a time: an older one, of an agent that was killed, ends first."""
    with moment.opened(index.parent) as folder:  # a lock file of its own could not be made on a full disk
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield


def _raise_descriptors() -> None:
    """A walk holds a folder open for each level it is deep."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


if __name__ == "__main__":
    main()
