"""The agent's side of portico-init's channel: the tool, its root, its end, the logs.

`Keeper` outlives nothing: when the channel breaks, init is gone or has given us up, and the run is ending.
"""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from portico_agent.errors import InitGone, RootError, ToolError
from portico_agent.init.channel import MAX_LINE, Message, to_line
from portico_agent.overlay.root import RootSpec
from portico_shared.tasks import spawn


class Built(msgspec.Struct, frozen=True):
    """Where the tool's home and working folder are, in the tool's own eyes."""

    kind: str
    home: str
    workspace: str
    notes: tuple[str, ...] = ()


class ToolRecord(msgspec.Struct, frozen=True):
    """The tool as init knows it."""

    pid: int
    started: float
    state: str
    code: int | None = None
    note: Any = None

    @property
    def runs(self) -> bool:
        return self.state == "running"


class InitStatus(msgspec.Struct, frozen=True):
    agent: int
    stopping: bool
    logs: dict[str, int]
    built: Built | None = None
    tool: ToolRecord | None = None


@dataclass(frozen=True, slots=True)
class LogPiece:
    offset: int
    data: bytes


class Keeper:
    """Speaks to portico-init. Made by `connect_keeper`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._steps: dict[int, asyncio.Future[int]] = {}
        self._early_exits: dict[int, int] = {}
        self._number = 0
        self.stop_asked = asyncio.Event()
        """init was told to end from outside: checkpoint and leave."""
        self.tool_exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        """The tool's exit code; 128 + the signal's number for what was killed."""
        self._ended: asyncio.Future[None] | None = None
        self.gone = asyncio.Event()

    async def status(self) -> InitStatus:
        return msgspec.convert(await self._ask("status"), InitStatus)

    async def mount(self, root: RootSpec) -> Built:
        """Raises RootError with the system's own words."""
        try:
            return msgspec.convert((await self._ask("mount", root=root.to_json()))["built"], Built)
        except ToolError as error:
            raise RootError(f"the studio's root could not be made: {error}") from error

    async def start_tool(self, argv: Sequence[str], env: Mapping[str, str], cwd: str, note: Any) -> int:
        """Raises ToolError. `note` is found again in `status().tool` by the next agent."""
        reply = await self._ask("spawn", role="tool", argv=list(argv), env=dict(env), cwd=cwd, note=note)
        return int(reply["pid"])

    async def run_step(self, argv: Sequence[str], env: Mapping[str, str], cwd: str) -> int:
        """Run something in the tool's root to its end: its exit code. Output goes to the tool's log."""
        pid = int((await self._ask("spawn", role="step", argv=list(argv), env=dict(env), cwd=cwd))["pid"])
        if pid in self._early_exits:
            return self._early_exits.pop(pid)
        self._steps[pid] = asyncio.get_running_loop().create_future()
        return await self._steps[pid]

    async def signal_tool(self, number: signal.Signals) -> None:
        await self._ask("signal", number=int(number))

    async def end_tool(self, grace: float) -> None:
        """SIGTERM, `grace` seconds, then everything of the user's is killed. Returns when nothing of it is left."""
        if self._ended is None:
            self._ended = asyncio.get_running_loop().create_future()
        await self._ask("end", grace=grace)
        await asyncio.shield(self._ended)
        self._ended = None

    async def log(self, stream: str, offset: int) -> LogPiece:
        """What is kept of a log from `offset` on (or from the oldest byte kept), at most 64 KiB."""
        reply = await self._ask("log", stream=stream, offset=offset)
        return LogPiece(int(reply["offset"]), str(reply["text"]).encode("latin-1"))

    async def leave(self, code: int) -> None:
        """The run is over: init kills what is left and exits with `code`."""
        await self._ask("leave", code=code)

    def adopt_exit(self, code: int) -> None:
        """The tool had ended before this agent started."""
        if not self.tool_exited.done():
            self.tool_exited.set_result(code)

    async def _ask(self, do: str, **fields: Any) -> Message:
        if self.gone.is_set():
            raise InitGone("portico-init does not answer")
        self._number += 1
        number, future = self._number, asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            self._writer.write(to_line({"id": number, "do": do, **fields}))
            reply: Message = await future
        finally:
            self._waiting.pop(number, None)
        if not reply.get("ok"):
            raise ToolError(str(reply.get("error", "portico-init refused")))
        return reply

    async def listen(self) -> None:
        """Read until the channel breaks."""
        try:
            while line := await self._reader.readline():
                self._take(msgspec.json.decode(line, type=dict[str, Any]))
        except (OSError, ValueError):
            pass
        finally:
            self.gone.set()
            futures: list[asyncio.Future[Any]] = [*self._waiting.values(), *self._steps.values()]
            for future in [*futures, *([self._ended] if self._ended else [])]:
                if not future.done():
                    future.set_exception(InitGone("portico-init does not answer"))

    def _take(self, message: Message) -> None:
        match message.get("event"):
            case None:
                future = self._waiting.get(int(message.get("id") or 0))
                if future is not None and not future.done():
                    future.set_result(message)
            case "exited" if message["role"] == "tool":
                self.adopt_exit(int(message["code"]))
            case "exited":
                self._step_exited(int(message["pid"]), int(message["code"]))
            case "ended":
                if self._ended is not None and not self._ended.done():
                    self._ended.set_result(None)
            case "stop":
                self.stop_asked.set()

    def _step_exited(self, pid: int, code: int) -> None:
        future = self._steps.pop(pid, None)
        if future is None:
            self._early_exits[pid] = code
        elif not future.done():
            future.set_result(code)

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


@contextlib.asynccontextmanager
async def connect_keeper(path: Path) -> AsyncIterator[Keeper]:
    """Join init's channel. Raises InitGone when nobody listens."""
    try:
        reader, writer = await asyncio.open_unix_connection(str(path), limit=MAX_LINE)
    except OSError as error:
        raise InitGone(f"portico-init's channel {path} cannot be opened: {error}") from error
    keeper = Keeper(reader, writer)
    listening = spawn(keeper.listen(), name="init's channel")
    try:
        yield keeper
    finally:
        await keeper.close()
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
