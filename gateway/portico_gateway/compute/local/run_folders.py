"""What local compute keeps in the data folder, by name.

runs/<run>/            agent.log, placement.json, boot/ (an empty mount point), network.pid
volumes/<session>/     volume.img or folder/
compute/               of the instance: lock, subnet, forwarding, python/
"""

import json
from dataclasses import dataclass
from pathlib import Path

from portico_gateway.compute.environment import Placement
from portico_gateway.compute.local.processes import ProcessIdentity, is_alive
from portico_gateway.compute.local.volume import FOLDER, IMAGE
from portico_shared import ids


@dataclass(frozen=True, slots=True)
class RunFolders:
    data: Path

    @property
    def state(self) -> Path:
        return self.data / "compute"

    @property
    def subnet(self) -> Path:
        return self.state / "subnet"

    def run(self, run_id: str) -> Path:
        return self.data / "runs" / run_id

    def log(self, run_id: str) -> Path:
        return self.run(run_id) / "agent.log"

    def volume(self, session_id: str) -> Path:
        return self.data / "volumes" / session_id

    def image(self, session_id: str) -> Path:
        return self.volume(session_id) / IMAGE

    def folder(self, session_id: str) -> Path:
        return self.volume(session_id) / FOLDER

    def placement(self, run_id: str) -> Placement | None:
        """What the launcher wrote; None when the run was never placed or is forgotten."""
        try:
            found = json.loads((self.run(run_id) / "placement.json").read_text())
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def placed(self) -> dict[str, Placement]:
        """Every run whose remnants have not been removed yet."""
        folder = self.data / "runs"
        names = [entry.name for entry in folder.iterdir() if ids.is_run_id(entry.name)] if folder.is_dir() else []
        found = {name: self.placement(name) for name in names}
        return {name: placement for name, placement in found.items() if placement is not None}


def process_of(run_id: str, placement: Placement) -> ProcessIdentity | None:
    """The run's PID 1 according to its placement; None when that is not one of ours."""
    match placement:
        case {"kind": "local", "run": str(run), "pid": int(pid), "started": int(started), "boot": str(boot)}:
            return ProcessIdentity(pid, started, boot) if run == run_id else None
    return None


def lives(run_id: str, placement: Placement) -> bool:
    process = process_of(run_id, placement)
    return process is not None and is_alive(process)
