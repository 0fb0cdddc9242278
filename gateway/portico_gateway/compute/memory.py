"""A compute environment that only remembers: for tests of what stands above it.

It starts nothing. `fail_next_start` makes the next start raise, `die` ends a run as a crash would, `leave` as a clean
exit of portico-init does.
"""

from dataclasses import dataclass, field

from portico_gateway.compute.environment import Placement, RunSpec, RunState
from portico_gateway.errors import Conflict, PorticoError
from portico_gateway.studios.values import ComputeEnv


@dataclass(slots=True)
class MemoryMachine:
    """The machine behind one or several `MemoryCompute`: it outlives them, as processes outlive the gateway."""

    runs: dict[str, RunSpec] = field(default_factory=dict)
    ended: dict[str, str] = field(default_factory=dict)
    volumes: set[str] = field(default_factory=set)


class MemoryCompute:
    """`ComputeEnvironment` in memory; `started`, `killed`, `released` are what was asked, in order."""

    def __init__(self, machine: MemoryMachine | None = None, *, shared: bool = True) -> None:
        self.machine = machine or MemoryMachine()
        self.started: list[RunSpec] = []
        self.killed: list[str] = []
        self.released: list[str] = []
        self.fail_next_start: PorticoError | None = None
        self._shared = shared

    def describe(self) -> ComputeEnv:
        return ComputeEnv(
            id="memory",
            name="Memory",
            platform="memory",
            region="",
            status="AVAILABLE",
            isolation="full" if self._shared else "none",
            isolation_note="Nothing runs here: runs are only remembered.",
            shared=self._shared,
            cpus=2,
            memory=8192,
        )

    async def start(self, spec: RunSpec) -> Placement:
        self.started.append(spec)
        if (error := self.fail_next_start) is not None:
            self.fail_next_start = None
            raise error
        for run_id, other in self.machine.runs.items():
            if run_id == spec.run_id:
                raise Conflict(f"run {run_id} has been started already")
            if other.session_id == spec.session_id:
                raise Conflict(f"studio {spec.session_id} is still in use by run {run_id}: stop that first")
        self.machine.runs[spec.run_id] = spec
        self.machine.volumes.add(spec.session_id)
        return {"kind": "memory", "run": spec.run_id}

    async def inspect(self, run_id: str, placement: Placement) -> RunState:
        if run_id in self.machine.runs and placement.get("run") == run_id:
            return RunState(alive=True)
        return RunState(alive=False, reason=self.machine.ended.get(run_id, "no such run on this machine"))

    async def kill(self, run_id: str, placement: Placement) -> None:
        self.killed.append(run_id)
        self.die(run_id, "killed")

    async def release(self, session_id: str) -> None:
        if any(spec.session_id == session_id for spec in self.machine.runs.values()):
            raise Conflict(f"studio {session_id} is in use: stop it before its volume is dropped")
        self.released.append(session_id)
        self.machine.volumes.discard(session_id)

    def has_volume(self, session_id: str) -> bool:
        return session_id in self.machine.volumes

    async def sweep(self, live: set[str]) -> list[str]:
        orphans = [run_id for run_id in self.machine.runs if run_id not in live]
        for run_id in orphans:
            self.die(run_id, "no longer known to the gateway")
        return [f"run {run_id} ended: the gateway does not know it" for run_id in orphans]

    def die(self, run_id: str, reason: str = "portico-init ended") -> None:
        """End a run from outside; does nothing when it is gone."""
        if self.machine.runs.pop(run_id, None) is not None:
            self.machine.ended[run_id] = reason

    def leave(self, run_id: str) -> None:
        """End a run as portico-init does after a clean stop."""
        self.die(run_id, "portico-init ended")
