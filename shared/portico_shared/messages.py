"""Every message that passes between gateway and agent, in one place.

Two of the three roads carry messages (the third, the tunnel, carries bytes: see `tunnel.py`).

**Control, MQTT 3.1.1.** Four topics a run, `portico/runs/<run id>/…`; a run's credential opens its own topics alone.

    status    agent -> gateway, retained, QoS 1; the last will puts an `unreachable` status there
    report    agent -> gateway, QoS 1: things that happened (steps, a finished checkpoint, a warning)
    command   gateway -> agent, QoS 1: what to do; each carries an id
    answer    agent -> gateway, QoS 1: the outcome of a command, by its id

**Calls, HTTPS under `/api/agent/v1`.** Requests and answers are the structs named `…Call` / `…Reply` below, as JSON.

    POST identify            IdentifyCall -> IdentifyReply       the run token and a proof of the run's key
    POST token               TokenCall -> TokenReply             a short token, minted from the key alone
    GET  plan                -> Plan                             what this run is to do       (bearer: short token)
    POST grants              GrantsCall -> GrantsReply           URLs to put objects          (bearer)
    POST commit              CommitCall -> CommitReply           objects are durable: make the catalogue row (bearer)
    POST reads               ReadsCall -> GrantsReply            URLs to read objects back    (bearer)
    POST log?stream=S&offset=N   raw bytes -> LogReply            a piece of the run's log     (bearer)

Everything an agent says is untrusted input: the receiver decodes with these types, checks the run against the
credential (never against a field), and bounds sizes. Unknown fields are ignored, so a minor version may add some.
All times are seconds since the epoch (UTC), all sizes bytes.
"""

from typing import Literal

import msgspec

MAX_MESSAGE = 64 * 1024
"""Largest MQTT payload either side accepts, bytes: a status with long texts is about 2 KiB."""

AGENT_API = "/api/agent/v1"
TUNNEL_PATH = "/api/agent/v1/tunnel"
MQTT_PATH = "/api/agent/v1/mqtt"


def topic(run_id: str, leaf: Literal["status", "report", "command", "answer"]) -> str:
    return f"portico/runs/{run_id}/{leaf}"


# --- status -----------------------------------------------------------------------------------------------------

Phase = Literal["preparing", "restoring", "mounting", "launching", "running", "stopping", "left", "unreachable"]
ToolState = Literal["none", "starting", "up", "exited"]


class Status(msgspec.Struct, frozen=True, kw_only=True, tag="status"):
    """Where a run is. Republished whole on each connect and at each change; the newest `seq` of the newest `agent`
    counts (`agent` grows by one with each start of the agent, so a late will of an older one is told apart)."""

    run: str
    agent: int
    seq: int
    phase: Phase
    tool: ToolState = "none"
    detail: str = ""
    done: int = 0
    """Progress of the phase (bytes restored, say)."""
    total: int = 0
    exit_code: int | None = None
    tool_port: int = 0
    last_checkpoint: float = 0.0
    checkpoint_lag: float = 0.0
    """Seconds since the oldest change that no durable checkpoint holds yet; 0 when all is safe."""
    root: str = ""
    """How the root is kept: 'overlay+btrfs', 'overlay+freezer', 'folders'."""


# --- reports ----------------------------------------------------------------------------------------------------


class Step(msgspec.Struct, frozen=True, kw_only=True, tag="step"):
    """One line of progress people see: 'restoring', 'started', '412 MB'."""

    run: str
    at: float
    name: str
    state: Literal["started", "done", "failed"]
    detail: str = ""


class CheckpointDone(msgspec.Struct, frozen=True, kw_only=True, tag="checkpoint"):
    run: str
    at: float
    ok: bool
    reason: str
    head: str = ""
    uploaded: int = 0
    seconds: float = 0.0
    pause_ms: float = 0.0
    detail: str = ""


class Warning_(msgspec.Struct, frozen=True, kw_only=True, tag="warning"):  # noqa: N801 - Warning is a builtin
    """Something a person should know while the run goes on: disk nearly full, storage away."""

    run: str
    at: float
    kind: Literal["disk", "storage", "memory", "tool", "other"]
    detail: str


Report = Step | CheckpointDone | Warning_

# --- commands and answers ---------------------------------------------------------------------------------------


class Stop(msgspec.Struct, frozen=True, kw_only=True, tag="stop"):
    """Final checkpoint, then SIGTERM to the tool, `grace` seconds, SIGKILL, and leave."""

    id: str
    reason: str
    grace: float = 30.0


class MakeCheckpoint(msgspec.Struct, frozen=True, kw_only=True, tag="make-checkpoint"):
    """Checkpoint now; `row` is the catalogue row it goes under (0 = the run's own)."""

    id: str
    row: int = 0
    reason: str = "request"


class Reidentify(msgspec.Struct, frozen=True, kw_only=True, tag="reidentify"):
    """Publish the full status again (a gateway came back)."""

    id: str


Command = Stop | MakeCheckpoint | Reidentify


class Answer(msgspec.Struct, frozen=True, kw_only=True, tag="answer"):
    id: str
    run: str
    ok: bool
    detail: str = ""
    head: str = ""


# --- calls ------------------------------------------------------------------------------------------------------


class IdentifyCall(msgspec.Struct, frozen=True, kw_only=True):
    """The first call. The first public key that comes with the run token owns the run; it may repeat the call."""

    run: str
    run_token: str
    public_key: str
    """Ed25519, 32 bytes, base64url without padding."""
    protocol: tuple[int, int]
    time: int
    """Not a clock anyone trusts: only part of what is signed."""
    nonce: str
    """16 random bytes, base64url; makes the signed text unique."""
    signature: str
    """Ed25519 over `proof_text('identify', run, nonce, time)`."""


class IdentifyReply(msgspec.Struct, frozen=True, kw_only=True):
    run: str
    session_id: str
    token: str
    expires_in: float
    protocol: tuple[int, int]


class ChallengeReply(msgspec.Struct, frozen=True, kw_only=True):
    """GET challenge?run=<id>: a nonce of the gateway, usable once, for 60 s."""

    nonce: str


class TokenCall(msgspec.Struct, frozen=True, kw_only=True):
    """A new short token for a run whose key is known: the gateway's own nonce, signed."""

    run: str
    nonce: str
    signature: str
    """Ed25519 over `proof_text('token', run, nonce, 0)`."""


class TokenReply(msgspec.Struct, frozen=True, kw_only=True):
    token: str
    expires_in: float


def proof_text(use: str, run: str, nonce: str, time: int) -> bytes:
    """What a run's key signs; the use keeps one proof from serving as another."""
    return f"portico-{use}-v1\n{run}\n{nonce}\n{time}".encode()


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is to do, as the gateway decided it."""

    run: str
    session_id: str
    lineage: str
    generation: int
    """Grows with each run of the studio; an older one's commits are refused."""
    studio_name: str
    tool: str
    environment: dict[str, str]
    checkpoint_interval: float
    """Seconds between checkpoints when something changed."""
    quota: int
    """Bytes the studio's own changes may take."""
    grace: float
    """Seconds between SIGTERM and SIGKILL for the tool."""
    store_patience: float = 180.0
    """Seconds one object of a checkpoint is tried for while the store is away; then the checkpoint has failed."""
    restore: "RestorePoint | None" = None
    salvage: bool = False
    """The volume holds what an earlier run left when it died: checkpoint it before the tool starts, restore nothing."""
    forked: bool = False
    """First start of a fork: a new machine-id and SSH host keys are made, the parent's dropped."""
    tool_port: int = 0
    """A port given from outside (compute 'attach'): launch nothing, only tunnel to it. 0 = the agent chooses."""
    command: tuple[str, ...] = ()
    """For tool 'custom': what to start."""


class RestorePoint(msgspec.Struct, frozen=True, kw_only=True):
    """A head to start from, with what else to try if it turns out damaged (newest first)."""

    head: str
    checkpoint_id: int
    name: str
    size: int
    fallbacks: tuple["RestorePoint", ...] = ()


class ObjectName(msgspec.Struct, frozen=True, kw_only=True):
    """An object of the lineage in the store: `<lineage>/packs/<hash>` or `<lineage>/heads/<hash>`."""

    kind: Literal["pack", "head"]
    hash: str
    """blake3 of the content, 64 hex digits."""
    size: int = 0
    crc32c: str = ""
    """Base64 of the big-endian CRC-32C, as S3's x-amz-checksum-crc32c spells it; needed to put, not to read."""


class GrantsCall(msgspec.Struct, frozen=True, kw_only=True):
    objects: tuple[ObjectName, ...]


class ReadsCall(msgspec.Struct, frozen=True, kw_only=True):
    objects: tuple[ObjectName, ...]


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """One permitted request. `url` may be a path: then it is on the gateway itself."""

    hash: str
    method: Literal["PUT", "GET"]
    url: str
    headers: dict[str, str]
    """Must be sent exactly: they are part of what is signed."""
    exists: bool = False
    """For PUT: the object is in the store already, send nothing."""
    expires_in: float = 900.0


class GrantsReply(msgspec.Struct, frozen=True, kw_only=True):
    grants: tuple[Grant, ...]


class CommitCall(msgspec.Struct, frozen=True, kw_only=True):
    """All objects are durable: make the checkpoint. Repeating a commit of the same head is harmless."""

    head: ObjectName
    packs: tuple[ObjectName, ...]
    """Every pack the head refers to, also those of earlier checkpoints: each checkpoint stands alone."""
    reason: Literal["start", "interval", "request", "stop", "signal", "salvage"]
    row: int = 0
    """Catalogue row for a 'request'; 0 = the run's own row."""
    content_bytes: int = 0
    uploaded_bytes: int = 0
    entries: int = 0
    lower: str = ""
    """Fingerprint of the root below."""
    taken_at: float = 0.0


class CommitReply(msgspec.Struct, frozen=True, kw_only=True):
    checkpoint_id: int
    name: str


class LogReply(msgspec.Struct, frozen=True, kw_only=True):
    next_offset: int


class ErrorReply(msgspec.Struct, frozen=True, kw_only=True):
    message: str
