"""A running studio as this machine sees it: its processes, by its own placement, and what is left when it is over.

Other Porticos may run on this machine: nothing here is found by a name alone.
"""

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from portico_gateway.compute.local import processes
from portico_gateway.compute.local.network import instance_name
from portico_shared.tasks import spawn
from support.portico import Portico, mounts_and_loops

AGENT, TOOL = "portico_agent", "jupyterlab"


@dataclass(frozen=True, slots=True)
class StudioProcesses:
    """The processes of a studio's newest run. `namespace` tells every process of its sandbox from all others."""

    run_id: str
    init: int
    namespace: str

    @classmethod
    def of(cls, portico: Portico, session_id: str) -> "StudioProcesses":
        run_id, placement = newest_run(portico.data, session_id)
        pid = int(placement["pid"])
        identity = processes.identify(pid)
        assert identity is not None and identity.started == placement["started"], f"{run_id}: its init is not there"
        return cls(run_id=run_id, init=pid, namespace=_namespace(pid))

    def child(self, module: str) -> int:
        """Pid of init's own child that runs `module`; 0 = none at the moment."""
        for pid in processes.descendants(self.init):
            words = _words(pid)
            if module in words and _parent(pid) == self.init:
                return pid
        return 0

    @property
    def agent(self) -> int:
        return self.child(AGENT)

    @property
    def tool(self) -> int:
        return self.child(TOOL)

    def kill(self, pid: int) -> None:
        """kill -9, after a look that it is a process of this sandbox."""
        assert pid and _namespace(pid) == self.namespace
        os.kill(pid, signal.SIGKILL)

    def left(self) -> list[str]:
        """Processes that are still in the sandbox."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if _namespace(int(entry.name)) == self.namespace:
                        found.append(f"{entry.name} {' '.join(_words(int(entry.name)))}")
                except OSError:
                    continue  # gone, or just going
        return found


def newest_run(data: Path, session_id: str) -> tuple[str, dict[str, object]]:
    """The newest run's id and its placement, from the database."""
    query = "select id, placement from runs where session_id = ? order by started desc limit 1"
    row = _rows(data, query, session_id)[0]
    return str(row[0]), dict(json.loads(str(row[1] or "{}")))


def status_of(data: Path, session_id: str) -> str:
    """The studio's status as it is stored, whoever of Portico's processes is there."""
    return str(_rows(data, "select status from studios where session_id = ?", session_id)[0][0])


def checkpoint_reasons(data: Path, run_id: str) -> dict[int, str]:
    """Of each checkpoint of the run that holds something: for what its newest moment was saved."""
    query = "select id, reason from checkpoints where run_id = ? and head is not null"
    return {int(str(row)): str(reason) for row, reason in _rows(data, query, run_id)}


def newest_heads(data: Path, session_id: str) -> list[str]:
    """Every durable moment of the studio."""
    query = (
        "select h.head from checkpoint_heads h join checkpoints c on c.id = h.checkpoint_id where c.session_id = ?"
        " order by h.saved desc"
    )
    return [str(head) for (head,) in _rows(data, query, session_id)]


def _rows(data: Path, query: str, *values: object) -> list[tuple[object, ...]]:
    database = sqlite3.connect(f"file:{data / 'portico.db'}?mode=ro", uri=True, timeout=10)
    try:
        return database.execute(query, values).fetchall()
    finally:
        database.close()


def network_left(data: Path) -> list[str]:
    """Interfaces and nft tables of this data folder's studios."""
    instance = instance_name(data.resolve())
    links = [link.name for link in Path("/sys/class/net").iterdir() if link.name.startswith(f"pv{instance}")]
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    return links + [line for line in tables.splitlines() if f"portico_{instance}" in line]


@contextlib.asynccontextmanager
async def watching(portico: Portico, session_id: str) -> AsyncIterator[set[str]]:
    """Every status the studio has meanwhile, looked at in the database."""
    seen: set[str] = set()

    async def look() -> None:
        while True:
            seen.add(status_of(portico.data, session_id))
            await asyncio.sleep(0.05)

    looking = spawn(look(), name="watching")
    try:
        yield seen
        seen.add(status_of(portico.data, session_id))
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)


async def checkpoint(portico: Portico, session_id: str, *, seconds: float = 60) -> dict[str, Any]:
    """Ask for a checkpoint and wait until it is durable or given up. Returns its row."""
    where = f"workspaceId={await portico.workspace()}"
    row = await portico.call("POST", f"/studios/{session_id}/checkpoints?{where}", {})
    deadline = time.monotonic() + seconds
    while row["status"] not in ("finalized", "invalid"):
        assert time.monotonic() < deadline, f"still {row['status']} after {seconds} s"
        await asyncio.sleep(0.1)
        row = await portico.call("GET", f"/studios/{session_id}/checkpoints/{row['id']}?{where}")
    return dict(row)


async def nothing_left(portico: Portico, sandbox: StudioProcesses, seconds: float = 5.0) -> None:
    """The only studio's run is over: no process, mount, loop device, interface or nft table of it. The kernel takes
    its time over namespaces, hence the looking."""
    try:
        await until(lambda: not (sandbox.left() or network_left(portico.data)), "", seconds)
        await until(lambda: not mounts_and_loops(portico.data), "", seconds)
    except AssertionError:
        left = [*sandbox.left(), *network_left(portico.data), *mounts_and_loops(portico.data)]
        raise AssertionError(f"left behind: {left}") from None


async def until(condition: Callable[[], object], words: str, seconds: float) -> float:
    """Wait for something outside of us. Returns the seconds it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"{words}: not within {seconds} s"
        await asyncio.sleep(0.02)
    return time.monotonic() - began


def _namespace(pid: int) -> str:
    return str(Path(f"/proc/{pid}/ns/pid").readlink())


def _words(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0
