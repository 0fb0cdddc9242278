"""Studios, runs and checkpoints as frozen values: what API, UI and CLI see."""

import enum
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Protocol

from portico_gateway.auth.values import Actor, User


class Status(enum.StrEnum):
    BUILDING = "building"
    BUILD_FAILED = "build-failed"  # the API spells it buildFailed
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    ERRORED = "errored"


class StopReason(enum.StrEnum):
    LIFESPAN_EXPIRED = "LIFESPAN_EXPIRED"
    IDLE = "IDLE"
    SPOT_RECLAMATION = "SPOT_RECLAMATION"
    CREDITS_RUN_OUT = "CREDITS_RUN_OUT"
    NO_STATS_AVAIL = "NO_STATS_AVAIL"
    USER = "USER"


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    cpu: int = 2
    gpu: int = 0
    memory: int = 8192  # MiB
    lifespan_hours: int = 8  # 0 = until stopped
    conda_environment: str | None = None
    environment: tuple[tuple[str, str], ...] = ()
    ssh_enabled: bool = False


@dataclass(frozen=True, slots=True)
class Template:
    repository: str  # 'portico/jupyterlab:4.6'
    tool: str  # 'jupyter'
    name: str  # 'JupyterLab'
    icon: str
    status: str  # 'recommended', 'deprecated', 'experimental'
    description: str = ""


@dataclass(frozen=True, slots=True)
class ComputeEnv:
    id: str
    name: str
    platform: str  # 'local'
    region: str
    status: str  # 'AVAILABLE'
    isolation: str  # 'full', 'user', 'none'
    isolation_note: str  # in words: what is and is not separated, for README, UI and doctor
    shared: bool  # whether anyone but the account that started Portico may open studios
    cpus: int = 0
    memory: int = 0  # MiB
    gpus: int = 0


@dataclass(frozen=True, slots=True)
class Connection:
    user: User
    last_active: float


@dataclass(frozen=True, slots=True)
class ProgressStep:
    at: float
    name: str
    state: str  # 'started', 'done', 'failed'
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ParentCheckpoint:
    checkpoint_id: int
    checkpoint_name: str
    session_id: str
    studio_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StudioView:
    session_id: str
    workspace_id: int
    name: str
    description: str
    creator: User
    url: str
    compute_env: ComputeEnv
    template: Template
    configuration: Configuration
    created: float
    updated: float
    last_started: float | None
    status: Status
    status_message: str
    status_at: float
    stop_reason: StopReason | None
    is_private: bool
    allowed_user_ids: tuple[int, ...] = ()
    labels: tuple[tuple[int, str, str | None], ...] = ()
    connections: tuple[Connection, ...] = ()
    progress: tuple[ProgressStep, ...] = ()
    parent: ParentCheckpoint | None = None
    lifespan_ends: float | None = None
    effective_lifespan_hours: int = 0
    last_checkpoint: float | None = None
    run_id: str | None = None
    actions: frozenset[str] = frozenset()
    """What this actor may do now, of 'connect', 'start', 'stop', 'fork', 'edit', 'delete', 'checkpoint', 'extend' and
    'logs'."""
    refusals: dict[str, str] = field(default_factory=dict)
    """Why each of the others is refused, in a sentence."""


@dataclass(frozen=True, slots=True)
class StudioPage:
    studios: tuple[StudioView, ...]
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NewStudio:
    name: str | None
    template: str
    compute_env_id: str
    configuration: Configuration
    description: str = ""
    is_private: bool | None = None  # None = the workspace's default
    allowed_user_ids: tuple[int, ...] = ()
    label_ids: tuple[int, ...] = ()
    initial_checkpoint_id: int | None = None  # fork


@dataclass(frozen=True, slots=True, kw_only=True)
class StudioChange:
    """None = leave as it is."""

    name: str | None = None
    description: str | None = None
    configuration: Configuration | None = None
    label_ids: tuple[int, ...] | None = None
    compute_env_id: str | None = None
    is_private: bool | None = None
    allowed_user_ids: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StartOverride:
    """For this run only."""

    configuration: Configuration | None = None
    checkpoint_id: int | None = None  # an older one to start from


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkStudio:
    name: str | None = None
    description: str | None = None
    configuration: Configuration | None = None
    is_private: bool | None = None
    label_ids: tuple[int, ...] = ()
    start: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointView:
    id: int
    session_id: str
    name: str
    status: str  # 'pending', 'saved', 'sealed', 'failed'
    reason: str
    author: User | None
    created: float
    saved: float | None
    content_bytes: int
    uploaded_bytes: int
    entries: int
    path: str
    """`<lineage>/heads/<hash>`, where it lies in the store."""
    restorable: bool = True


@dataclass(frozen=True, slots=True)
class CheckpointPage:
    checkpoints: tuple[CheckpointView, ...]
    total: int


@dataclass(frozen=True, slots=True)
class LogChunk:
    text: str
    next_offset: int
    ended: bool


@dataclass(frozen=True, slots=True)
class StudioEvent:
    """Something about a studio changed; what exactly is read with `describe`."""

    workspace_id: int
    session_id: str
    kind: str  # 'status', 'progress', 'presence', 'checkpoint', 'added', 'deleted', 'log'


class Studios(Protocol):
    """Everything that can be done with studios, with the rights checked inside: API, UI and CLI go through here alone.

    Every method raises `errors.NotFound` for what the actor may not see, `errors.Forbidden` for what they may see but
    not do, `errors.Conflict` when the studio's status does not allow it (the message says which would), and
    `errors.BadRequest` for values out of range. Nothing is created half: a method that raised changed nothing.
    """

    def templates(self) -> tuple[Template, ...]: ...

    def compute_envs(self) -> tuple[ComputeEnv, ...]: ...

    async def list_studios(
        self, actor: Actor, workspace_id: int, *, search: str = "", offset: int = 0, limit: int = 100
    ) -> StudioPage:
        """Newest activity first, running ones before others. `search`: free text in the name; `status:running`,
        `author:ana`, `env:local` narrow it."""
        ...

    async def describe(self, actor: Actor, session_id: str, workspace_id: int | None = None) -> StudioView: ...

    async def validate_name(self, actor: Actor, workspace_id: int, name: str) -> None: ...

    async def add(self, actor: Actor, workspace_id: int, new: NewStudio, *, start: bool) -> StudioView: ...

    async def update(self, actor: Actor, session_id: str, change: StudioChange) -> StudioView: ...

    async def delete(self, actor: Actor, session_id: str) -> None: ...

    async def start(self, actor: Actor, session_id: str, override: StartOverride | None = None) -> StudioView: ...

    async def stop(self, actor: Actor, session_id: str) -> StudioView: ...

    async def extend(self, actor: Actor, session_id: str) -> StudioView: ...

    async def fork(self, actor: Actor, session_id: str, checkpoint_id: int | None, new: ForkStudio) -> StudioView:
        """Without a checkpoint id: of a running studio a checkpoint is made now, else the newest is taken."""
        ...

    async def checkpoint_now(self, actor: Actor, session_id: str, name: str | None = None) -> CheckpointView:
        """Returns at once with a 'pending' row; it becomes 'sealed' when durable, or 'failed'."""
        ...

    async def list_checkpoints(
        self, actor: Actor, session_id: str, *, search: str = "", offset: int = 0, limit: int = 100
    ) -> CheckpointPage: ...

    async def checkpoint(self, actor: Actor, session_id: str, checkpoint_id: int) -> CheckpointView: ...

    async def rename_checkpoint(
        self, actor: Actor, session_id: str, checkpoint_id: int, name: str
    ) -> CheckpointView: ...

    async def logs(self, actor: Actor, session_id: str, *, stream: str = "all", offset: int = 0) -> LogChunk:
        """The latest run's log from `offset` on, at most 256 KiB a call. Streams: 'all', 'agent', 'tool', 'build'."""
        ...

    def watch(self, actor: Actor, workspace_id: int) -> AsyncGenerator[StudioEvent, None]:
        """Changes in a workspace as they happen, until the iterator is closed."""
        ...
