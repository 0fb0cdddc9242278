"""`ComputeEnvironment` for this machine: a container runtime of a few hundred lines, with no daemon.

Starting is the launcher's work (`boot.py`), in a process of its own; what is here decides, watches and cleans up.
"""

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import psutil

from portico_gateway.compute.environment import Placement, RunSpec, RunState
from portico_gateway.compute.local import boot, cgroups, network, processes, user_network, volume
from portico_gateway.compute.local.boot_plan import NONE, BootPlan
from portico_gateway.compute.local.confinement import Confinement
from portico_gateway.compute.local.planning import Planner
from portico_gateway.compute.local.run_folders import RunFolders, lives, process_of
from portico_gateway.errors import Conflict, Unavailable
from portico_gateway.settings import Settings
from portico_gateway.studios.values import ComputeEnv

BOOT_TIMEOUT = 60.0  # seconds; a tenth of one is usual, a new volume on a slow disk takes a few
GONE_TIMEOUT = 10.0  # seconds for the kernel to take down what a killed run held
_POLL = 0.02


class LocalCompute:
    """Runs on this machine, confined as `confinement` says. One per data folder and process; state is on disk.

    `command` is started as the run's first process in place of portico-init, for who wants to look at a sandbox alone.
    """

    def __init__(self, settings: Settings, confinement: Confinement, *, command: tuple[str, ...] = ()) -> None:
        self._settings = settings
        self._confinement = confinement
        self._folders = RunFolders(settings.data.resolve())
        self._instance = network.instance_name(self._folders.data)
        self._planner = Planner(settings, confinement, self._folders, self._instance, command)
        self._starting: set[str] = set()
        self._placing = asyncio.Lock()

    def describe(self) -> ComputeEnv:
        return ComputeEnv(
            id="local",
            name="This machine",
            platform="local",
            region="",
            status="AVAILABLE",
            isolation=self._confinement.isolation,
            isolation_note=self._confinement.note,
            shared=self._confinement.shared,
            cpus=os.cpu_count() or 1,
            memory=psutil.virtual_memory().total // 1024**2,
        )

    async def start(self, spec: RunSpec) -> Placement:
        async with self._placing:
            self._refuse_double(spec)
            self._starting.add(spec.run_id)
        try:
            plan = await asyncio.to_thread(self._planner.plan, spec)
            return await self._launch(plan)
        except BaseException:
            await asyncio.shield(self._remove_half_started(spec.run_id))
            raise
        finally:
            self._starting.discard(spec.run_id)

    async def inspect(self, run_id: str, placement: Placement) -> RunState:
        process = process_of(run_id, placement)
        if process is None:
            return RunState(alive=False, reason="this machine knows no such run")
        if processes.is_alive(process):
            return RunState(alive=True)
        if process.boot != processes.boot_id():
            return RunState(alive=False, reason="the machine has been restarted since the run began")
        return RunState(alive=False, reason="portico-init has ended")

    async def kill(self, run_id: str, placement: Placement) -> None:
        process = process_of(run_id, placement)
        if process is not None:
            await self._end(process, whole_tree=placement.get("mode") == NONE)
        if process is not None or self._folders.placement(run_id) is not None:
            await self._clean_up(run_id, str(placement.get("link", "")))

    async def release(self, session_id: str) -> None:
        async with self._placing:
            if user := self._user_of(session_id):
                raise Conflict(f"run {user} of studio {session_id} still uses its volume: stop it first")
            await asyncio.to_thread(volume.drop, self._folders.volume(session_id))

    def has_volume(self, session_id: str) -> bool:
        return self._folders.image(session_id).exists() or self._folders.folder(session_id).exists()

    async def sweep(self, live: set[str]) -> list[str]:
        removed = []
        for run_id, placement in self._folders.placed().items():
            if run_id in live or run_id in self._starting:
                continue
            was_alive = lives(run_id, placement)
            await self.kill(run_id, placement)
            removed.append(
                f"run {run_id}: {'ended, the gateway does not know it' if was_alive else 'remnants removed'}"
            )
        async with self._placing:
            removed += await asyncio.to_thread(self._sweep_rest, live | self._starting)
        return removed

    # --- starting -----------------------------------------------------------------------------------------------

    def _refuse_double(self, spec: RunSpec) -> None:
        if spec.run_id in self._starting:
            raise Conflict(f"run {spec.run_id} is being started already")
        if (user := self._user_of(spec.session_id)) is not None:
            raise Conflict(f"run {user} still uses the volume of studio {spec.session_id}: stop it first")

    def _user_of(self, session_id: str) -> str | None:
        for run_id, placement in self._folders.placed().items():
            if placement.get("session") == session_id and lives(run_id, placement):
                return run_id
        return None

    async def _launch(self, plan: BootPlan) -> Placement:
        with self._folders.log(plan.run_id).open("ab") as log:
            launcher = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                boot.__file__,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                cwd="/",
            )
        try:
            async with asyncio.timeout(BOOT_TIMEOUT):
                output, _ = await launcher.communicate(plan.to_json().encode())
        except TimeoutError:
            raise Unavailable(f"the studio's sandbox was not ready after {BOOT_TIMEOUT:.0f} s") from None
        finally:
            if launcher.returncode is None:
                launcher.kill()
                await launcher.wait()
        return _placement_in(output)

    async def _remove_half_started(self, run_id: str) -> None:
        placement = self._folders.placement(run_id)
        if placement is not None:
            await self.kill(run_id, placement)
        else:
            await self._clean_up(run_id, "")

    # --- ending -------------------------------------------------------------------------------------------------

    async def _end(self, process: processes.ProcessIdentity, *, whole_tree: bool) -> None:
        """Kill the run's first process; the kernel takes its namespaces' other processes along. Without namespaces
        portico-init adopts every orphan below it, so that its descendants are all there is to kill."""
        below = [processes.identify(pid) for pid in processes.descendants(process.pid)] if whole_tree else []
        processes.kill(process)
        for child in below:
            if child is not None:
                processes.kill(child, signal.SIGKILL)
        await _until(lambda: not processes.is_alive(process), "a killed studio does not go away")

    async def _clean_up(self, run_id: str, link: str) -> None:
        run = self._folders.run(run_id)
        user_network.detach(run)
        if link:
            await _until_or_timeout(lambda: not Path(f"/sys/class/net/{link}").exists(), 1.0)
            await asyncio.to_thread(network.remove_links, self._instance, [link])
        placement = self._folders.placement(run_id) or {}
        if session := str(placement.get("session", "")):
            image = self._folders.image(session)
            await _until_or_timeout(lambda: not volume.loop_devices(image), GONE_TIMEOUT)
        await asyncio.to_thread(cgroups.remove_groups, self._group(run_id))
        (run / "placement.json").unlink(missing_ok=True)
        shutil.rmtree(run / "boot", ignore_errors=True)
        async with self._placing:
            if not self._folders.placed() and self._starting <= {run_id}:
                await asyncio.to_thread(self._last_run_is_over)

    def _last_run_is_over(self) -> None:
        self._folders.subnet.unlink(missing_ok=True)
        if self._confinement.network == "veth":
            network.remove_table(self._instance, self._folders.state / "forwarding")

    def _group(self, run_id: str) -> str:
        return f"portico/{self._instance}/{run_id}"

    def _sweep_rest(self, live: set[str]) -> list[str]:
        """What a gateway that was killed in the midst of cleaning up left, and no placement tells of."""
        placed = self._folders.placed()
        removed = [
            f"control group {name}: removed"
            for name in cgroups.names_below(f"portico/{self._instance}")
            if name not in live and name not in placed and cgroups.remove_groups(self._group(name))
        ]
        if not placed and not self._starting and self._confinement.network == "veth":
            names = [link.name for link in Path("/sys/class/net").iterdir()]
            removed += [f"link {name}: removed" for name in network.remove_links(self._instance, names)]
            if self._folders.subnet.exists():
                self._last_run_is_over()
        return removed


def _placement_in(output: bytes) -> Placement:
    try:
        answer = json.loads(output)
    except ValueError:
        raise Unavailable("the launcher of the studio's sandbox ended without a word: see the run's log") from None
    if "placement" not in answer:
        raise Unavailable(f"the studio could not be started: {answer['error']}")
    placement: Placement = answer["placement"]
    return placement


async def _until(condition: Callable[[], bool], complaint: str) -> None:
    if not await _until_or_timeout(condition, GONE_TIMEOUT):
        raise Unavailable(f"{complaint}: a device it waits for may hang; it is tried again")


async def _until_or_timeout(condition: Callable[[], bool], seconds: float) -> bool:
    """The kernel takes namespaces down in its own time and tells nobody, hence the looking."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        if asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(_POLL)
    return True
