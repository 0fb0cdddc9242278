"""Who is alive below us, read from /proc."""

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Process:
    pid: int
    parent: int
    session: int
    state: str


def read_process(pid: int) -> Process | None:
    """None when there is no such process (any more)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name in parentheses may hold anything
    return Process(pid, int(fields[1]), int(fields[3]), fields[0])


def descendants(ancestor: int, *, spare_session: int = 0) -> list[int]:
    """Living processes below `ancestor`, without those in the session `spare_session`; zombies are not living."""
    found = [read_process(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    table = [process for process in found if process is not None]
    children: dict[int, list[Process]] = {}
    for process in table:
        children.setdefault(process.parent, []).append(process)
    below, todo = [], [ancestor]
    while todo:
        for process in children.get(todo.pop(), ()):
            below.append(process)
            todo.append(process.pid)
    return [p.pid for p in below if p.state not in "ZX" and not (spare_session and p.session == spare_session)]


def send_all(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
