"""A real portico-init under test, with a puppet in the agent's place.

The puppet joins init's channel to a socket of the test: `Puppet.ask({...})` speaks to init as its agent would. With
`namespaced=True` init is PID 1 of namespaces of its own, with a tmpfs as volume.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
import struct
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]

PUPPET = """
import json, os, socket, sys, threading
secrets = os.read(int(os.environ["PORTICO_SECRETS_FD"]), 65536).decode()
init, test = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
init.connect(os.path.join(os.environ["PORTICO_STATE"], "init.sock"))
test.connect(sys.argv[1])
hello = {"pid": os.getpid(), "secrets": secrets, "environ": dict(os.environ)}
test.sendall(json.dumps(hello).encode() + b"\\n")
print("puppet", os.getpid(), flush=True)
def pump(source, target):
    while data := source.recv(65536):
        target.sendall(data)
    os._exit(0)
threading.Thread(target=pump, args=(test, init), daemon=True).start()
pump(init, test)
"""


@dataclass
class Puppet:
    """One start of the agent, seen from the test."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    pid: int
    """As this test's process sees it."""
    hello: dict[str, Any]
    events: list[dict[str, Any]] = field(default_factory=list)
    _number: int = 0

    async def ask(self, do: str, **fields: Any) -> dict[str, Any]:
        self._number += 1
        self.writer.write(json.dumps({"id": self._number, "do": do, **fields}).encode() + b"\n")
        await self.writer.drain()
        while True:
            message = await self._next()
            if message.get("id") == self._number:
                return message
            self.events.append(message)

    async def event(self, name: str, wanted: Callable[[dict[str, Any]], bool] = lambda _: True) -> dict[str, Any]:
        while True:
            for index, message in enumerate(self.events):
                if message.get("event") == name and wanted(message):
                    return self.events.pop(index)
            self.events.append(await self._next())

    async def run(self, *argv: str, root_env: dict[str, str] | None = None, cwd: str = "/") -> tuple[int, str]:
        """Run user code to its end: (exit code, what it wrote)."""
        before = (await self.ask("status"))["logs"]["tool"]
        started = await self.ask("spawn", role="step", argv=argv, env=root_env or {"PATH": os.environ["PATH"]}, cwd=cwd)
        assert started["ok"], started
        ended = await self.event("exited", lambda e: e["pid"] == started["pid"])
        return ended["code"], (await self.ask("log", stream="tool", offset=before))["text"]

    async def log_holds(self, text: str, stream: str = "tool") -> str:
        """The log, once `text` is in it."""
        async with asyncio.timeout(20):
            while text not in (found := (await self.ask("log", stream=stream, offset=0))["text"]):  # noqa: ASYNC110
                await asyncio.sleep(0.01)  # init answers when asked, it does not announce output
        return str(found)

    async def _next(self) -> dict[str, Any]:
        async with asyncio.timeout(20):
            line = await self.reader.readline()
        if not line:
            raise EOFError("the puppet is gone")
        return dict(json.loads(line))


@dataclass
class StudioInit:
    process: asyncio.subprocess.Process
    pid: int
    """init's own, as this test's process sees it."""
    folder: Path
    volume: Path
    _arrivals: asyncio.Queue[Puppet]

    async def agent(self) -> Puppet:
        """The next start of the agent."""
        async with asyncio.timeout(20):
            return await self._arrivals.get()

    async def exit_code(self) -> int:
        async with asyncio.timeout(30):
            return await self.process.wait()

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def overlay_root(self, **changes: Any) -> dict[str, Any]:
        spec = {
            "kind": "overlay",
            "staging": str(self.volume / "staging"),
            "lower": ["/"],
            "upper": str(self.volume / "current/upper"),
            "work": str(self.volume / "current/work"),
            "tmp": str(self.volume / "tmp"),
            "binds": [],
            "files": [],
            "hide": [],
        }
        return {**spec, **changes}


PLAIN_ROOT = {"kind": "none", "lower": ["/"], "binds": [], "files": [], "hide": []}


@contextlib.asynccontextmanager
async def studio_init(
    *,
    namespaced: bool = False,
    agent: tuple[str, ...] = (),
    environment: dict[str, str] | None = None,
) -> AsyncIterator[StudioInit]:
    """Start it, and see to it that nothing of it is left."""
    with tempfile.TemporaryDirectory(prefix="ptc-init-") as name:
        folder = Path(name)
        arrivals: asyncio.Queue[Puppet] = asyncio.Queue()
        writers: list[asyncio.StreamWriter] = []

        async def arrive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            await _arrive(reader, writer, arrivals)

        server = await asyncio.start_unix_server(arrive, str(folder / "test.sock"), limit=2**21)
        (folder / "puppet.py").write_text(PUPPET)
        (folder / "volume").mkdir()
        command = agent or (sys.executable, str(folder / "puppet.py"), str(folder / "test.sock"))
        process = await asyncio.create_subprocess_exec(
            *_boot(folder / "volume", namespaced),
            *(sys.executable, "-m", "portico_agent.init", *command),
            env=_environment(folder, environment or {}),
            stdout=asyncio.subprocess.DEVNULL,
        )
        pid = await _init_pid(process.pid) if namespaced else process.pid
        try:
            yield StudioInit(process, pid, folder, folder / "volume", arrivals)
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                await process.wait()
            server.close()
            for writer in writers:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()


def _boot(volume: Path, namespaced: bool) -> tuple[str, ...]:
    if not namespaced:
        return ()
    make = (
        f"mount -t tmpfs -o size=512m tmpfs {volume} && cd {volume} && mkdir -p current/upper current/work tmp staging"
        ' && chmod 1777 tmp && cd / && exec "$@"'
    )
    return ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", make, "sh")


def _environment(folder: Path, extra: dict[str, str]) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{REPOSITORY / 'agent'}:{REPOSITORY / 'shared'}",
        "PORTICO_STATE": str(folder / "state"),
        "PORTICO_VOLUME": str(folder / "volume"),
        "PORTICO_RUN_TOKEN": "the-run-token",
        "SECRET_OF_THE_MACHINE": "not for agents",
        **extra,
    }


async def _init_pid(unshare: int) -> int:
    """unshare's one child; it exists as soon as unshare has forked."""
    async with asyncio.timeout(10):
        while True:
            children = Path(f"/proc/{unshare}/task/{unshare}/children").read_text().split()
            if children:
                return int(children[0])
            await asyncio.sleep(0.01)


async def _arrive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, arrivals: asyncio.Queue[Puppet]) -> None:
    end: socket.socket = writer.get_extra_info("socket")
    pid = struct.unpack("3i", end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    hello = json.loads(await reader.readline())
    await arrivals.put(Puppet(reader, writer, pid, hello))


def alive(pid: int) -> bool:
    """Whether a process lives and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
