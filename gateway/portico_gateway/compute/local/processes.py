"""Which process is meant, beyond a number the kernel gives out again: pid, start time, and the boot it belongs to."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

_START_TIME = 19  # fields of /proc/<pid>/stat after the command's closing bracket: state is 0, start time is 19


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """One process of this machine's life, told apart from any later one with its number."""

    pid: int
    started: int  # clock ticks since boot
    boot: str


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def identify(pid: int) -> ProcessIdentity | None:
    """The process that has this number now; None when there is none, or only its corpse."""
    found = _stat(pid)
    if found is None:
        return None
    return ProcessIdentity(pid, int(found[_START_TIME]), boot_id())


def is_alive(process: ProcessIdentity) -> bool:
    """Whether exactly this process runs; a zombie does not."""
    return identify(process.pid) == process


def kill(process: ProcessIdentity, number: int = signal.SIGKILL) -> bool:
    """Signal exactly this process. False when it is gone. A descriptor holds its number while we look twice."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except OSError:
        return False
    try:
        if not is_alive(process):
            return False
        signal.pidfd_send_signal(descriptor, number)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def descendants(pid: int) -> list[int]:
    """Every process below this one, children before grandchildren."""
    parents: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (found := _stat(int(entry))) is not None:
            parents.setdefault(int(found[1]), []).append(int(entry))
    below, queue = [], [pid]
    while queue:
        children = parents.get(queue.pop(), [])
        below += children
        queue += children
    return below


def _stat(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    found = text[text.rindex(")") + 2 :].split()
    return None if found[0] in "ZX" else found
