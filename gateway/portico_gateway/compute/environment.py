"""The promise of a place where runs are put: this machine, and later containers and clusters.

A *run* is one start-to-stop of a studio. A compute environment knows how to boot `portico-init` for a run, to say
whether it still lives, to end it, and where the studio's own changes (its *volume*) lie between runs. It knows nothing
of sign-in, checkpoints or routes, and it never talks to the agent.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from portico_gateway.studios.values import ComputeEnv

Placement = dict[str, Any]
"""Where a run was put, as JSON that outlives the gateway; opaque to everyone but the environment that made it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """What a run needs to boot. Names and sizes come from control, which has checked them."""

    run_id: str
    session_id: str
    tool: str  # 'jupyter'; '' when nothing is launched
    run_token: str = field(repr=False)  # secret: handed to portico-init, which proves the run with it
    gateway: str  # 'unix:/run/portico/gateway/edge.sock' or 'http(s)://host:port'
    host_header: str  # the management host, for calls to the gateway
    cpu: int = 2  # cores
    memory_mib: int = 8192
    environment: Mapping[str, str] = field(default_factory=dict)  # further variables for portico-init
    quota_bytes: int = 5 * 1024**3  # what the studio's own changes may take
    volume: Path | None = None  # the volume's image file or folder; None = the environment's own place for it
    tools_dir: Path | None = None
    """`…/<name>/<key>`, shown read-only as /opt/portico/tools/<name>; None = the tool needs no folder."""
    tool_port: int = 0  # the tool's port; 0 = the agent chooses


@dataclass(frozen=True, slots=True)
class RunState:
    """Whether a run's PID 1 (or its like) lives. `reason` says in words why not; '' while alive."""

    alive: bool
    reason: str = ""


class ComputeEnvironment(Protocol):
    """Places runs, keeps volumes, leaves nothing behind.

    Promises, the same for every implementation and checked by one suite:

    - A started run outlives the process that started it. Another instance of the environment on the same data can
      `inspect` and `kill` it with nothing but the placement.
    - `start` is all or nothing: when it raises (or is cancelled) no process, mount, interface or volume made by it is
      left; a volume that was there before is kept untouched. A second `start` with a run id that is alive raises
      `errors.Conflict`; a second live run on one studio's volume too.
    - `start` raises `errors.Unavailable` when the machine cannot place the run now (too little disk, no rights,
      missing programs): the sentence says what to do. It returns when portico-init has been handed control, not when
      it is ready.
    - `inspect` never raises for an unknown, foreign or malformed placement: such a run is not alive.
    - `kill` ends a run at once, without a final checkpoint, removes all it had but the volume, and returns when that
      is so. It may be called any number of times, and is called once for runs that ended by themselves, too: that
      collects what they had outside themselves (address translation, control groups, a network helper).
    - `release` drops a studio's volume for good; it may be repeated. Raises `errors.Conflict` while a run uses it.
    - `sweep` ends every run of this environment that is not in `live` and removes what dead runs left; it may run at
      any time, beside `start` too.
    """

    def describe(self) -> ComputeEnv:
        """What this environment can do, with its isolation in plain words."""
        ...

    async def start(self, spec: RunSpec) -> Placement:
        """Boot portico-init for this run; the answer must be stored before anything else is awaited."""
        ...

    async def inspect(self, run_id: str, placement: Placement) -> RunState:
        """Whether the run lives, from the operating system's own word."""
        ...

    async def kill(self, run_id: str, placement: Placement) -> None:
        """End the run at once; its volume stays for salvage."""
        ...

    async def release(self, session_id: str) -> None:
        """Drop the studio's volume."""
        ...

    def has_volume(self, session_id: str) -> bool:
        """Whether changes of an earlier run still lie here (kept after an unclean end)."""
        ...

    async def sweep(self, live: set[str]) -> list[str]:
        """Remove what does not belong to the runs in `live`; returns what was removed, one sentence each."""
        ...
