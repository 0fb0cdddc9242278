"""Looks for keys in everything that a studio is made of, as somebody who may read all of it.

Each function returns the places it found, as words. What is looked for goes to grep by a pipe: it stands in no argv.
"""

import subprocess
from collections.abc import Iterable, Mapping
from io import FileIO
from pathlib import Path

NOT_THE_STUDIOS = {"proc", "sys", "dev", "usr", "opt", "bin", "sbin", "lib", "lib32", "lib64", "libx32"}
"""Of a studio's root: the kernel's, and this machine's own programs. What a studio changes there lies in its volume."""

Keys = Mapping[str, str]
"""By name, for people."""


def in_processes(pids: Iterable[int], keys: Keys) -> list[str]:
    """Their environments as they were started, and their argument lists."""
    found = []
    for pid in pids:
        for file in ("environ", "cmdline"):
            try:
                content = Path(f"/proc/{pid}/{file}").read_bytes()
            except OSError:
                continue  # gone meanwhile
            found += [f"{name} in {file} of {pid}" for name, key in keys.items() if key.encode() in content]
    return found


def in_memory(pids: Iterable[int], keys: Keys) -> list[str]:
    """All that they can write to: heaps, stacks, buffers."""
    return [
        f"{name} in the memory of {pid}" for pid in pids for name in keys if _memory_holds(pid, keys[name].encode())
    ]


def in_files(places: Iterable[Path], keys: Keys) -> list[str]:
    """Every file below, hidden and binary ones, too, and the names of files."""
    roots = [str(place) for place in places if place.exists()]
    grep = ["grep", "-r", "-l", "-a", "-F", "-s", "-D", "skip", "--exclude-dir=lower", "-f", "-", *roots]
    files = subprocess.run(grep, input="\n".join(keys.values()) + "\n", capture_output=True, text=True).stdout
    find = subprocess.run(["find", *roots, "-xdev"], capture_output=True, text=True, errors="replace")
    found = [f"{name} in {file}" for file in files.splitlines() for name, key in keys.items() if _holds(file, key)]
    return found + [
        f"{name} in the name {file}" for file in find.stdout.splitlines() for name in keys if keys[name] in file
    ]


def _holds(file: str, key: str) -> bool:
    try:
        return key.encode() in Path(file).read_bytes()
    except OSError:
        return False  # gone since grep saw it


def studio_places(init: int, tool: int) -> list[Path]:
    """What the agent and portico-init see besides this machine's programs, and what the user sees."""
    agent_root, root = Path(f"/proc/{init}/root"), Path(f"/proc/{tool}/root")
    agents = [agent_root / name for name in ("portico", "run", "tmp", "opt/portico/agent")]
    return [*agents, root / "opt/portico", root / "opt/venv"] + [
        entry for entry in root.iterdir() if entry.name not in NOT_THE_STUDIOS
    ]


def _memory_holds(pid: int, key: bytes) -> bool:
    try:
        maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
        with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
            return any(key in _region(memory, line) for line in maps if line.split()[1].startswith("rw"))
    except (FileNotFoundError, ProcessLookupError):
        return False


def _region(memory: FileIO, line: str) -> bytes:
    start, end = (int(text, 16) for text in line.split()[0].split("-"))
    pieces = []
    try:
        memory.seek(start)
        while start < end and (piece := memory.read(end - start)):
            pieces.append(piece)
            start += len(piece)
    except OSError:
        pass  # the kernel's own pages, or memory that was reserved and never used
    return b"".join(pieces)
