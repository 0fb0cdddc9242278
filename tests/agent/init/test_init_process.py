"""portico-init as a plain process that adopts orphans (no namespace of its own)."""

import asyncio
import base64
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from support.studio_init import PLAIN_ROOT, Puppet, alive, studio_init

SLEEPER = (sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)")
STUBBORN = (
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)",
)
ENV = {"PATH": os.environ["PATH"]}


async def until(condition: Callable[[], object]) -> None:
    """Wait for what the kernel, not our loop, brings about."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - processes and /proc give no event
            await asyncio.sleep(0.01)


async def started_tool(puppet: Puppet, argv: tuple[str, ...] = SLEEPER) -> int:
    assert (await puppet.ask("mount", root=PLAIN_ROOT))["ok"]
    reply = await puppet.ask("spawn", role="tool", argv=argv, env=ENV, note={"port": 1234})
    assert reply["ok"], reply
    await puppet.log_holds("up")
    return int(reply["pid"])


async def test_agent_gets_secrets_by_descriptor_alone():
    async with studio_init() as init:
        puppet = await init.agent()
        secrets = json.loads(puppet.hello["secrets"])
        assert secrets["run_token"] == "the-run-token"
        assert len(base64.b64decode(secrets["seed"])) == 32
        assert "the-run-token" not in str(puppet.hello["environ"])
        assert "SECRET_OF_THE_MACHINE" not in puppet.hello["environ"]
        assert b"the-run-token" not in Path(f"/proc/{init.pid}/environ").read_bytes()
        assert b"the-run-token" not in Path(f"/proc/{puppet.pid}/cmdline").read_bytes()


async def test_killed_agent_comes_back_within_two_seconds_and_finds_the_tool():
    async with studio_init() as init:
        first = await init.agent()
        tool = await started_tool(first)
        os.kill(first.pid, signal.SIGKILL)
        killed = asyncio.get_running_loop().time()
        second = await init.agent()
        assert asyncio.get_running_loop().time() - killed < 2
        status = await second.ask("hello")
        assert status["agent"] == 2
        assert status["tool"]["pid"] == tool and status["tool"]["state"] == "running"
        assert status["tool"]["note"] == {"port": 1234}
        assert json.loads(second.hello["secrets"])["seed"] == json.loads(first.hello["secrets"])["seed"]
        assert alive(tool)


async def test_helpers_of_a_dead_agent_do_not_outlive_it():
    agent = (sys.executable, "-c", "import subprocess, time; subprocess.Popen(['sleep', '607']); time.sleep(600)")
    async with studio_init(agent=agent) as init:
        children = Path(f"/proc/{init.pid}/task/{init.pid}/children")
        await until(lambda: children.read_text().split())
        agent_pid = int(children.read_text().split()[0])
        below = Path(f"/proc/{agent_pid}/task/{agent_pid}/children")
        await until(lambda: below.read_text().split())
        helper = int(below.read_text().split()[0])
        os.kill(agent_pid, signal.SIGKILL)
        await until(lambda: not alive(helper))


async def test_strangers_cannot_speak_on_the_channel():
    async with studio_init() as init:
        await init.agent()
        path = str(init.folder / "state/init.sock")
        assert Path(path).stat().st_mode & 0o777 == 0o600
        reader, writer = await asyncio.open_unix_connection(path)
        assert await reader.read() == b""
        writer.close()


async def test_exit_of_the_tool_is_told_with_its_code():
    async with studio_init() as init:
        puppet = await init.agent()
        tool = await started_tool(puppet)
        os.kill(tool, signal.SIGKILL)
        assert (await puppet.event("exited"))["code"] == 137
        assert (await puppet.ask("status"))["tool"]["code"] == 137


async def test_end_asks_first_and_reports_when_nothing_is_left():
    async with studio_init() as init:
        puppet = await init.agent()
        tool = await started_tool(puppet)
        await puppet.ask("end", grace=30)
        assert (await puppet.event("ended"))["code"] == 143
        assert not alive(tool)
        refused = await puppet.ask("spawn", role="step", argv=["true"], env=ENV)
        assert refused["ok"], "after an ending other code may start again"


async def test_end_kills_what_does_not_listen_after_the_grace():
    async with studio_init() as init:
        puppet = await init.agent()
        tool = await started_tool(puppet, STUBBORN)
        await puppet.ask("end", grace=0.2)
        assert (await puppet.event("ended"))["code"] == 137
        assert not alive(tool)


async def test_daemons_end_with_the_tool():
    forks = "import os, time\nif os.fork() == 0:\n os.setsid()\n if os.fork() == 0:\n  time.sleep(600)\n os._exit(0)\n"
    argv = (sys.executable, "-c", forks + "print('up', flush=True); time.sleep(600)")
    async with studio_init() as init:
        puppet = await init.agent()
        await started_tool(puppet, argv)
        await puppet.ask("end", grace=5)
        await puppet.event("ended")
        children = Path(f"/proc/{init.pid}/task/{init.pid}/children").read_text().split()
        assert [pid for pid in children if int(pid) != puppet.pid and alive(int(pid))] == []


async def test_sigterm_asks_the_agent_and_its_leave_sets_the_exit_code():
    async with studio_init() as init:
        puppet = await init.agent()
        tool = await started_tool(puppet)
        init.send(signal.SIGTERM)
        assert (await puppet.event("stop"))["reason"] == "SIGTERM"
        assert alive(tool), "the agent decides when the tool ends"
        await puppet.ask("end", grace=30)
        await puppet.event("ended")
        await puppet.ask("leave", code=3)
        puppet.writer.close()
        assert await init.exit_code() == 3


async def test_stop_deadline_ends_a_run_whose_agent_does_nothing():
    async with studio_init(environment={"PORTICO_STOP_SECONDS": "0.2", "PORTICO_GRACE": "0.2"}) as init:
        puppet = await init.agent()
        tool = await started_tool(puppet, STUBBORN)
        init.send(signal.SIGTERM)
        assert await init.exit_code() == 75
        assert not alive(tool) and not alive(puppet.pid)


async def test_agent_that_starts_while_stopping_is_told():
    async with studio_init() as init:
        first = await init.agent()
        init.send(signal.SIGTERM)
        await first.event("stop")
        os.kill(first.pid, signal.SIGKILL)
        second = await init.agent()
        assert (await second.ask("hello"))["stopping"] is True


async def test_tool_ends_when_a_plain_init_is_killed():
    async with studio_init() as init:
        puppet = await init.agent()
        tool = await started_tool(puppet)
        init.send(signal.SIGKILL)
        await until(lambda: not alive(tool) and not alive(puppet.pid))


async def test_log_stays_within_its_limit_and_offsets_stay_true():
    noisy = "import sys\nfor i in range(120000): sys.stdout.write('%063d\\n' % i)"
    async with studio_init() as init:
        puppet = await init.agent()
        await puppet.ask("mount", root=PLAIN_ROOT)
        await puppet.run(sys.executable, "-c", noisy)
        total = 120000 * 64
        kept = sum(file.stat().st_size for file in (init.folder / "state").glob("tool.log*"))
        assert kept <= 4 * 1024 * 1024
        piece = await puppet.ask("log", stream="tool", offset=0)
        assert piece["offset"] > 0
        first = piece["text"][64 - piece["offset"] % 64 :].split("\n")[0] if piece["offset"] % 64 else ""
        line = first or piece["text"].split("\n")[0]
        assert int(line) == -(-piece["offset"] // 64)
        tail = await puppet.ask("log", stream="tool", offset=total - 64)
        assert int(tail["text"]) == 119999


async def test_unknown_and_broken_commands_are_refused_in_words():
    async with studio_init() as init:
        puppet = await init.agent()
        assert "no such command" in (await puppet.ask("fly"))["error"]
        assert "mount a root first" in (await puppet.ask("spawn", role="tool", argv=["true"], env={}))["error"]
        assert not (await puppet.ask("mount", root={"kind": "none", "wings": 2}))["ok"]
        await puppet.ask("mount", root=PLAIN_ROOT)
        missing = await puppet.ask("spawn", role="tool", argv=["/no/such/program"], env=ENV)
        assert "/no/such/program" in missing["error"]
        assert (await puppet.ask("status"))["tool"] is None
