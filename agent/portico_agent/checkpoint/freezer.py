"""Holding a studio still where there are no snapshots: its cgroup frozen, or its processes stopped one by one.

A *guardian*, a small process of its own, does it: when the capture dies, however it dies, its pipe breaks and the
guardian lets everything run again.
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from portico_agent.checkpoint.jobs import Freeze

PATIENCE = 10.0
"""Seconds a freeze may take; then everything runs again and the capture fails."""
ROUNDS = 50
"""Times the processes are listed anew while stopping them: one that forks quickly needs a few."""
_FIRST_PID_NAMESPACE = 0xEFFFFFFC
"""Inode of the machine's own PID namespace: a constant of the kernel."""
_STOP, _GO, _DONE, _FAILED = b"S", b"G", b"d", b"f"


class FreezeFailed(OSError):
    """The studio could not be held still."""


class Still(Protocol):
    def stop(self) -> None: ...

    def go(self) -> None: ...


class Cgroup:
    """A cgroup that holds the studio's processes and nothing of ours; version 2 or 1."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._second = (folder / "cgroup.freeze").exists()

    def stop(self) -> None:
        self._write("1" if self._second else "FROZEN")
        deadline = time.monotonic() + PATIENCE
        while not self._is_frozen():
            if time.monotonic() > deadline:
                self.go()
                raise FreezeFailed(f"the processes in {self._folder} do not freeze")
            time.sleep(0.001)

    def go(self) -> None:
        self._write("0" if self._second else "THAWED")

    def _write(self, text: str) -> None:
        (self._folder / ("cgroup.freeze" if self._second else "freezer.state")).write_text(text)

    def _is_frozen(self) -> bool:
        if self._second:
            return "frozen 1" in (self._folder / "cgroup.events").read_text()
        return (self._folder / "freezer.state").read_text().strip() == "FROZEN"


class Processes:
    """The tool and all below it; in a studio's own PID namespace also what was orphaned to its first process."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._stopped: list[int] = []

    def stop(self) -> None:
        for _ in range(ROUNDS):
            fresh = [pid for pid in self._targets() if pid not in self._stopped]
            if not fresh:
                return
            for pid in fresh:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
                    self._stopped.append(pid)
        self.go()
        raise FreezeFailed("the studio starts processes faster than they can be stopped")

    def go(self) -> None:
        for pid in self._stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self._stopped.clear()

    def _targets(self) -> list[int]:
        """Running ones; those that somebody else stopped stay theirs."""
        table = dict(_processes())
        ours, tools = _line(os.getpid(), table), _line(self._pid, table)
        shared = next((place for place, pid in enumerate(ours) if pid in tools), len(ours))
        branch = ours[max(shared - 1, 0)]  # below the first common ancestor, all on this side is the agent's
        wide = tools[1:] == [1] and _in_own_namespace()
        found = []
        for pid, (_, state) in table.items():
            line = _line(pid, table)
            if state not in "TtZX" and branch not in line and (self._pid in line or (wide and pid != 1)):
                found.append(pid)
        return found


def _in_own_namespace() -> bool:
    """Whether process 1 is the studio's own and not the machine's."""
    return Path("/proc/self/ns/pid").stat().st_ino != _FIRST_PID_NAMESPACE


def _line(pid: int, table: dict[int, tuple[int, str]]) -> list[int]:
    """The process and its ancestors, nearest first."""
    line = []
    while pid in table and pid not in line:
        line.append(pid)
        pid = table[pid][0]
    return line


def _processes() -> Iterator[tuple[int, tuple[int, str]]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
                yield int(entry.name), (int(fields[1]), fields[0])


class Guardian:
    """Freezes on our word and thaws on it, or when we are gone. Start it before any thread."""

    def __init__(self, how: Freeze) -> None:
        self._how = how
        self._pid = 0
        self._orders = self._answers = -1

    def start(self) -> None:
        orders, self._orders = os.pipe()
        self._answers, answers = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._orders)
            os.close(self._answers)
            _guard(_still(self._how), orders, answers)
        os.close(orders)
        os.close(answers)

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """The studio stands still in here. Raises FreezeFailed."""
        self._order(_STOP)
        try:
            yield
        finally:
            self._order(_GO)

    def close(self) -> None:
        if self._pid:
            os.close(self._orders)
            os.close(self._answers)
            os.waitpid(self._pid, 0)
            self._pid = 0

    def _order(self, order: bytes) -> None:
        os.write(self._orders, order)
        if os.read(self._answers, 1) != _DONE:
            raise FreezeFailed("the studio could not be held still for its checkpoint")


def _still(how: Freeze) -> Still:
    return Cgroup(Path(how.cgroup)) if how.cgroup else Processes(how.pid)


def _guard(still: Still, orders: int, answers: int) -> None:
    """The guardian's whole life. Signals that end us must not end it before it has thawed."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    try:
        while order := os.read(orders, 1):
            try:
                (still.stop if order == _STOP else still.go)()
                answer = _DONE
            except OSError:
                answer = _FAILED
            os.write(answers, answer)
    finally:
        with contextlib.suppress(OSError):
            still.go()
        os._exit(0)
