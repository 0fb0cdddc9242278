"""The checkpoint engine as a session sees it: each job a child process, its outcome a value or one of our errors."""

import base64
import logging
from collections.abc import Callable
from typing import Literal, cast

from portico_agent.checkpoint.engine import run_capture, run_restore
from portico_agent.checkpoint.jobs import CaptureJob, Freeze, Progress, Reason, RestoreJob
from portico_agent.desk import Captured
from portico_agent.errors import CheckpointError, RunOver
from portico_agent.overlay.volume import Volume, fingerprint
from portico_agent.settings import AgentSettings
from portico_shared.messages import Plan, RestorePoint

INDEX = "checkpoint.index"
_log = logging.getLogger(__name__)


def _sentence(error: str) -> str:
    """For people: a child that broke down says so in many lines, of which the log keeps all and they get the last."""
    lines = error.strip().splitlines() or ["the checkpoint process gave no reason"]
    if len(lines) > 1:
        _log.error("checkpoint process: %s", error)
    return lines[-1]


class ChildEngine:
    """Captures and restores one volume. `tool_pid()` names the process to hold still where there are no snapshots, or
    0 when nothing runs. `warn` hears, once in each job, what it waits for when the store is away."""

    def __init__(
        self,
        settings: AgentSettings,
        volume: Volume,
        plan: Plan,
        tool_pid: Callable[[], int],
        warn: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._volume = volume
        self._plan = plan
        self._tool_pid = tool_pid
        self._warn = warn
        self._lower = fingerprint()
        kept = "btrfs" if volume.subvolume else "freezer"
        self.label = f"overlay+{kept}" if volume.kind == "overlay" else "folders"

    async def capture(self, reason: str, row: int) -> Captured:
        settings, pid = self._settings, self._tool_pid()
        job = CaptureJob(
            run=settings.run,
            gateway=settings.gateway,
            host=settings.host,
            seed=base64.b64encode(settings.secrets.seed).decode(),
            root=cast(Literal["overlay", "folders"], settings.root),
            lower=self._lower,
            index=str(self._volume.path / INDEX),
            source=str(self._volume.current),
            patience=self._plan.store_patience,
            reason=cast(Reason, reason),
            row=row,
            freeze=Freeze(pid=pid) if pid else None,
        )
        result = await run_capture(job, self._once("It cannot be saved at the moment and is tried again"))
        if result.over:
            raise RunOver(result.error)
        if not result.ok:
            raise CheckpointError(_sentence(result.error))
        return Captured(
            head=result.head,
            changed=result.changed,
            uploaded=result.uploaded_bytes,
            seconds=result.seconds,
            pause_ms=result.pause_ms,
            notes=result.notes,
        )

    async def restore(self, point: RestorePoint, progress: Callable[[int, int], None]) -> str:
        settings = self._settings
        job = RestoreJob(
            run=settings.run,
            gateway=settings.gateway,
            host=settings.host,
            seed=base64.b64encode(settings.secrets.seed).decode(),
            root=cast(Literal["overlay", "folders"], settings.root),
            lower=self._lower,
            index=str(self._volume.path / INDEX),
            target=str(self._volume.current),
            point=point,
            patience=self._plan.store_patience,
            quota=self._plan.quota,
        )
        waits = self._once("Its checkpoint cannot be fetched at the moment and is tried again")

        def tell(update: Progress) -> None:
            if update.stage == "waiting":
                waits(update)
            else:
                progress(update.done, update.total)

        result = await run_restore(job, tell)
        if result.over:
            raise RunOver(result.error)
        if not result.ok:
            raise CheckpointError(
                f"{_sentence(result.error).rstrip('.')}. Start the studio from another checkpoint, or try again."
            )
        return " ".join(result.notes)

    def _once(self, consequence: str) -> Callable[[Progress], None]:
        """Tells people what a job waits for: the first time only, for it is asked again and again."""
        told = False

        def hear(update: Progress) -> None:
            nonlocal told
            if update.stage == "waiting" and not told:
                told = True
                self._warn(f"{consequence}: {update.words}.")

        return hear
