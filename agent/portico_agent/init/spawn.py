"""Starts processes for portico-init: the agent in the sandbox's own root, user code in the tool's root.

init has one thread and forks; what the child does before exec is plain system calls in the order written here.
"""

import contextlib
import json
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from portico_agent.overlay import syscalls
from portico_agent.overlay.root import Built, RootSpec, build_root

USER_CAPABILITIES = (
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "AUDIT_WRITE",
    "SETFCAP",
)
"""Container engines' usual set without NET_RAW (no spoofing beside other studios) and MKNOD. No SYS_ADMIN, no
SYS_PTRACE: with either, root in the studio could read the agent."""

OOM_SCORE = "300"
"""When memory runs out the kernel takes user code before the agent and init."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetRoot:
    """A mount namespace that holds a tool's root. `descriptor` is None where the machine allows none of its own.

    `folder` is the root itself: joining a namespace leads to *its* root, which is another one when this machine's
    Portico was started inside a chroot.
    """

    built: Built
    descriptor: int | None
    folder: int | None = None

    def close(self) -> None:
        for held in (self.descriptor, self.folder):
            if held is not None:
                os.close(held)

    def enter(self) -> bool:
        """Go in. Returns whether the root had to be set by chroot: then nobody inside may call chroot again."""
        if self.descriptor is None or self.folder is None:
            return False
        syscalls.setns(self.descriptor, syscalls.CLONE_NEWNS)
        found, wanted = Path("/").stat(), os.fstat(self.folder)
        if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
            return False
        os.fchdir(self.folder)
        os.chroot(".")
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: str = "/"


def make_root(spec: RootSpec, *, sandboxed: bool) -> TargetRoot:
    """Build the root in a helper process and keep its mount namespace by descriptor. Raises OSError.

    A namespace lives as long as somebody in it or somebody holding it: everything is unmounted by the kernel with the
    last of the studio's processes, however it ends. `sandboxed` says that we are in namespaces of our own: only then
    are folders mounted over others: on the machine itself, interpreter and tools may lie in the home they would hide.
    """
    if spec.kind == "none":
        return TargetRoot(built=build_root(spec), descriptor=None)
    if spec.kind == "folders" and not sandboxed:
        return TargetRoot(built=Built(kind="folders", home=spec.home, workspace=spec.workspace), descriptor=None)
    answer_read, answer_write = os.pipe()
    hold_read, hold_write = os.pipe()
    helper = os.fork()
    if helper == 0:
        _helper(spec, answer_write, hold_read, hold_write)
    os.close(answer_write)
    os.close(hold_read)
    try:
        with os.fdopen(answer_read, "rb") as answer:
            found: dict[str, Any] = json.loads(answer.readline() or b'{"error": "the helper died"}')
        if "error" in found:
            raise OSError(found.get("errno", 0), found["error"])
        built = Built(**{**found, "notes": tuple(found["notes"])})
        descriptor = os.open(f"/proc/{helper}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        folder = os.open(f"/proc/{helper}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    finally:
        os.close(hold_write)
        os.waitpid(helper, 0)
    return TargetRoot(built=built, descriptor=descriptor, folder=folder)


def _helper(spec: RootSpec, answer: int, hold: int, hold_write: int) -> None:
    os.close(hold_write)  # init's end alone keeps us waiting
    try:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        report: dict[str, Any] = asdict(build_root(spec))
    except OSError as error:
        report = {"error": str(error), "errno": error.errno}
    except BaseException as error:
        report = {"error": repr(error)}
    with contextlib.suppress(OSError):
        os.write(answer, json.dumps(report).encode() + b"\n")
        os.read(hold, 1)
    os._exit(0)


def start_user_program(program: Program, root: TargetRoot, output: int, *, die_with_us: bool) -> int:
    """Start user code inside `root`, its output into the descriptor `output`. Returns its process id, which is also its
    session and group. Raises OSError when it cannot be started (no such program, no such folder)."""

    def prepare() -> None:
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(OOM_SCORE)
        no_chroot = root.enter() or root.built.chroot
        syscalls.drop_capabilities([n for n in USER_CAPABILITIES if not (no_chroot and n == "SYS_CHROOT")])
        os.umask(0o022)
        if die_with_us:
            syscalls.die_with_parent(signal.SIGKILL)

    return _fork_exec(program, output, prepare)


def start_agent(program: Program, output: int, *, secrets: bytes, die_with_us: bool) -> int:
    """Start the agent; it reads `secrets` to the end from the descriptor named in PORTICO_SECRETS_FD."""
    read, write = os.pipe()
    os.write(write, secrets)  # a few hundred bytes: a pipe holds at least 4096
    os.close(write)
    env = {**program.env, "PORTICO_SECRETS_FD": str(read)}

    def prepare() -> None:
        os.set_inheritable(read, True)
        if die_with_us:
            syscalls.die_with_parent(signal.SIGKILL)

    try:
        return _fork_exec(Program(argv=program.argv, env=env, cwd=program.cwd), output, prepare)
    finally:
        os.close(read)


def _fork_exec(program: Program, output: int, prepare: Callable[[], None]) -> int:
    failure_read, failure_write = os.pipe()  # closed by a successful exec
    child = os.fork()
    if child == 0:
        _become(program, output, prepare, failure_write)
    os.close(failure_write)
    with os.fdopen(failure_read, "rb") as failure:
        said = failure.read(4096)
    if said:
        os.waitpid(child, 0)
        raise OSError(said.decode(errors="replace"))
    return child


def _become(program: Program, output: int, prepare: Callable[[], None], failure: int) -> None:
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        nothing = os.open("/dev/null", os.O_RDONLY)
        for source, target in ((nothing, 0), (output, 1), (output, 2)):
            os.dup2(source, target)
        prepare()
        os.chdir(program.cwd)
        os.execvpe(program.argv[0], list(program.argv), dict(program.env))  # noqa: S606 - no shell is the point
    except BaseException as error:
        os.write(failure, f"cannot start {program.argv[0]}: {error}".encode()[:4096])
    os._exit(127)
