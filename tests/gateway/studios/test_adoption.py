"""The control process goes away and comes back: what ran goes on, and nothing is owned by nobody."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from portico_gateway.compute.environment import Placement, RunSpec
from portico_gateway.compute.memory import MemoryCompute
from portico_gateway.studios.values import Status
from portico_shared.messages import Stop
from support.studio_world import OWNER, PlayedAgent, World, studio_world


class SlowCompute(MemoryCompute):
    """A start that hangs until the gateway is killed, with or without a run that began."""

    def __init__(self, *, half_started: bool) -> None:
        super().__init__()
        self.hangs = True
        self.reached = asyncio.Event()
        self._half_started = half_started

    async def start(self, spec: RunSpec) -> Placement:
        if not self.hangs:
            return await super().start(spec)
        self.started.append(spec)
        if self._half_started:
            self.machine.runs[spec.run_id] = spec
        self.reached.set()
        await asyncio.Event().wait()
        raise AssertionError


@asynccontextmanager
async def restarted(world: World) -> AsyncIterator[None]:
    """A new control process on the same store and machine; the agents dial in again."""
    await world.restart()
    async with world.alive():
        yield


def comes_back(world: World, session_id: str, old: PlayedAgent) -> PlayedAgent:
    live = world.live(session_id)
    agent = PlayedAgent(world, live.run.id, number=old.number, seq=old.seq)
    world.commands.agents[live.run.id] = agent
    return agent


async def test_running_studio_is_adopted_and_stops_in_order(tmp_path: Path) -> None:
    async with studio_world(tmp_path, alive=False) as world:
        async with world.alive():
            studio = await world.add()
            old = await world.run(studio.session_id)
        assert world.compute.machine.runs  # control is gone, the run is not
        async with restarted(world):
            route = world.edge.routes[studio.session_id]
            assert (route.state, route.run, route.port) == ("running", old.run_id, 8888)
            agent = comes_back(world, studio.session_id, old)
            await agent.says("running", "up", tool_port=8888)
            await world.passes(120, step=5)
            assert (await world.pair(studio.session_id)).studio.status is Status.RUNNING
            await world.stop(studio.session_id)
            assert not world.compute.machine.runs


async def test_run_that_died_meanwhile_is_errored_within_seconds(tmp_path: Path) -> None:
    async with studio_world(tmp_path, alive=False) as world:
        async with world.alive():
            studio = await world.add()
            agent = await world.run(studio.session_id)
        world.compute.die(agent.run_id, "the machine was restarted")
        async with restarted(world):
            await world.until(studio.session_id, Status.ERRORED, seconds=10)
            view = await world.studios.describe(OWNER, studio.session_id)
            assert "the machine was restarted" in view.status_message
            assert world.compute.has_volume(studio.session_id)


async def test_stopping_studio_is_told_again_to_stop(tmp_path: Path) -> None:
    async with studio_world(tmp_path, alive=False) as world:
        async with world.alive():
            studio = await world.add()
            old = await world.run(studio.session_id)
            old.obeys = False
            await world.studios.stop(OWNER, studio.session_id)
        async with restarted(world):
            agent = comes_back(world, studio.session_id, old)
            await world.until(studio.session_id, Status.STOPPED, seconds=20)
            assert [type(command) for command in agent.commands] == [Stop]


async def test_reason_of_an_interrupted_stop_is_not_forgotten(tmp_path: Path) -> None:
    async with studio_world(tmp_path, alive=False) as world:
        async with world.alive():
            studio = await world.add()
            old = await world.run(studio.session_id)
            old.obeys = False
            await old.says("running", "exited", exit_code=3)
            await world.until(studio.session_id, Status.STOPPING)
        async with restarted(world):
            comes_back(world, studio.session_id, old)
            await world.until(studio.session_id, Status.ERRORED, seconds=20)
            view = await world.studios.describe(OWNER, studio.session_id)
            assert "The tool ended with exit code 3." in view.status_message


async def test_start_that_was_interrupted_goes_on_with_another_token(tmp_path: Path) -> None:
    for half_started in (False, True):
        folder = tmp_path / str(half_started)
        folder.mkdir()
        compute = SlowCompute(half_started=half_started)
        async with studio_world(folder, compute=compute, alive=False) as world:
            async with world.alive():
                studio = await world.add()
                await world.studios.start(OWNER, studio.session_id)
                await compute.reached.wait()
            compute.hangs = False
            async with restarted(world):
                await world.placed(studio.session_id)
                first, second = compute.started
                assert first.run_id == second.run_id
                assert first.run_token != second.run_token
                await world.agent(studio.session_id).comes_up()
                await world.until(studio.session_id, Status.RUNNING)


async def test_half_restored_start_is_watched_on(tmp_path: Path) -> None:
    async with studio_world(tmp_path, alive=False) as world:
        async with world.alive():
            studio = await world.add()
            await world.studios.start(OWNER, studio.session_id)
            await world.placed(studio.session_id)
            old = world.agent(studio.session_id)
            await old.says("restoring", done=1, total=9)
        async with restarted(world):
            await comes_back(world, studio.session_id, old).comes_up()
            await world.until(studio.session_id, Status.RUNNING)
            assert len(world.compute.started) == 1


async def test_run_that_nobody_owns_is_ended(tmp_path: Path) -> None:
    async with studio_world(tmp_path, alive=False) as world:
        async with world.alive():
            studio = await world.add()
            kept = await world.run(studio.session_id)
        orphan = RunSpec(
            run_id="r" + "f" * 16, session_id="ffffffff", tool="jupyter", run_token="t", gateway="", host_header=""
        )
        await world.compute.start(orphan)
        async with restarted(world):
            assert set(world.compute.machine.runs) == {kept.run_id}


async def test_build_that_was_interrupted_is_taken_up(tmp_path: Path) -> None:
    async with studio_world(tmp_path, alive=False) as world:
        world.installer.tools.clear()
        async with world.alive():
            studio = await world.add()
            await world.studios.start(OWNER, studio.session_id)
            assert (await world.pair(studio.session_id)).studio.status is Status.BUILDING
        world.installer.go_on.set()
        async with restarted(world):
            await world.placed(studio.session_id)
            assert (await world.pair(studio.session_id)).studio.status is Status.STARTING


async def test_every_studio_has_a_route_after_a_restart(tmp_path: Path) -> None:
    async with studio_world(tmp_path, alive=False) as world:
        async with world.alive():
            for name in ("one", "two", "three"):
                await world.add(name)
        async with restarted(world):
            routes = world.parts.routes.snapshot()
            assert len(routes) == 3
            assert {route.state for route in routes} == {"stopped"}
            assert {route.run for route in routes} == {""}
