"""`portico up`: a tiny supervisor that owns the listening sockets and keeps control and edge worker running.

    portico up ── control   UI, API, lifecycle, broker; may restart, studios do not notice
              └── worker    the edge: every client connection and every tunnel

The sockets are opened here once and inherited, so neither a restart of the worker nor a crash closes the queue of
waiting connections. Studios are nobody's children here: they live on when all of this ends.

    Ctrl-C (SIGINT)   stop every studio with a final checkpoint, then end
    SIGTERM           end, studios live on; the next `portico up` finds them
"""

import asyncio
import contextlib
import ctypes
import fcntl
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from portico_gateway.errors import Conflict, Unavailable
from portico_gateway.settings import Settings, to_environment
from portico_shared.backoff import Backoff

DRAIN_SECONDS = 35.0
"""A little more than the worker's own drain limit of 30 s."""
READY_SECONDS = 60.0
LOG_BYTES = 32 * 1024 * 1024
_PR_SET_PDEATHSIG = 1
_SECRETS = ("PORTICO_S3_ACCESS_KEY", "PORTICO_S3_SECRET_KEY", "PORTICO_BOOTSTRAP_TOKEN", "PORTICO_DATABASE")

Say = Callable[[str], None]


def _is_secret(variable: str) -> bool:
    """Only control opens the checkpoint store and the database; the usual chain of keys to S3 is AWS_…"""
    return variable in _SECRETS or variable.startswith("AWS_")


@dataclass(slots=True)
class Child:
    """One supervised process; `process` is its present incarnation."""

    name: str
    argv: tuple[str, ...]
    environment: dict[str, str]
    fds: tuple[int, ...] = ()
    process: asyncio.subprocess.Process | None = None
    starts: int = 0
    backoff: Backoff = field(default_factory=lambda: Backoff(base=0.2, cap=5.0))


class Supervisor:
    """Runs until told to end. `say` receives the lines meant for the person at the terminal."""

    def __init__(self, settings: Settings, say: Say) -> None:
        self.settings = settings
        self.say = say
        self._leaving = asyncio.Event()
        self._stop_studios = False
        self._welcomed = False

    async def run(self) -> int:
        """Start everything, wait for the end, take it down in order. Returns the exit status."""
        prepare_folders(self.settings)
        with (
            single_instance(self.settings),
            listening_sockets(self.settings) as sockets,
            log_file(self.settings.data / "portico.log") as log,
        ):
            control, worker = self._children(sockets)
            async with self._signals():
                async with asyncio.TaskGroup() as group:
                    keepers = [group.create_task(self._keep(child, log)) for child in (control, worker)]
                    group.create_task(self._welcome(control))
                    await self._leaving.wait()
                    await self._take_down(control, worker)
                    for keeper in keepers:
                        keeper.cancel()
        return 0

    # --- children -----------------------------------------------------------------------------------------------

    def _children(self, sockets: list[socket.socket]) -> tuple[Child, Child]:
        environment = {**os.environ, **to_environment(self.settings)}
        edge_environment = {key: value for key, value in environment.items() if not _is_secret(key)}
        fds = tuple(s.fileno() for s in sockets)
        edge_environment["PORTICO_FDS"] = ",".join(str(fd) for fd in fds)
        python = (sys.executable, "-m")
        control = Child("control", (*python, "portico_gateway.control"), environment)
        worker = Child("worker", (*python, "portico_gateway.worker"), edge_environment, fds)
        return control, worker

    async def _keep(self, child: Child, log: IO[bytes]) -> None:
        """Start the child again whenever it ends, until we are leaving. Its log goes to a file: the terminal is for
        what a person needs to read."""
        while not self._leaving.is_set():
            began = time.monotonic()
            child.process = await asyncio.create_subprocess_exec(
                *child.argv, env=child.environment, pass_fds=child.fds, stderr=log, preexec_fn=_die_with_parent
            )
            child.starts += 1
            status = await child.process.wait()
            if self._leaving.is_set():
                return
            if time.monotonic() - began > 30:
                child.backoff.reset()
            delay = child.backoff.next_delay()
            self.say(f"{child.name} ended ({_how(status)}); starting it again")
            await asyncio.sleep(delay)

    async def _take_down(self, control: Child, worker: Child) -> None:
        """1. studios (when asked)  2. control  3. worker, which drains."""
        if self._stop_studios:
            self.say("Stopping studios: final checkpoints first. Ctrl-C again leaves them running.")
            _send(control, signal.SIGUSR1)
        else:
            _send(control, signal.SIGTERM)
        await self._ended(control, limit=None if self._stop_studios else DRAIN_SECONDS)
        _send(worker, signal.SIGTERM)
        await self._ended(worker, limit=DRAIN_SECONDS)

    async def _ended(self, child: Child, limit: float | None) -> None:
        if child.process is None:
            return
        try:
            async with asyncio.timeout(limit):
                await child.process.wait()
        except TimeoutError:
            self.say(f"{child.name} did not end within {limit:.0f} s; killed")
            with contextlib.suppress(ProcessLookupError):
                child.process.kill()
            await child.process.wait()

    # --- the person at the terminal -------------------------------------------------------------------------------

    async def _welcome(self, control: Child) -> None:
        """Say where Portico is once it answers; the first time with the one-use link."""
        try:
            async with asyncio.timeout(READY_SECONDS):
                while not await is_ready(self.settings.run_dir / "public" / "edge.sock", self.settings.host):  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
        except TimeoutError:
            self.say(
                f"Portico did not become ready within {READY_SECONDS:.0f} s: "
                f"{self.settings.data}/portico.log says why, `portico doctor` what is missing"
            )
            return
        link = _welcome_link(self.settings.run_dir / "welcome.json")
        if link:
            self.say(f"Portico is up. Sign in as its first administrator (this link works once):\n\n    {link}\n")
        else:
            self.say(f"Portico is up:\n\n    {self.settings.base_url}/\n")
        self.say(
            f"Ctrl-C stops the studios with a final checkpoint, then Portico. Log: {self.settings.data}/portico.log"
        )

    @contextlib.asynccontextmanager
    async def _signals(self) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self._on_interrupt)
        loop.add_signal_handler(signal.SIGTERM, self._leaving.set)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGINT)
            loop.remove_signal_handler(signal.SIGTERM)

    def _on_interrupt(self) -> None:
        if self._leaving.is_set():
            (self.settings.run_dir / "leave-studios").touch()
            return
        self._stop_studios = True
        self._leaving.set()


def _die_with_parent() -> None:
    """In the child: end when the supervisor ends, and leave Ctrl-C to it (a group of its own)."""
    os.setpgid(0, 0)
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def _send(child: Child, number: signal.Signals) -> None:
    if child.process is not None:
        with contextlib.suppress(ProcessLookupError):
            child.process.send_signal(number)


def _how(status: int) -> str:
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"


def prepare_folders(settings: Settings) -> None:
    """The data folder, closed to others but for the one socket that studios may see."""
    try:
        for folder, mode in ((settings.data, 0o700), (settings.run_dir, 0o711), (settings.run_dir / "public", 0o711)):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(mode)
    except OSError as error:
        raise Unavailable(
            f"cannot use the data folder {settings.data}: {error.strerror}; choose another with --data"
        ) from error
    longest = str(settings.run_dir / "public" / "edge.sock")
    if len(longest) > 100:
        raise Unavailable(f"the data folder's path is too long for a Unix socket ({longest}): choose a shorter --data")


@contextlib.contextmanager
def single_instance(settings: Settings) -> Iterator[IO[str]]:
    """Hold the data folder's lock. Raises Conflict while another Portico uses it."""
    with (settings.run_dir / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Conflict(
                f"another Portico is using {settings.data}; stop it, or choose another folder with --data"
            ) from None
        yield lock


@contextlib.contextmanager
def log_file(path: Path) -> Iterator[IO[bytes]]:
    """What control and worker log, appended; a large one is put aside first, the one before it is dropped."""
    if path.exists() and path.stat().st_size > LOG_BYTES:
        path.replace(path.with_suffix(".log.1"))
    with path.open("ab") as log:
        path.chmod(0o600)
        yield log


@contextlib.contextmanager
def listening_sockets(settings: Settings) -> Iterator[list[socket.socket]]:
    """The public port and the Unix socket that studios on this machine dial."""
    path = settings.run_dir / "public" / "edge.sock"
    sockets: list[socket.socket] = []
    try:
        family = socket.AF_INET6 if ":" in settings.listen_host else socket.AF_INET
        public = socket.socket(family)
        sockets.append(public)
        public.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            public.bind((settings.listen_host, settings.listen_port))
        except OSError as error:
            raise Conflict(
                f"cannot listen on {settings.listen}: {error.strerror}; choose another with --listen"
            ) from error
        path.unlink(missing_ok=True)
        private = socket.socket(socket.AF_UNIX)
        sockets.append(private)
        private.bind(str(path))
        path.chmod(0o666)  # the folder above decides who gets here; inside a studio the agent may be any user
        for listener in sockets:
            listener.listen(4096)
            listener.setblocking(False)
        yield sockets
    finally:
        for listener in sockets:
            listener.close()
        path.unlink(missing_ok=True)


async def is_ready(edge_socket: Path, host: str) -> bool:
    """Whether `GET /readyz` answers 200 on the edge's socket."""
    try:
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_unix_connection(str(edge_socket))
            try:
                writer.write(f"GET /readyz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                return (await reader.readline()).startswith(b"HTTP/1.1 200")
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False


def _welcome_link(file: Path) -> str:
    try:
        return str(json.loads(file.read_text()).get("url") or "")
    except (OSError, ValueError):
        return ""
