"""Looking at this machine, and into sandboxes on it, from outside."""

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from portico_gateway.compute.environment import RunSpec
from portico_shared import ids

SLEEPER = ("/bin/sleep", "1000")
"""A first process that does nothing, for tests of what is around it."""


def run_spec(**changes: object) -> RunSpec:
    values: dict[str, object] = {
        "run_id": ids.new_run_id(),
        "session_id": ids.new_session_id(),
        "tool": "jupyter",
        "run_token": "only-for-this-run",
        "gateway": "unix:/run/portico/gateway/edge.sock",
        "host_header": "portico.localhost:8000",
        "quota_bytes": 200 * 1024**2,
        "memory_mib": 512,
        "cpu": 1,
    }
    return RunSpec(**{**values, **changes})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Machine:
    """What a run could leave behind, as this machine shows it."""

    mounts: frozenset[str]
    loops: frozenset[str]
    links: frozenset[str]
    tables: frozenset[str]
    groups: frozenset[str]
    forwarding: str = field(compare=False)
    """The whole machine's: studios of other tests, running at the same time, switch it too."""


def look_at_machine(mark: str) -> Machine:
    """`mark`: a word that is in the names of what belongs to this test (its data folder's, its instance's)."""
    backing = [Path(f) for f in Path("/sys/block").glob("loop*/loop/backing_file")]
    groups = [folder for folder, _, _ in os.walk("/sys/fs/cgroup") if mark in folder]
    tables = run("nft", "list", "tables").stdout if os.geteuid() == 0 else ""
    return Machine(
        mounts=frozenset(line for line in Path("/proc/self/mountinfo").read_text().splitlines() if mark in line),
        loops=frozenset(text for file in backing if mark in (text := _text(file))),
        links=frozenset(link.name for link in Path("/sys/class/net").iterdir() if mark in link.name),
        tables=frozenset(line for line in tables.splitlines() if mark in line),
        groups=frozenset(groups),
        forwarding=Path("/proc/sys/net/ipv4/ip_forward").read_text(),
    )


def others_run() -> bool:
    """Whether any Portico of this machine has studios with a network now."""
    return "table inet portico_" in run("nft", "list", "tables").stdout


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:  # it went away between listing and reading
        return ""


def processes_of(mark: str) -> list[str]:
    """Command lines and environments of this machine's processes that carry `mark`, our own tests apart."""
    found = []
    for process in psutil.process_iter():
        try:
            words = " ".join((*process.cmdline(), *(f"{k}={v}" for k, v in process.environ().items())))
        except (psutil.Error, OSError):
            continue
        if mark in words and "pytest" not in words:
            found.append(words)
    return found


def run(*command: str, timeout: float = 20) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout)


@contextlib.contextmanager
def background(*command: str) -> Iterator[int]:
    """A program beside the test, killed at the end; its pid."""
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, cwd="/proc") as program:
        try:
            yield program.pid
        finally:
            program.kill()


def namespace(pid: int | str, kind: str) -> str:
    return str(Path(f"/proc/{pid}/ns/{kind}").readlink())


def inside(pid: int, script: str, *, timeout: float = 20) -> subprocess.CompletedProcess[str]:
    """Run a shell script in the namespaces of process `pid`, with every right this test has: more than a studio."""
    return run(
        "nsenter",
        "--target",
        str(pid),
        "--mount",
        "--uts",
        "--ipc",
        "--net",
        "--pid",
        "--",
        "/bin/sh",
        "-c",
        script,
        timeout=timeout,
    )


def reaches(pid: int | None, address: str, port: int) -> bool:
    """Whether a TCP connection opens, from this machine (None) or from inside the sandbox of `pid`."""
    script = f"timeout 1 bash -c '</dev/tcp/{address}/{port}'"
    done = run("/bin/sh", "-c", script) if pid is None else inside(pid, script)
    return done.returncode == 0


async def until(condition, seconds: float = 10.0) -> bool:  # type: ignore[no-untyped-def]
    """Look until it is so; the kernel takes namespaces down in its own time and tells nobody."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        if asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(0.01)
    return True
