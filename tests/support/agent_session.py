"""A session in this process: a real portico-init and a real tool below it, a gateway that checks signatures, and in
place of control road, tunnels and checkpoint engine, parts that write down what they are told."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from portico_agent.credential import Credential
from portico_agent.desk import Captured
from portico_agent.errors import CheckpointError
from portico_agent.gateway import GatewayClient
from portico_agent.keeper import Keeper
from portico_agent.parts import Parts
from portico_agent.session import Session
from portico_agent.settings import AgentSettings, Secrets
from portico_shared.clock import Clock, SystemClock
from portico_shared.messages import Answer, Command, Plan, Report, RestorePoint, Status
from support.agent_gateway import HOST, RUN, AgentGateway, agent_gateway, plan
from support.studio_init import Puppet, StudioInit, studio_init

SERVER = """
import http.server, os, signal, sys
def bye(*_):
    open(os.path.join(os.environ["HOME"], "saved"), "w").write("on the way out")
    print("bye", flush=True)
    os._exit(0)
signal.signal(signal.SIGTERM, bye)
print("listening, home is", os.environ["HOME"], flush=True)
port = int(os.environ["CONNECT_TOOL_PORT"])
http.server.HTTPServer(("127.0.0.1", port), http.server.SimpleHTTPRequestHandler).serve_forever()
"""
TOOL = (str(Path(sys.executable).resolve()), "-c", SERVER)  # the link to it may lie in /tmp: a studio has its own


@dataclass
class RecordingControl:
    """Keeps what it is told, as the control road does."""

    session: Session
    statuses: list[Status] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    _doing: set[asyncio.Task[None]] = field(default_factory=set)

    def publish_status(self, status: Status) -> None:
        self.statuses.append(status)
        self.news.set()

    def report(self, report: Report) -> None:
        self.reports.append(report)
        self.news.set()

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def leave(self, status: Status, *, timeout: float = 5.0) -> bool:
        self.publish_status(status)
        return True

    def command(self, command: Command) -> None:
        """Have it done, and keep the answer."""
        self._doing.add(asyncio.ensure_future(self._do(command)))

    async def _do(self, command: Command) -> None:
        self.answers.append(await self.session.on_command(command))
        self.news.set()


class NoDialer:
    async def run(self) -> None:
        await asyncio.Event().wait()


@dataclass
class FolderEngine:
    """Checkpoints are lists of what lies in the volume."""

    current: Path
    label: str = "folders"
    captures: list[tuple[str, int, list[str]]] = field(default_factory=list)
    restored: list[RestorePoint] = field(default_factory=list)
    failures: int = 0
    holds: asyncio.Event | None = None
    """A capture or restore waits for this."""
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    async def capture(self, reason: str, row: int) -> Captured:
        await self._pass()
        if self.failures:
            self.failures -= 1
            raise CheckpointError("the store is on fire")
        found = sorted(str(p.relative_to(self.current)) for p in self.current.rglob("*"))
        self.captures.append((reason, row, found))
        return Captured(head=f"head-{len(self.captures)}", uploaded=1)

    async def restore(self, point: RestorePoint, progress: Callable[[int, int], None]) -> str:
        progress(1, point.size)
        await self._pass()
        (self.current / "home").mkdir(exist_ok=True)
        (self.current / "home" / "restored").write_text(point.name)
        self.restored.append(point)
        return ""

    async def _pass(self) -> None:
        self.begun.set()
        if self.holds is not None:
            await self.holds.wait()


@dataclass
class Stage:
    """Everything around one session."""

    init: StudioInit
    server: AgentGateway
    engine: FolderEngine
    address: str
    settings: AgentSettings
    clock: Clock
    session: Session | None = None
    running: asyncio.Task[int] | None = None
    there: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def control(self) -> RecordingControl:
        assert self.session is not None
        control = self.session._control
        assert isinstance(control, RecordingControl)
        return control

    async def agent(self) -> Puppet:
        """Begin a session in the place of the agent that init started."""
        puppet = await self.init.agent()
        self.there.clear()
        self.running = asyncio.ensure_future(self._run(puppet))
        async with asyncio.timeout(20):
            await self.there.wait()
        return puppet

    async def _run(self, puppet: Puppet) -> int:
        found = json.loads(puppet.hello["secrets"])
        credential = Credential(RUN, Secrets(run_token=found["run_token"], seed=bytes(32)))
        keeper = Keeper(puppet.reader, puppet.writer)
        listening = asyncio.ensure_future(keeper.listen())
        parts = Parts(control=RecordingControl, dialer=lambda _: NoDialer(), engine=lambda *_: self.engine)
        try:
            async with GatewayClient(self.address, HOST, credential, clock=self.clock) as gateway:
                self.session = Session(self.settings, gateway, keeper, await keeper.status(), parts, self.clock)
                self.there.set()
                return await self.session.run()
        finally:
            puppet.writer.close()
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def until(self, wanted: Callable[[RecordingControl], Any], seconds: float = 20) -> Any:
        """Wait until what control heard satisfies `wanted`; its value."""
        async with asyncio.timeout(seconds):
            control = self.control
            while not (found := wanted(control)):
                assert self.running is not None and not self.running.done(), control.statuses[-1:]
                control.news.clear()
                await control.news.wait()
            return found

    async def until_up(self) -> Status:
        return await self.until(lambda c: next((s for s in c.statuses if s.tool == "up"), None))

    async def ended(self) -> int:
        assert self.running is not None
        async with asyncio.timeout(30):
            return await self.running


@contextlib.asynccontextmanager
async def stage(
    what: Plan | None = None, *, clock: Clock | None = None, root: str = "folders", **options: Any
) -> AsyncIterator[Stage]:
    """A portico-init without an agent yet, a gateway, a volume."""
    async with (
        studio_init(**options) as init,
        agent_gateway(init.folder, what or plan(command=TOOL)) as (server, address),
    ):
        settings = AgentSettings(
            run=RUN, gateway=address, host=HOST, state=init.folder / "state", volume=init.volume, root=root,  # type: ignore[arg-type]
            tools=init.folder / "tools", lower=("/",), log_level="info",
            secrets=Secrets(run_token="the-run-token", seed=bytes(32)),
        )  # fmt: skip
        made = Stage(init, server, FolderEngine(init.volume / "current"), address, settings, clock or SystemClock())
        try:
            yield made
        finally:
            if made.running is not None and not made.running.done():
                made.running.cancel()
                await asyncio.gather(made.running, return_exceptions=True)


def home_of(stage: Stage) -> Path:
    return stage.settings.current / "home"


__all__ = ["TOOL", "FolderEngine", "RecordingControl", "Stage", "home_of", "plan", "stage"]
