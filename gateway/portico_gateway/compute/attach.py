"""Compute for suites and benches: nothing is launched but an agent, in this machine's own network, that tunnels to a
tool which runs already.

The agent is a child of the gateway here: it does not outlive it, and nothing is confined. Its tool's port is in the
plan that the gateway gives it; with PORTICO_ROOT=none it makes no root, no volume and no checkpoint.
"""

import asyncio
import os
import shutil
import signal
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from portico_gateway.compute.environment import Placement, RunSpec, RunState
from portico_gateway.compute.local import processes, python_home
from portico_gateway.compute.local.processes import ProcessIdentity
from portico_gateway.compute.local.run_folders import RunFolders
from portico_gateway.errors import Conflict, Unavailable
from portico_gateway.settings import Settings
from portico_gateway.studios.values import ComputeEnv

INIT_MODULE = "portico_agent.init"
STOP_SECONDS = 5.0  # an agent without a volume has nothing to finish


@dataclass(slots=True)
class _Attached:
    session_id: str
    program: asyncio.subprocess.Process
    identity: ProcessIdentity
    folder: Path = field(repr=False)


class AttachCompute:
    """`ComputeEnvironment` that starts agents only. `command` replaces portico-init, for tests of this class."""

    def __init__(self, settings: Settings, *, command: tuple[str, ...] = ()) -> None:
        self._settings = settings
        self._folders = RunFolders(settings.data.resolve())
        self._command = command
        self._runs: dict[str, _Attached] = {}

    def describe(self) -> ComputeEnv:
        return ComputeEnv(
            id="attach",
            name="A tool that runs already",
            platform="attach",
            region="",
            status="AVAILABLE",
            isolation="none",
            isolation_note="For measurements: studios lead to a tool that was started by hand; nothing is confined.",
            shared=True,
            cpus=os.cpu_count() or 1,
            memory=psutil.virtual_memory().total // 1024**2,
        )

    async def start(self, spec: RunSpec) -> Placement:
        self._refuse_double(spec)
        folder = self._folders.run(spec.run_id)
        (folder / "state").mkdir(parents=True, exist_ok=True, mode=0o700)
        (folder / "volume").mkdir(exist_ok=True, mode=0o700)
        command = self._command or (
            python_home.own_interpreter(),
            "-I",
            python_home.agent_files()["launch.py"],
            INIT_MODULE,
        )
        with self._folders.log(spec.run_id).open("ab") as log:
            try:
                program = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=self._environment(spec, folder),
                    start_new_session=True,
                )
            except OSError as error:
                raise Unavailable(f"the agent could not be started: {error}") from None
        identity = processes.identify(program.pid)
        if identity is None:
            await program.wait()
            raise Unavailable("the agent ended at once: see the run's log")
        self._runs[spec.run_id] = _Attached(spec.session_id, program, identity, folder)
        return {
            "kind": "attach",
            "run": spec.run_id,
            "session": spec.session_id,
            "pid": identity.pid,
            "started": identity.started,
            "boot": identity.boot,
        }

    async def inspect(self, run_id: str, placement: Placement) -> RunState:
        identity = _identity(run_id, placement)
        if identity is None:
            return RunState(alive=False, reason="this machine knows no such run")
        return RunState(alive=True) if processes.is_alive(identity) else RunState(False, "the agent has ended")

    async def kill(self, run_id: str, placement: Placement) -> None:
        identity = _identity(run_id, placement)
        if identity is None:
            return
        below = [processes.identify(pid) for pid in processes.descendants(identity.pid)]
        processes.kill(identity, signal.SIGKILL)
        for child in below:
            if child is not None:
                processes.kill(child)
        if (run := self._runs.pop(run_id, None)) is not None:
            await run.program.wait()
        for name in ("state", "volume"):
            shutil.rmtree(self._folders.run(run_id) / name, ignore_errors=True)

    async def release(self, session_id: str) -> None:
        if any(run.session_id == session_id and processes.is_alive(run.identity) for run in self._runs.values()):
            raise Conflict(f"studio {session_id} is attached: stop it first")

    def has_volume(self, session_id: str) -> bool:
        """Nothing of an attached studio is ever kept."""
        return False

    async def sweep(self, live: set[str]) -> list[str]:
        removed = []
        for run_id in [run_id for run_id in self._runs if run_id not in live]:
            run = self._runs[run_id]
            await self.kill(run_id, {"kind": "attach", "run": run_id, **_pid_of(run.identity)})
            removed.append(f"run {run_id} ended: the gateway does not know it")
        return removed

    def _refuse_double(self, spec: RunSpec) -> None:
        for run_id, run in self._runs.items():
            if not processes.is_alive(run.identity):
                continue
            if run_id == spec.run_id or run.session_id == spec.session_id:
                raise Conflict(f"run {run_id} of studio {run.session_id} is attached already: stop it first")

    def _environment(self, spec: RunSpec, folder: Path) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "HOME") if name in os.environ}
        return {
            **kept,
            **spec.environment,
            "PORTICO_RUN": spec.run_id,
            "PORTICO_RUN_TOKEN": spec.run_token,
            "PORTICO_GATEWAY": spec.gateway,
            "PORTICO_HOST": spec.host_header,
            "PORTICO_ROOT": "none",
            "PORTICO_VOLUME": str(folder / "volume"),
            "PORTICO_STATE": str(folder / "state"),
            "PORTICO_TOOLS": str(folder),
            "PORTICO_STOP_SECONDS": str(STOP_SECONDS),
        }


def _pid_of(identity: ProcessIdentity) -> dict[str, int | str]:
    return {"pid": identity.pid, "started": identity.started, "boot": identity.boot}


def _identity(run_id: str, placement: Placement) -> ProcessIdentity | None:
    match placement:
        case {"kind": "attach", "run": str(run), "pid": int(pid), "started": int(started), "boot": str(boot)}:
            return ProcessIdentity(pid, started, boot) if run == run_id else None
    return None
