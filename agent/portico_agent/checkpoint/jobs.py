"""What passes between the agent and the child process that does a job, as JSON lines.

    agent -> child    one line on its stdin: CaptureJob or RestoreJob; the pipe stays open, its end means "give up"
    child -> agent    on its stdout: Progress lines, then one CaptureResult or RestoreResult

A job carries the run's key, so it goes through the pipe and nowhere else (never argv, environment or a file).
"""

from typing import Literal

import msgspec

from portico_shared.messages import RestorePoint

Reason = Literal["start", "interval", "request", "stop", "signal", "salvage"]
MAX_LINE = 16 * 1024 * 1024
"""Bytes of one line; a restore point with all its fallbacks is a few KiB."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    run: str
    gateway: str
    """'unix:/path' or 'http(s)://host:port'."""
    host: str
    """Host header of every call to the gateway."""
    seed: str
    """The run's ed25519 seed, base64: the child mints short tokens of its own."""
    root: Literal["overlay", "folders"]
    lower: str = ""
    """Fingerprint of the image root this studio stands on now."""
    index: str
    """File the child keeps between jobs. It may be lost or stale: only time is lost with it."""
    patience: float = 180.0
    """Seconds one object is tried for while the store is away."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(run={self.run!r})"


class Freeze(msgspec.Struct, frozen=True, kw_only=True):
    """How to hold the studio still where there are no snapshots: a cgroup of its own, or a process and all below it."""

    cgroup: str = ""
    pid: int = 0


class CaptureJob(Job, frozen=True, kw_only=True, tag="capture"):
    source: str
    """`<volume>/current`: the folder that holds `upper`, or `home` and `workspace`."""
    reason: Reason
    row: int = 0
    """Catalogue row; 0 = the run's own."""
    freeze: Freeze | None = None
    """Used where no snapshot can be made (no btrfs, or a full disk). None = nothing runs there (final, salvage)."""


class RestoreJob(Job, frozen=True, kw_only=True, tag="restore"):
    target: str
    """`<volume>/current`: replaced as a whole once everything is there and verified."""
    point: RestorePoint
    quota: int = 0
    """Bytes the studio's own changes may take; up to a quarter more is restored, as the volume holds. 0 = any."""


class Progress(msgspec.Struct, frozen=True, kw_only=True, tag="progress"):
    stage: Literal["flush", "scan", "upload", "commit", "download", "finish", "waiting"]
    done: int = 0
    total: int = 0
    """Bytes; 0 = not known yet."""
    words: str = ""
    """Stage 'waiting': what for. The job goes on by itself when it is there again."""


class CaptureResult(msgspec.Struct, frozen=True, kw_only=True, tag="captured"):
    ok: bool
    changed: bool = False
    """False: the newest checkpoint of this row holds exactly this already, nothing was sent."""
    head: str = ""
    checkpoint_id: int = 0
    name: str = ""
    entries: int = 0
    content_bytes: int = 0
    uploaded_bytes: int = 0
    seconds: float = 0.0
    pause_ms: float = 0.0
    """How long the studio's programs were held up at most: the snapshot's own time, or the freeze."""
    taken_at: float = 0.0
    notes: tuple[str, ...] = ()
    """What a person should know although it went well: things left out."""
    error: str = ""
    over: bool = False
    """The run is over for the gateway: no use in trying again."""


class RestoreResult(msgspec.Struct, frozen=True, kw_only=True, tag="restored"):
    ok: bool
    head: str = ""
    checkpoint_id: int = 0
    name: str = ""
    entries: int = 0
    content_bytes: int = 0
    seconds: float = 0.0
    lowers: tuple[str, ...] = ()
    """Folders of further layers, topmost first: they belong between the upper and the image root."""
    notes: tuple[str, ...] = ()
    """Which newer checkpoints were damaged and in which object; a different image root below."""
    error: str = ""
    over: bool = False


Line = Progress | CaptureResult | RestoreResult
AnyJob = CaptureJob | RestoreJob
