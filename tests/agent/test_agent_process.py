"""The whole agent as processes: portico-init as PID 1, the real agent, an overlay root, a tool; a gateway of ours."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from support.agent_gateway import HOST, RUN, RUN_TOKEN, AgentGateway, agent_gateway, plan
from support.agent_session import TOOL
from support.studio_init import StudioInit, alive, studio_init

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root: namespaces, mounts")]
AGENT = (sys.executable, "-m", "portico_agent")


@asynccontextmanager
async def running_studio(tmp_path: Path) -> AsyncIterator[tuple[StudioInit, AgentGateway]]:
    async with agent_gateway(tmp_path, plan(command=TOOL)) as (server, address):
        environment = {
            "PORTICO_RUN": RUN,
            "PORTICO_RUN_TOKEN": RUN_TOKEN,
            "PORTICO_GATEWAY": address,
            "PORTICO_HOST": HOST,
            "PORTICO_ROOT": "overlay",
            "PORTICO_TOOLS": str(tmp_path / "tools"),
        }
        async with studio_init(namespaced=True, agent=AGENT, environment=environment) as init:
            await until_logged(server, b"listening")
            yield init, server


async def until_logged(server: AgentGateway, text: bytes) -> None:
    async with asyncio.timeout(30):
        while text not in server.logs.get("tool", b""):
            server.called.clear()
            await server.called.wait()


def children(pid: int) -> dict[str, int]:
    """Children of a process by the last word of their command line's program part."""
    found = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        words = Path(f"/proc/{child}/cmdline").read_bytes().decode().split("\0")
        found["agent" if "portico_agent" in words else "tool"] = int(child)
    return found


async def test_killed_agent_comes_back_as_the_same_party_and_the_tool_never_notices(tmp_path: Path):
    async with running_studio(tmp_path) as (init, server):
        before, owner = children(init.pid), server.owner
        os.kill(before["agent"], signal.SIGKILL)
        async with asyncio.timeout(20):
            while server.calls.count("plan") < 2:
                server.called.clear()
                await server.called.wait()
        after = children(init.pid)
        assert after["tool"] == before["tool"] and alive(after["tool"]) and after["agent"] != before["agent"]
        assert server.owner == owner and server.calls.count("identify") == 2


async def test_no_credential_in_environment_command_line_or_files(tmp_path: Path):
    async with running_studio(tmp_path) as (init, _):
        for pid in (init.pid, *children(init.pid).values()):
            for name in ("environ", "cmdline"):
                assert RUN_TOKEN.encode() not in Path(f"/proc/{pid}/{name}").read_bytes(), (pid, name)
        state = [file for file in (init.folder / "state").rglob("*") if file.is_file()]
        assert state and not any(RUN_TOKEN.encode() in file.read_bytes() for file in state)


async def test_sigterm_ends_everything(tmp_path: Path):
    async with running_studio(tmp_path) as (init, server):
        pids = list(children(init.pid).values())
        init.send(signal.SIGTERM)
        await until_logged(server, b"bye")
        os.kill(init.pid, signal.SIGKILL)  # no store is there for the last checkpoint: not waited for
        await init.exit_code()
        assert not any(alive(pid) for pid in pids)
