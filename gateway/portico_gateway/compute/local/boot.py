"""The launcher: `python -I boot.py` reads a BootPlan, boots portico-init in it, prints a placement, and is gone.

    launcher ──fork──▶ middle: joins control groups, unshares, forks ──▶ first: waits for 'go', builds its root, becomes
       │  ◀── pid ──────┘ (and exits)                                       portico-init (PID 1 of its namespace)
       └─ writes placement.json, makes the network, says 'go', waits until `first` has executed portico-init

PID 1 ends up as a child of whoever reaps orphans here, so it outlives launcher, control and supervisor alike. Killed
anywhere before 'go', the launcher leaves nothing: `first` sees its pipe close and ends, and with it its namespaces.
Printed is one JSON object: {"placement": {…}} or {"error": "a sentence"}.
"""

import contextlib
import fcntl
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

if __name__ == "__main__":  # started by its file name, so that nothing but the standard library is imported
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from portico_gateway.compute.local import cgroups, network, sandbox, syscalls, user_network, volume
from portico_gateway.compute.local.boot_plan import NONE, ROOT, USER, BootPlan
from portico_gateway.compute.local.processes import ProcessIdentity, identify

_ISOLATED = syscalls.CLONE_NEWNS | syscalls.CLONE_NEWPID | syscalls.CLONE_NEWUTS | syscalls.CLONE_NEWIPC


def main() -> int:
    plan = BootPlan.from_json(sys.stdin.read())
    try:
        answer: dict[str, Any] = {"placement": boot(plan)}
    except OSError as error:
        answer = {"error": error.strerror or str(error)}
        if isinstance(error, (network.NetworkFault, volume.VolumeFault)):
            answer = {"error": str(error)}
    print(json.dumps(answer), flush=True)  # noqa: T201 - this is the answer
    return 0


def boot(plan: BootPlan) -> dict[str, Any]:
    """Boot the run; returns its placement, which `<run_dir>/placement.json` holds too. Raises OSError."""
    base = Path(plan.run_dir, "boot")
    base.mkdir(parents=True, exist_ok=True)
    fresh = bool(plan.volume_bytes) and volume.prepare_image(Path(plan.volume), plan.volume_bytes)
    try:
        return _boot(plan, str(base))
    except BaseException:
        if fresh:
            Path(plan.volume).unlink(missing_ok=True)
        Path(plan.run_dir, "placement.json").unlink(missing_ok=True)
        raise


def _boot(plan: BootPlan, base: str) -> dict[str, Any]:
    told, tell = os.pipe()  # 'go' and the interface's name, to the first process
    heard, report = os.pipe()  # what went wrong in there; closed without a word by a successful exec
    pid = _fork_first(plan, base, told=told, tell=tell, report=report)
    os.close(told)
    os.close(report)
    try:
        found = identify(pid)
        if found is None:
            raise OSError(_read_all(heard) or "the run ended before it began")
        placement = _placement(plan, found)
        with _instance_lock(plan):
            link = _make_network(plan, pid)
            if link:
                placement["link"] = link
            _write_placement(plan, placement)
        os.write(tell, f"go {link}\n".encode())
        if words := _read_all(heard):
            raise OSError(words)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        raise
    finally:
        os.close(tell)
        os.close(heard)
    return placement


def _fork_first(plan: BootPlan, base: str, *, told: int, tell: int, report: int) -> int:
    """Fork through the middle; returns the first process' number as this machine sees it."""
    numbers, number = os.pipe()
    middle = os.fork()
    if middle == 0:
        try:
            os.close(tell)
            _be_middle(plan, base, told=told, report=report, number=number)
        except BaseException as error:  # nothing may escape into the launcher's own code
            _say(report, error)
        os._exit(1)
    os.close(number)
    text = _read_all(numbers)
    os.close(numbers)
    os.waitpid(middle, 0)
    if not text:
        os.close(report)
        raise OSError("this machine refused the namespaces that a studio is confined in")
    return int(text)


def _be_middle(plan: BootPlan, base: str, *, told: int, report: int, number: int) -> NoReturn:
    os.setsid()
    late = cgroups.join_groups(plan.cgroups)
    uid, gid = os.getuid(), os.getgid()
    if plan.mode != NONE:
        flags = _ISOLATED | (syscalls.CLONE_NEWNET if plan.network.kind != "host" else 0)
        syscalls.unshare(flags | (syscalls.CLONE_NEWUSER if plan.mode == USER else 0))
    if plan.mode == USER:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    first = os.fork()
    if first == 0:
        try:
            os.close(number)
            _be_first(plan, base, told=told, late=late)
        except BaseException as error:  # the launcher is told, then this process ends
            _say(report, error)
        os._exit(1)
    os.write(number, str(first).encode())
    os._exit(0)


def _be_first(plan: BootPlan, base: str, *, told: int, late: list[int]) -> NoReturn:
    os.setsid()
    words = os.read(told, 100).decode().split()
    if words[:1] != ["go"]:
        os._exit(1)  # the launcher is gone
    if plan.mode != NONE:
        _isolate(plan, base, link=words[1] if len(words) > 1 else "")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)  # standard error is the run's log already
    for group in late:
        os.write(group, b"0")
    if plan.cgroups and plan.mode != NONE:
        syscalls.unshare(syscalls.CLONE_NEWCGROUP)  # now, so that its groups are the root of what it sees
    if plan.nice:
        os.nice(plan.nice)
    os.umask(0o022)
    os.execve(plan.command[0], list(plan.command), plan.environment)  # noqa: S606 - no shell is the point


def _isolate(plan: BootPlan, base: str, *, link: str) -> None:
    if link:
        network.join_link(plan.network, link)
    elif plan.network.kind == "loopback":
        network.raise_loopback()
    build = sandbox.build_root_sandbox if plan.mode == ROOT else sandbox.build_user_sandbox
    root = build(plan, base)
    socket.sethostname(plan.hostname)
    sandbox.enter(root)
    if plan.mode == ROOT:
        syscalls.drop_bounding_set(syscalls.KEPT_CAPABILITIES.values())


def _make_network(plan: BootPlan, pid: int) -> str:
    if plan.network.kind == "veth":
        return network.make_link(plan.network, pid, _state(plan) / "forwarding")
    if plan.network.kind in ("pasta", "slirp"):
        user_network.attach(plan.network, pid, Path(plan.run_dir))
    return ""


def _placement(plan: BootPlan, process: ProcessIdentity) -> dict[str, Any]:
    return {
        "kind": "local",
        "mode": plan.mode,
        "run": plan.run_id,
        "session": plan.session_id,
        "pid": process.pid,
        "started": process.started,
        "boot": process.boot,
        "network": plan.network.kind,
    }


def _write_placement(plan: BootPlan, placement: dict[str, Any]) -> None:
    unfinished = Path(plan.run_dir, "placement.new")
    unfinished.write_text(json.dumps(placement))
    unfinished.rename(unfinished.with_name("placement.json"))


def _state(plan: BootPlan) -> Path:
    return Path(plan.state_dir)


@contextlib.contextmanager
def _instance_lock(plan: BootPlan) -> Iterator[None]:
    """Numbers of links are given out one at a time."""
    with (_state(plan) / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _read_all(descriptor: int) -> str:
    with open(descriptor, "rb", closefd=False) as file:
        return file.read(4096).decode(errors="replace")


def _say(report: int, error: BaseException) -> None:
    words = (error.strerror or str(error)) if type(error) is OSError else f"{error}"
    os.write(report, (words or type(error).__name__).encode()[:4000])


if __name__ == "__main__":
    sys.exit(main())
