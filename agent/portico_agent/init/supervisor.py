"""portico-init's one loop: children, signals, the channel to the agent, the logs, the way out.

Everything that changes lives in `Init`; nothing here waits for anything but the next event.
"""

import contextlib
import errno
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable
from typing import Any, ClassVar

from portico_agent.init import channel, processes, spawn
from portico_agent.init.configuration import Configuration
from portico_agent.init.outputs import PIECE, Outputs
from portico_agent.init.restarts import Restarts
from portico_agent.init.tool import Child, Ending, EndStage
from portico_agent.overlay.root import RootSpec
from portico_agent.overlay.syscalls import become_subreaper, hide_process

EXIT_HOPELESS = 70
EXIT_KILLED = 75
"""init's exit code when the agent did not finish within the stop deadline."""
AGENT_LEAVING_SECONDS = 5.0


class Init:
    """Owns every process of the run. `run()` returns the exit code."""

    def __init__(self, configuration: Configuration, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.configuration = configuration
        self._monotonic = monotonic
        self._is_first = os.getpid() == 1
        self._selector = selectors.DefaultSelector()
        self._outputs = Outputs(configuration.state, self._selector)
        # the agent
        self._agent_pid = 0
        self._restarts = Restarts()
        self._connection: channel.Connection | None = None
        # the tool
        self._root: spawn.TargetRoot | None = None
        self._root_spec: RootSpec | None = None
        self._tool: Child | None = None
        self._steps: dict[int, Child] = {}
        self._ending: Ending | None = None
        # the way out
        self._stop_deadline: float | None = None
        self._leave_deadline: float | None = None
        self._exit_code: int | None = None
        self._done = False

    # --- life -------------------------------------------------------------------------------------------------------

    def run(self) -> int:
        hide_process()
        if not self._is_first:
            become_subreaper()
        signals_read, signals_write = socket.socketpair()
        listener = channel.listen(self.configuration.socket)
        try:
            self._take_signals(signals_read, signals_write)
            self._selector.register(listener, selectors.EVENT_READ, lambda: self._accept(listener))
            while not self._done:
                self._turn()
        finally:
            signal.set_wakeup_fd(-1)
            for end in (signals_read, signals_write, listener):
                end.close()
            self._drop_connection()
            self._selector.close()
            self.configuration.socket.unlink(missing_ok=True)
        return self._exit_code or 0

    def _take_signals(self, read: socket.socket, write: socket.socket) -> None:
        read.setblocking(False)
        write.setblocking(False)
        signal.set_wakeup_fd(write.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, lambda _number, _frame: None)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        self._selector.register(read, selectors.EVENT_READ, lambda: self._on_signals(read))

    def _turn(self) -> None:
        self._advance()
        if self._done:
            return
        for key, _ in self._selector.select(self._seconds_to_wait()):
            key.data()

    def _seconds_to_wait(self) -> float | None:
        ending = self._ending.deadline if self._ending else None
        due = [t for t in (self._restarts.due, ending, self._stop_deadline, self._leave_deadline) if t is not None]
        return max(0.0, min(due) - self._monotonic()) if due else None

    def _advance(self) -> None:
        """Whatever is due by the clock."""
        now = self._monotonic()
        if self._restarts.due is not None and now >= self._restarts.due:
            self._start_agent(now)
        if self._stop_deadline is not None and now >= self._stop_deadline:
            self._leave(EXIT_KILLED)
        self._advance_ending(now)
        if self._leave_deadline is not None and now >= self._leave_deadline:
            self._kill_everything()

    # --- signals and children ---------------------------------------------------------------------------------------

    def _on_signals(self, read: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            for number in set(read.recv(4096)):
                if number in (signal.SIGTERM, signal.SIGINT):
                    self._on_stop(signal.Signals(number).name)
        self._reap()

    def _on_stop(self, reason: str) -> None:
        """Asked to end from outside: the agent checkpoints and says `leave`, or its time runs out."""
        if self._stop_deadline is None and self._exit_code is None:
            self._stop_deadline = self._monotonic() + self.configuration.stop_seconds
            self._tell({"event": "stop", "reason": reason, "seconds": self.configuration.stop_seconds})

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self._no_children_left()
                return
            if pid == 0:
                return
            self._on_exit(pid, _exit_code(status))

    def _on_exit(self, pid: int, code: int) -> None:
        self._outputs.drain()
        if pid == self._agent_pid:
            self._on_agent_exit(code)
        elif self._tool is not None and pid == self._tool.pid:
            self._tool.code = code
            self._tell({"event": "exited", "role": "tool", "pid": pid, "code": code})
        elif step := self._steps.pop(pid, None):
            self._tell({"event": "exited", "role": step.role, "pid": pid, "code": code})

    def _no_children_left(self) -> None:
        if self._exit_code is not None:
            self._done = True

    # --- the agent --------------------------------------------------------------------------------------------------

    def _start_agent(self, now: float) -> None:
        self._restarts.begin(now)
        program = spawn.Program(argv=self.configuration.agent_command, env=self.configuration.agent_environment)
        read, write = os.pipe()
        self._outputs.follow(read, "agent")
        try:
            self._agent_pid = spawn.start_agent(
                program, write, secrets=self.configuration.secrets, die_with_us=not self._is_first
            )
        except OSError as error:
            self._outputs.say(str(error))
            self._restart_later(now)
        finally:
            os.close(write)

    def _on_agent_exit(self, code: int) -> None:
        # Its helpers (a checkpoint under way) share its session and must not go on beside a successor's.
        session, self._agent_pid = self._agent_pid, 0
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(session, signal.SIGKILL)
        self._drop_connection()
        if self._exit_code is None:
            self._outputs.say(f"the agent ended with status {code}")
            self._restart_later(self._monotonic())

    def _restart_later(self, now: float) -> None:
        self._restarts.failed(now)
        if self._restarts.hopeless and not self._tool_runs:
            self._leave(EXIT_HOPELESS)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            connection = channel.Connection(listener.accept()[0])
            if not self._agent_pid or connection.peer != self._agent_pid:
                connection.close()
                return
            self._drop_connection()
            self._connection = connection
            self._selector.register(connection.socket, selectors.EVENT_READ, self._on_channel)

    def _on_channel(self) -> None:
        connection = self._connection
        if connection is None:
            return
        try:
            connection.flush()
            for message in connection.receive():
                connection.send(self._answer(message))
        except (OSError, ValueError, EOFError):
            self._drop_connection()
        self._watch_writing()

    def _answer(self, message: channel.Message) -> channel.Message:
        number = message.get("id")
        command = self.COMMANDS.get(str(message.get("do")))
        try:
            if command is None:
                raise ValueError(f"no such command: {message.get('do')}")
            return {"id": number, "ok": True, **command(self, message)}
        except (OSError, ValueError, KeyError, TypeError) as error:
            return {"id": number, "ok": False, "error": str(error) or repr(error), "errno": getattr(error, "errno", 0)}

    def _tell(self, event: channel.Message) -> None:
        if self._connection is not None:
            try:
                self._connection.send(event)
            except (OSError, ValueError):
                self._drop_connection()
            self._watch_writing()

    def _watch_writing(self) -> None:
        if self._connection is not None:
            writing = selectors.EVENT_WRITE if self._connection.wants_to_write else 0
            self._selector.modify(self._connection.socket, selectors.EVENT_READ | writing, self._on_channel)

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._selector.unregister(self._connection.socket)
            self._connection.close()
            self._connection = None

    # --- the tool ---------------------------------------------------------------------------------------------------

    @property
    def _tool_runs(self) -> bool:
        return self._tool is not None and self._tool.running

    def _advance_ending(self, now: float) -> None:
        if self._ending is None:
            return
        if not self._tool_runs and not self._steps and not self._user_pids():
            self._ending = None
            self._tell({"event": "ended", "code": self._tool.code if self._tool else None})
            return
        stage = self._ending.advance(now, tool_runs=self._tool_runs)
        if stage is EndStage.REST:
            processes.send_all(self._user_pids(), signal.SIGTERM)
        elif stage is EndStage.KILL:
            processes.send_all(self._user_pids(), signal.SIGKILL)

    def _user_pids(self) -> list[int]:
        return processes.descendants(os.getpid(), spare_session=self._agent_pid)

    # --- the way out ------------------------------------------------------------------------------------------------

    def _leave(self, code: int) -> None:
        """The run is over: the agent may still close its connections, then everything is killed."""
        if self._exit_code is None:
            self._exit_code = code
            self._restarts.due = self._stop_deadline = None
            tool_has = self.configuration.grace if code == EXIT_KILLED and self._tool_runs else 0.0
            agent_has = 0.0 if code == EXIT_KILLED else AGENT_LEAVING_SECONDS
            self._leave_deadline = self._monotonic() + max(tool_has, agent_has)
            self._end({"grace": tool_has})
            self._reap()

    def _kill_everything(self) -> None:
        processes.send_all(processes.descendants(os.getpid()), signal.SIGKILL)
        if self._is_first:
            with contextlib.suppress(ProcessLookupError):
                os.kill(-1, signal.SIGKILL)
        self._leave_deadline = self._monotonic() + 0.05
        self._reap()

    # --- commands ---------------------------------------------------------------------------------------------------

    def _status(self, _message: channel.Message) -> channel.Message:
        return {
            "agent": self._restarts.number,
            "stopping": self._stop_deadline is not None,
            "root": self._root_spec.to_json() if self._root_spec else None,
            "built": _built(self._root),
            "tool": self._tool.describe() if self._tool else None,
            "logs": {name: log.end for name, log in self._outputs.logs.items()},
        }

    def _mount(self, message: channel.Message) -> channel.Message:
        """{root}: build the tool's root, once a run; asking again for the same is answered with what is there."""
        spec = RootSpec.from_json(message["root"])
        if self._root is None:
            self._root = spawn.make_root(spec, sandboxed=self._is_first)
            self._root_spec = spec
        return {"built": _built(self._root)}

    def _spawn(self, message: channel.Message) -> channel.Message:
        """{role: "tool" or a step's name, argv, env, cwd, note}: start user code in the mounted root."""
        if self._root is None:
            raise ValueError("mount a root first")
        if self._exit_code is not None or self._ending is not None:
            raise ValueError("the run is ending")
        role = str(message["role"])
        if role == "tool" and self._tool_runs:
            raise ValueError("the tool is running")
        program = spawn.Program(argv=message["argv"], env=message["env"], cwd=message.get("cwd", "/"))
        read, write = os.pipe()
        try:
            pid = spawn.start_user_program(program, self._root, write, die_with_us=not self._is_first)
        except BaseException:
            os.close(read)
            raise
        finally:
            os.close(write)
        self._outputs.follow(read, "tool")
        child = Child(pid=pid, role=role, started=time.time(), note=message.get("note"))
        if role == "tool":
            self._tool = child
        else:
            self._steps[pid] = child
        return {"pid": pid}

    def _signal(self, message: channel.Message) -> channel.Message:
        """{number}: to the tool and its process group."""
        self._signal_tool(signal.Signals(message["number"]))
        return {}

    def _signal_tool(self, number: signal.Signals) -> None:
        if self._tool is None or not self._tool.running:
            raise ProcessLookupError(errno.ESRCH, "the tool is not running")
        os.killpg(self._tool.pid, number)

    def _end(self, message: channel.Message) -> channel.Message:
        """{grace}: SIGTERM to the tool, `grace` seconds, then all user code is killed; the event `ended` follows."""
        if self._ending is None:
            with contextlib.suppress(ProcessLookupError):
                self._signal_tool(signal.SIGTERM)
            self._ending = Ending(grace=float(message["grace"]))
            self._ending.begin(self._monotonic())
        return {}

    def _log(self, message: channel.Message) -> channel.Message:
        """{stream, offset}: a piece of a log; offsets count all bytes since the run began."""
        first, data = self._outputs.logs[str(message["stream"])].read(int(message["offset"]), PIECE)
        return {"offset": first, "text": data.decode("latin-1")}

    def _leave_command(self, message: channel.Message) -> channel.Message:
        """{code}: the agent is done; everything ends and init exits with `code`."""
        self._leave(int(message["code"]))
        return {}

    COMMANDS: ClassVar[dict[str, Callable[["Init", channel.Message], channel.Message]]] = {
        "hello": _status,
        "status": _status,
        "mount": _mount,
        "spawn": _spawn,
        "signal": _signal,
        "end": _end,
        "log": _log,
        "leave": _leave_command,
    }


def _built(root: spawn.TargetRoot | None) -> dict[str, Any] | None:
    if root is None:
        return None
    built = root.built
    return {"kind": built.kind, "home": built.home, "workspace": built.workspace, "notes": list(built.notes)}


def _exit_code(status: int) -> int:
    """As a shell tells it: 128 + the signal's number for what was killed."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
