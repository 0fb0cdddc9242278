"""The control process put together, asked over its own sockets; agents and machine are played."""

import asyncio
import json
import stat
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import aiomqtt
import msgspec
import pytest

from portico_gateway.compute.choice import Compute
from portico_gateway.compute.local.tool_install import ToolInstaller
from portico_gateway.compute.memory import MemoryCompute
from portico_gateway.control import OpenBus, embedded_bus, run_control
from portico_gateway.control_parts import Control
from portico_gateway.control_signals import Ending, watch_for_file
from portico_gateway.link.client import LinkClient
from portico_gateway.link.messages import CheckRun, ControlMessage, Hello, Keys, Presence, Route, Routes, Tunnels
from portico_gateway.settings import Secret, Settings
from portico_gateway.studios.values import Status
from portico_shared.clock import JumpingClock
from portico_shared.messages import Answer, Command, Stop, topic
from portico_shared.messages import Status as AgentStatus

TOKEN = "pto_" + "0123456789abcdef" * 3


class PlayedBus:
    """`Bus` with one obedient agent for every run."""

    def __init__(self, control: Control, compute: MemoryCompute) -> None:
        self.connected = asyncio.Event()
        self.connected.set()
        self.control = control
        self.compute = compute

    async def forget(self, run_id: str) -> None:
        assert run_id not in self.compute.machine.runs

    async def command(self, run_id: str, command: Command, *, timeout: float) -> Answer:
        if isinstance(command, Stop):
            left = AgentStatus(run=run_id, agent=1, seq=9, phase="left")
            await self.control.lifecycle.on_message(run_id, left)
            self.compute.leave(run_id)
        return Answer(id=command.id, run=run_id, ok=True)


@dataclass
class Running:
    control: Control
    compute: MemoryCompute
    folder: Path
    http: aiohttp.ClientSession
    ending: Ending
    said: list[str]
    process: asyncio.Task[None]

    async def get(self, path: str, **headers: str) -> tuple[int, str, str]:
        async with self.http.get(f"http://portico.localhost:8000{path}", headers=headers) as response:
            return response.status, response.content_type, await response.text()

    async def call(self, method: str, path: str, body: object = None) -> Any:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with self.http.request(
            method, f"http://portico.localhost:8000/api{path}", json=body, headers=headers
        ) as r:
            assert r.status < 300, await r.text()
            return await r.json()

    async def add(self, *, start: bool) -> str:
        body = {
            "name": "one",
            "dataStudioToolUrl": "portico/jupyterlab:4.6",
            "computeEnvId": "memory",
            "configuration": {"cpu": 1, "gpu": 0, "memory": 1024, "lifespanHours": 8},
        }
        answer = await self.call("POST", f"/studios?workspaceId=1&autoStart={str(start).lower()}", body)
        return str(answer["studio"]["sessionId"])

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[tuple[LinkClient, list[ControlMessage]]]:
        pushed: list[ControlMessage] = []
        client = LinkClient(self.folder / "run" / "link.sock", Hello(worker="w1", pid=1), pushed.append)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(client.run())
            await client.connected.wait()
            yield client, pushed
            task.cancel()


class InstalledAlready(ToolInstaller):
    def installed(self, tool: str) -> bool:
        return True

    def folder(self, tool: str) -> Path | None:
        return None


@asynccontextmanager
async def running(
    folder: Path | None = None, compute: MemoryCompute | None = None, open_bus: OpenBus | None = None
) -> AsyncIterator[Running]:
    with tempfile.TemporaryDirectory(prefix="ptc-") as made:  # sockets: a short path
        folder = folder or Path(made)
        compute = compute or MemoryCompute()
        settings = Settings(data=folder, bootstrap_token=Secret(TOKEN))
        ending, opened = Ending(), asyncio.get_running_loop().create_future()
        said: list[str] = []

        @asynccontextmanager
        async def played_bus(control: Control) -> AsyncIterator[PlayedBus]:
            yield PlayedBus(control, compute)

        async def ready(control: Control) -> None:
            await control.lifecycle.adopted.wait()
            opened.set_result(control)

        async with asyncio.TaskGroup() as group:
            process = group.create_task(
                run_control(
                    settings,
                    ending,
                    said.append,
                    open_bus=open_bus or played_bus,
                    compute=Compute(compute, InstalledAlready(folder)),
                    ready=ready,
                )
            )
            control = await opened
            connector = aiohttp.UnixConnector(str(folder / "run" / "control.sock"))
            async with aiohttp.ClientSession(connector=connector) as http:
                yield Running(control, compute, folder, http, ending, said, process)
            ending.just_end()


async def until(condition: Callable[[], bool]) -> None:
    """Give everything else its turn until `condition` holds."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what is waited for sets no event of ours
            await asyncio.sleep(0)


def mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


async def test_four_faces_of_one_socket() -> None:
    async with running() as p:
        assert await p.get("/healthz") == (200, "application/json", '{"status": "ok"}')
        status, kind, text = await p.get("/api/agent/v1/plan")
        assert (status, kind) == (401, "application/json")
        status, kind, text = await p.get("/api/agent/v1/nothing-here")
        assert (status, kind) == (404, "application/json")
        status, kind, text = await p.get("/api/agent/v1/objects/l0123456789abcdef/packs/" + "0" * 64)
        assert (status, kind) in ((403, "application/json"), (401, "application/json"))
        status, kind, text = await p.get("/api/service-info")
        assert (status, kind) == (200, "application/json")
        status, kind, text = await p.get("/sign-in")
        assert (status, kind) == (200, "text/html")
        assert "<form" in text
        headers = {"X-Portico-Studio": "00000000", "X-Portico-User": "0"}
        for path in ("/", "/api/service-info", "/healthz", "/api/agent/v1/plan"):
            status, kind, text = await p.get(path, **headers)
            assert status == 404


async def test_agents_post_without_being_taken_for_a_foreign_form() -> None:
    async with running() as p:
        async with p.http.post("http://portico.localhost:8000/api/agent/v1/identify", data=b"{}") as response:
            assert response.status == 400
            assert "message" in await response.json()


async def test_sockets_and_notes_are_for_this_account_alone() -> None:
    async with running() as p:
        run = p.folder / "run"
        for name in ("control.sock", "link.sock", "welcome.json"):
            assert mode(run / name) == 0o600
        link = json.loads((run / "welcome.json").read_text())["url"]
        assert link.startswith("http://portico.localhost:8000/")
        status, _, _ = await p.get(link.removeprefix("http://portico.localhost:8000"))
        assert status == 200


async def test_ready_only_with_an_edge_worker() -> None:
    async with running() as p:
        status, _, text = await p.get("/readyz")
        assert status == 503
        assert "edge worker" in text
        async with p.worker():
            assert (await p.get("/readyz"))[0] == 200


async def test_worker_is_told_everything_and_then_what_changes() -> None:
    async with running() as p:
        first = await p.add(start=False)
        async with p.worker() as (client, pushed):
            await until(lambda: len(pushed) >= 2)
            assert isinstance(pushed[0], Keys)
            assert isinstance(pushed[1], Routes)
            assert [route.session_id for route in pushed[1].routes] == [first]
            await p.call("PUT", f"/studios/{first}/start?workspaceId=1", {})
            await until(lambda: any(isinstance(m, Route) and m.state == "starting" for m in pushed))
            verdict = await client.ask(CheckRun(id=0, token="nonsense"))
            assert verdict.status == 401


async def test_short_token_of_a_run_is_known_at_the_edge() -> None:
    async with running() as p:
        session_id = await p.add(start=True)
        async with p.worker() as (client, _):
            live = p.control.lifecycle.live(session_id)
            assert live is not None
            token = p.control.credentials._tokens.mint(live.run.id, live.run.generation)
            verdict = await client.ask(CheckRun(id=0, token=token))
            assert (verdict.status, verdict.run, verdict.session_id) == (200, live.run.id, session_id)


async def test_news_of_the_edge_reaches_the_studios() -> None:
    async with running() as p:
        session_id = await p.add(start=True)
        live = p.control.lifecycle.live(session_id)
        assert live is not None
        events = p.control.lifecycle.parts.hub.watch(1)
        told = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        p.control.link.told("w1", Tunnels(run=live.run.id, session_id=session_id, connections=2))
        assert live.silent_for == 0.0
        p.control.link.told("w1", Presence(session_id=session_id, users=((1, 5.0),)))
        while (await told).kind != "presence":
            told = asyncio.ensure_future(anext(events))
        assert p.control.lifecycle.parts.visitors.of(session_id) == {1: 5.0}
        await events.aclose()


async def test_leaving_with_studios_stops_them_and_says_so() -> None:
    async with running() as p:
        session_id = await p.add(start=True)
        await until(lambda: bool(p.compute.machine.runs))
        p.ending.stop_first()
        await p.process
        assert p.said[0] == "Stopping one: saving its state"
        assert len(p.said) == 2
        assert not p.compute.machine.runs
        assert not list((p.folder / "run").glob("*.sock"))
        assert session_id


async def test_leaving_without_studios_leaves_them_running_and_finds_them_again() -> None:
    compute = MemoryCompute()
    with tempfile.TemporaryDirectory(prefix="ptc-") as folder:
        async with running(Path(folder), compute) as p:
            session_id = await p.add(start=True)
            await until(lambda: bool(compute.machine.runs))
        assert compute.machine.runs
        assert p.said == []
        async with running(Path(folder), compute) as p:
            live = p.control.lifecycle.live(session_id)
            assert live is not None
            assert live.studio.status is Status.STARTING
            assert (await p.call("GET", f"/studios/{session_id}?workspaceId=1"))["sessionId"] == session_id


async def test_file_that_appears_ends_the_waiting_for_studios(tmp_path: Path) -> None:
    clock, ending, file = JumpingClock(), Ending(), tmp_path / "leave-studios"
    ending.stop_first()
    async with asyncio.TaskGroup() as group:
        group.create_task(watch_for_file(file, ending, clock))
        await clock.jump(2)
        assert not ending.abandon.is_set()
        file.touch()
        await clock.jump(1)
        assert ending.abandon.is_set()
    assert not file.exists()


@pytest.mark.parametrize("first", ["stop", "end"])
def test_the_first_word_says_how_to_end(first: str) -> None:
    ending = Ending()
    if first == "end":
        ending.just_end()
        ending.stop_first()
        assert not ending.stop_studios
    else:
        ending.stop_first()
        ending.just_end()
        assert ending.stop_studios
        assert ending.abandon.is_set()
    assert ending.asked.is_set()


async def test_agent_speaks_through_the_real_broker_and_hears_its_stop() -> None:
    async with running(open_bus=embedded_bus) as p:
        session_id = await p.add(start=True)
        await until(lambda: bool(p.compute.machine.runs))
        live = p.control.lifecycle.live(session_id)
        assert live is not None
        run_id = live.run.id
        token = p.control.credentials._tokens.mint(run_id, live.run.generation)
        address = json.loads((p.folder / "run" / "broker.json").read_text())
        assert mode(p.folder / "run" / "broker.json") == 0o600
        async with aiomqtt.Client(
            address["host"], address["port"], username=run_id, password=token, identifier=run_id
        ) as agent:
            await agent.subscribe(topic(run_id, "command"), qos=1)
            status = AgentStatus(run=run_id, agent=1, seq=1, phase="launching", tool="starting", tool_port=8888)
            await agent.publish(topic(run_id, "status"), msgspec.json.encode(status), qos=1, retain=True)
            await until(lambda: live.run.tool_port == 8888)
            await p.call("PUT", f"/studios/{session_id}/stop?workspaceId=1")
            message = await anext(aiter(agent.messages))
            assert isinstance(message.payload, bytes)
            command = msgspec.json.decode(message.payload, type=Command)
            assert isinstance(command, Stop)
            left = msgspec.structs.replace(status, seq=2, phase="left", tool="exited")
            await agent.publish(topic(run_id, "status"), msgspec.json.encode(left), qos=1, retain=True)
            p.compute.leave(run_id)
            await until(lambda: p.control.lifecycle.live(session_id) is None)
        studio = await p.call("GET", f"/studios/{session_id}?workspaceId=1")
        assert studio["statusInfo"]["status"] == "stopped"
