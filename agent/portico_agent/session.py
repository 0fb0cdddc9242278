"""One agent's life, from its first call to its last, readable top to bottom.

    identify   who we are: the run's key, proven                              _identify
    prepare    the volume; a checkpoint restored into it, or what it holds     _open_volume, _fill
               salvaged; or the running tool of the agent before us adopted
    launch     the tool's root, then the tool                                  _start_tool
    dial       tunnels for people, MQTT for control: from the first moment     run
    watch      the tool, its port, its log, the disk, the checkpoints          _watch
    leave      tool ended, last checkpoint, last word                          _leave

The tool belongs to portico-init: this agent may die anywhere above, and its successor goes on from what it finds.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable
from typing import Any

from portico_agent.board import Board
from portico_agent.desk import Desk
from portico_agent.errors import AgentError, CheckpointError, GatewayError, InitGone, RunOver, ToolError
from portico_agent.gateway import GatewayClient
from portico_agent.keeper import InitStatus, Keeper, ToolRecord
from portico_agent.logship import LogShipper
from portico_agent.overlay.reserve import hold_reserve
from portico_agent.overlay.volume import Volume, personalise, prepare_volume, root_spec
from portico_agent.parts import CheckpointEngine, Leaving, Outcome, Parts
from portico_agent.readiness import free_port, until_answering
from portico_agent.settings import AgentSettings
from portico_agent.tools.choose import choose_tool
from portico_agent.tools.tool import Launch, Site
from portico_agent.watch import first_checkpoint, first_failure, watch_disk
from portico_shared.clock import Clock
from portico_shared.messages import (
    Answer,
    Command,
    MakeCheckpoint,
    Plan,
    Reidentify,
    RestorePoint,
    Stop,
    Warning_,
)

LAST_WORDS = 2000
IDENTIFY_PATIENCE = 20.0
"""Seconds a stop waits for the gateway to answer: without it no last checkpoint can be made."""
UNHEARD_GRACE = 30.0
"""Seconds a tool has to end when no plan could be had that says so."""
LAST_CALL_SECONDS = 10.0
"""What a leaving agent gives the control road to deliver its last status."""
EXIT_LEFT, EXIT_FAILED, EXIT_OVER = 0, 1, 2

_log = logging.getLogger(__name__)


class Session:
    """`await run()`: the exit code for portico-init. One per agent process."""

    def __init__(
        self,
        settings: AgentSettings,
        gateway: GatewayClient,
        keeper: Keeper,
        status: InitStatus,
        parts: Parts,
        clock: Clock,
    ) -> None:
        self.settings = settings
        self.gateway = gateway
        self.clock = clock
        self._keeper = keeper
        self._found = status
        self._parts = parts
        self.agent = status.agent
        self._control = parts.control(self)
        self.board = Board(settings.run, status.agent, clock, self._control)
        self._desk: Desk | None = None
        self._volume: Volume | None = None
        self._plan: Plan
        self._engine: CheckpointEngine
        self._port = 0
        self.tool_pid = 0
        """The running tool's process; 0 = none."""
        self._launched = status.built is not None
        """A root stands on the volume: user code has or may have written there."""
        self._leaving: asyncio.Future[Leaving] = asyncio.get_running_loop().create_future()
        self._outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    # --- the whole of it ----------------------------------------------------------------------------------------------

    async def run(self) -> int:
        if self._found.stopping:
            self._keeper.stop_asked.set()
        try:
            leaving = await self._until_leaving(self._identify(), patience=IDENTIFY_PATIENCE)
        except GatewayError as error:
            _log.error("the gateway does not take this run: %s", error)
            return await self._tell_init(EXIT_OVER)
        if leaving is not None:
            return await self._leave_unheard()
        async with asyncio.TaskGroup() as roads:
            control = roads.create_task(self._control.run(), name="control road")
            dialer = roads.create_task(self._parts.dialer(self).run(), name="tunnels")
            code = await self._live()
            if code != EXIT_OVER:
                await self._say_goodbye()
            control.cancel()
            dialer.cancel()
        return await self._tell_init(code)

    async def _live(self) -> int:
        """From preparing to leaving; failures of ours end the run in order, with words."""
        try:
            await self._open_volume()
            leaving = await self._until_leaving(self._bring_up()) or await self._until_leaving(self._watch())
            return await self._leave(leaving or Leaving("stop"))
        except RunOver as over:
            _log.warning("the gateway has ended this run: %s", over)
            return EXIT_OVER
        except AgentError as error:
            _log.exception("the run ends: %s", error)
            self._end(Outcome(problem=str(error)[:LAST_WORDS]))
            return EXIT_FAILED

    async def _until_leaving(self, work: Awaitable[None], *, patience: float = 0.0) -> Leaving | None:
        """Do some work unless we are asked to leave; what it began is cancelled then, after so many seconds.
        None = the work is done."""
        task = asyncio.ensure_future(work)
        gone, stop, over = (
            asyncio.ensure_future(event.wait())
            for event in (self._keeper.gone, self._keeper.stop_asked, self.gateway.over)
        )
        try:
            anything: list[asyncio.Future[Any]] = [task, gone, stop, over, self._leaving]
            await asyncio.wait(anything, return_when=asyncio.FIRST_COMPLETED)
            if patience:
                await asyncio.wait([task, gone, over], timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            if over.done():
                raise RunOver("the gateway has ended this run")
            if gone.done():
                raise InitGone("It ended unexpectedly: its first process, portico-init, is gone")
            if task.done():
                task.result()
                return None
            return self._leaving.result() if self._leaving.done() else Leaving("signal")
        finally:
            for each in (task, gone, stop, over):
                each.cancel()
            await asyncio.gather(task, gone, stop, over, return_exceptions=True)

    def allowed(self, port: int) -> bool:
        """Whether people may be led to this port: the tool's alone."""
        return port == self._port != 0

    # --- identify -----------------------------------------------------------------------------------------------------

    async def _identify(self) -> None:
        await self.gateway.identify()
        self._plan = await self.gateway.plan()

    async def _leave_unheard(self) -> int:
        """Told to leave before the gateway answered: no checkpoint can be made, the volume keeps everything."""
        if self._launched:
            await self._keeper.end_tool(UNHEARD_GRACE)
        return await self._tell_init(EXIT_FAILED)

    # --- prepare and launch -------------------------------------------------------------------------------------------

    async def _open_volume(self) -> None:
        """Quick, and never cut short: whatever happens next, what lies in the volume can be saved."""
        if self.settings.root == "none":
            return
        self.board.enter("preparing")
        await self._step("preparing", self._make_desk())
        if self._found.tool is not None:
            self._adopt(self._found.tool)

    async def _make_desk(self) -> str:
        self._volume = await asyncio.to_thread(prepare_volume, self.settings, keep_tmp=self._launched)
        self._engine = self._parts.engine(self, self._plan, self._volume)
        self._desk = Desk(self._engine, self.board, self.clock)
        self.board.set(root=self._engine.label)
        return ""

    async def _bring_up(self) -> None:
        if self.settings.root == "none":
            self._set_port(self._plan.tool_port)
            self.board.set(tool="starting")
            return
        if not self._launched:
            await self._fill(self._plan)
        if self._found.tool is None:
            self.board.enter("launching", self._plan.tool)
            await self._step("launching", self._start_tool(self._plan))

    async def _fill(self, plan: Plan) -> None:
        """What is to be in the volume. It is not touched any more once a root stands on it."""
        assert self._volume is not None and self._desk is not None
        if plan.salvage:
            await self._step("restoring", self._salvage(self._desk))
        elif plan.restore is not None:
            await self._step("restoring", self._restore(self._engine, plan.restore))
            await asyncio.to_thread(prepare_volume, self.settings, keep_tmp=True)
        await asyncio.to_thread(personalise, self._volume, forked=plan.forked and not plan.salvage)
        await asyncio.to_thread(hold_reserve, self._volume)

    async def _salvage(self, desk: Desk) -> str:
        self.board.enter("restoring", "saving what the last run left behind")
        await desk.make("salvage")
        return "what the last run left behind is saved"

    async def _restore(self, engine: CheckpointEngine, point: RestorePoint) -> str:
        self.board.enter("restoring", point.name)
        words = await engine.restore(point, lambda done, total: self.board.set(done=done, total=total))
        if words:
            self.warn("storage", words)
        return words or point.name

    async def _start_tool(self, plan: Plan) -> str:
        assert self._volume is not None
        built = await self._keeper.mount(await asyncio.to_thread(root_spec, self.settings, self._volume))
        self._launched = True
        for words in built.notes:
            _log.info("root: %s", words)
        tool, port = choose_tool(plan.tool), plan.tool_port or free_port()
        site = Site(
            port=port,
            home=built.home,
            workspace=built.workspace,
            tools=self.settings.tools,
            whole_root=built.kind == "overlay",
            environment={**self.settings.reaching_out, **plan.environment},
            command=plan.command,
        )
        for step in tool.prepare(site):
            await self._run_step(step)
        launch = tool.launch(site)
        note: dict[str, Any] = {"port": port, "probe": tool.probe_path}
        self.tool_pid = await self._keeper.start_tool(launch.argv, launch.env, launch.cwd, note)
        self._set_port(port)
        self.board.set(phase="running", detail="", tool="starting")
        return ""

    async def _run_step(self, step: Launch) -> None:
        code = await self._keeper.run_step(step.argv, step.env, step.cwd)
        if code != 0:
            raise ToolError(f"preparing the tool failed (exit code {code}): {await self._last_lines()}")

    def _adopt(self, tool: ToolRecord) -> None:
        """The tool of the agent before us."""
        note = tool.note if isinstance(tool.note, dict) else {}
        self._set_port(int(note.get("port", 0)))
        if not tool.runs:
            self._keeper.adopt_exit(tool.code or 0)
        self.tool_pid = tool.pid if tool.runs else 0
        self.board.set(phase="running", tool="starting")
        _log.info("agent %d adopted the running tool (pid %d)", self._found.agent, tool.pid)

    def _set_port(self, port: int) -> None:
        self._port = port
        self.board.set(tool_port=port)

    # --- watch --------------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Everything that goes on while people work. Ends only by being cancelled."""
        if self.settings.root == "none":
            self.board.enter("running")
            await self._watch_port(self._probe_path())
            await asyncio.Event().wait()
        with first_failure():
            async with asyncio.TaskGroup() as group:
                self._start_watching(group)

    def _start_watching(self, group: asyncio.TaskGroup) -> None:
        assert self._desk is not None and self._volume is not None
        ready = group.create_task(self._watch_port(self._probe_path()), name="tool's port")
        group.create_task(self._watch_tool(), name="tool's end")
        group.create_task(LogShipper("tool", self._keeper, self.gateway).follow(self.clock), name="log")
        group.create_task(watch_disk(self._volume, self.warn, self.clock), name="disk")
        group.create_task(self._desk.every(self._plan.checkpoint_interval), name="checkpoints")
        if self._found.tool is None:
            group.create_task(first_checkpoint(self._desk, ready, self.clock), name="first checkpoint")

    async def _watch_port(self, path: str) -> None:
        await until_answering(self._port, path, self.clock)
        if not self._keeper.tool_exited.done():
            self.board.set(tool="up")

    async def _watch_tool(self) -> None:
        """The tool ended by itself: say so; what becomes of the run is the gateway's to decide."""
        code = await asyncio.shield(self._keeper.tool_exited)
        self.tool_pid = 0
        self.board.set(tool="exited", exit_code=code, detail=await self._last_lines())

    def _probe_path(self) -> str:
        tool = self._found.tool
        if tool is not None and isinstance(tool.note, dict):
            return str(tool.note.get("probe", "/"))
        return "/" if self.settings.root == "none" else choose_tool(self._plan.tool).probe_path

    # --- commands -----------------------------------------------------------------------------------------------------

    async def on_command(self, command: Command) -> Answer:
        """Do one command of the gateway's: the answer is its outcome, however long that takes."""
        match command:
            case Stop():
                return await self._on_stop(command)
            case MakeCheckpoint():
                return await self._on_checkpoint(command)
            case Reidentify():
                self.board.tell()
                return Answer(id=command.id, run=self.settings.run, ok=True)

    async def _on_stop(self, command: Stop) -> Answer:
        if not self._leaving.done():
            self._leaving.set_result(Leaving("stop", command.grace))
        outcome = await asyncio.shield(self._outcome)
        ok = not outcome.problem
        return Answer(id=command.id, run=self.settings.run, ok=ok, detail=outcome.problem, head=outcome.head)

    async def _on_checkpoint(self, command: MakeCheckpoint) -> Answer:
        run = self.settings.run
        if self._desk is None or self.board.status.phase != "running":
            return Answer(id=command.id, run=run, ok=False, detail="nothing to save yet: try again when it runs")
        try:
            captured = await self._desk.make(command.reason, command.row)
        except AgentError as error:
            return Answer(id=command.id, run=run, ok=False, detail=str(error)[:LAST_WORDS])
        return Answer(id=command.id, run=run, ok=True, head=captured.head)

    # --- leave --------------------------------------------------------------------------------------------------------

    async def _leave(self, leaving: Leaving) -> int:
        """1. the tool ends and may save  2. the rest of its log  3. the last checkpoint  4. the last word."""
        outcome = Outcome()
        self.board.enter("stopping")
        if self._launched:  # else the volume may hold half a restore, and nothing of the user's
            await self._keeper.end_tool(self._plan.grace if leaving.grace is None else leaving.grace)
            self.tool_pid = 0
            await self._flush_log()
            outcome = await self._save_last(leaving.reason)
        self._end(outcome)
        return EXIT_FAILED if outcome.problem else EXIT_LEFT

    async def _save_last(self, reason: str) -> Outcome:
        """Where it fails the volume stays, and is salvaged at the next start."""
        assert self._desk is not None
        try:
            return Outcome(head=(await self._desk.make_final(reason)).head)
        except CheckpointError as error:
            words = f"The final checkpoint failed: {error}. The studio's disk is kept and saved at its next start."
            return Outcome(problem=words[:LAST_WORDS])

    def _end(self, outcome: Outcome) -> None:
        if not self._outcome.done():
            self._outcome.set_result(outcome)
        self.board.set(phase="left", detail=outcome.problem)

    async def _flush_log(self) -> None:
        try:
            async with asyncio.timeout(LAST_CALL_SECONDS):
                await LogShipper("tool", self._keeper, self.gateway).ship()
        except (TimeoutError, AgentError) as error:
            _log.warning("the end of the tool's log was not sent: %s", error)

    async def _say_goodbye(self) -> None:
        await asyncio.sleep(0)  # whoever waits for the outcome answers first
        if not await self._control.leave(self.board.status, timeout=LAST_CALL_SECONDS):
            _log.warning("the last words did not reach the gateway")

    async def _tell_init(self, code: int) -> int:
        with contextlib.suppress(InitGone):
            await self._keeper.leave(code)
        return code

    # --- words --------------------------------------------------------------------------------------------------------

    async def _step(self, name: str, work: Awaitable[str]) -> None:
        """Report a piece of work people wait for."""
        self.board.step(name, "started")
        try:
            detail = await work
        except AgentError as error:
            self.board.step(name, "failed", str(error)[:LAST_WORDS])
            raise
        self.board.step(name, "done", detail)

    def warn(self, kind: str, words: str) -> None:
        """Tell people of trouble that the studio goes on with."""
        self.board.report(Warning_(run=self.settings.run, at=self.clock.now(), kind=kind, detail=words))  # type: ignore[arg-type]

    async def _last_lines(self) -> str:
        """What the tool said last, for whoever has to find out why."""
        end = (await self._keeper.status()).logs.get("tool", 0)
        piece = await self._keeper.log("tool", max(0, end - LAST_WORDS))
        lines = piece.data.decode(errors="replace").strip().splitlines()
        return "\n".join(lines[-12:])
