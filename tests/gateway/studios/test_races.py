"""Two things at once, and things at the wrong moment."""

import asyncio
from pathlib import Path

import pytest

from portico_gateway.compute.environment import Placement, RunSpec
from portico_gateway.compute.memory import MemoryCompute
from portico_gateway.errors import Conflict, NotFound, PorticoError, Unavailable
from portico_gateway.studios.values import Status
from support.studio_world import OWNER, studio_world


class GatedCompute(MemoryCompute):
    """A start that waits for `go_on`; a cancelled one leaves nothing, as promised."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()

    async def start(self, spec: RunSpec) -> Placement:
        self.reached.set()
        await self.go_on.wait()
        return await super().start(spec)


async def test_two_starts_at_once_make_one_run(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        results = await asyncio.gather(
            *(world.studios.start(OWNER, studio.session_id) for _ in range(5)), return_exceptions=True
        )
        refused = [result for result in results if isinstance(result, Conflict)]
        assert len(refused) == 4
        assert str(refused[0]) == "it is starting already"
        await world.placed(studio.session_id)
        assert len(world.compute.machine.runs) == 1
        assert (await world.pair(studio.session_id)).studio.generation == 1


async def test_stop_while_a_place_is_sought_cancels_the_search(tmp_path: Path) -> None:
    compute = GatedCompute()
    async with studio_world(tmp_path, compute=compute) as world:
        studio = await world.add()
        await world.studios.start(OWNER, studio.session_id)
        await compute.reached.wait()
        await world.studios.stop(OWNER, studio.session_id)
        await world.until(studio.session_id, Status.STOPPED, seconds=5)
        compute.go_on.set()
        await world.passes(5)
        assert not compute.machine.runs
        assert (await world.pair(studio.session_id)).studio.status is Status.STOPPED


async def test_stop_before_the_agent_was_heard_ends_soon(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        await world.studios.start(OWNER, studio.session_id)
        await world.placed(studio.session_id)
        await world.studios.stop(OWNER, studio.session_id)
        await world.until(studio.session_id, Status.STOPPED, seconds=40)
        assert not world.compute.machine.runs
        assert not world.compute.has_volume(studio.session_id)


async def test_stop_while_restoring_keeps_the_newest_checkpoint(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        await world.run(studio.session_id)
        await world.stop(studio.session_id)
        await world.studios.start(OWNER, studio.session_id)
        await world.placed(studio.session_id)
        agent = world.agent(studio.session_id)
        agent.saves = False
        await agent.says("restoring", done=1, total=9)
        live = world.live(studio.session_id)
        await world.studios.stop(OWNER, studio.session_id)
        await world.until(studio.session_id, Status.STOPPED)
        point = await world.catalogue.restore_point(studio.session_id, None)
        assert point is not None
        assert point.checkpoint_id == live.run.restore_checkpoint_id


async def test_stop_while_building_ends_the_wait(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        world.installer.tools.clear()
        studio = await world.add()
        await world.studios.start(OWNER, studio.session_id)
        await world.studios.stop(OWNER, studio.session_id)
        await world.until(studio.session_id, Status.STOPPED, seconds=5)
        assert not world.compute.started


async def test_stop_and_delete_at_once_never_leave_a_run_without_a_studio(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        await world.run(studio.session_id)
        stop, delete = await asyncio.gather(
            world.studios.stop(OWNER, studio.session_id),
            world.studios.delete(OWNER, studio.session_id),
            return_exceptions=True,
        )
        assert not isinstance(stop, BaseException)
        assert isinstance(delete, Conflict)
        await world.until(studio.session_id, Status.STOPPED)
        await world.studios.delete(OWNER, studio.session_id)
        assert not world.compute.machine.runs
        with pytest.raises(NotFound):
            await world.studios.describe(OWNER, studio.session_id)


async def test_start_in_the_very_moment_of_stopped_is_taken(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        events = world.studios.watch(OWNER, 1)
        await world.run(studio.session_id)
        watching = asyncio.ensure_future(anext(events))
        await world.studios.stop(OWNER, studio.session_id)
        try:
            while (await world.pair(studio.session_id)).studio.status is not Status.STOPPED:
                await watching
                watching = asyncio.ensure_future(anext(events))
                await world.clock.jump(0.5)
            view = await world.studios.start(OWNER, studio.session_id)
            assert view.status is Status.STARTING
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await events.aclose()


async def test_start_and_delete_at_once_give_one_of_the_two(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        for number in range(5):
            studio = await world.add(f"studio {number}")
            start, delete = await asyncio.gather(
                world.studios.start(OWNER, studio.session_id),
                world.studios.delete(OWNER, studio.session_id),
                return_exceptions=True,
            )
            lost = [result for result in (start, delete) if isinstance(result, PorticoError)]
            assert len(lost) == 1
            left = await world.parts.records.pair(studio.session_id)
            assert (left is None) == (lost == [start])
            assert (world.lifecycle.live(studio.session_id) is None) == (left is None)


async def test_start_that_the_machine_refuses_is_errored_in_its_words(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        world.compute.fail_next_start = Unavailable("the disk has 1 GiB left: make room")
        await world.studios.start(OWNER, studio.session_id)
        await world.until(studio.session_id, Status.ERRORED, seconds=5)
        view = await world.studios.describe(OWNER, studio.session_id)
        assert "the disk has 1 GiB left: make room" in view.status_message
        assert [(step.name, step.state) for step in view.progress][-1] == ("provisioning", "failed")
        await world.run(studio.session_id)


async def test_start_that_the_catalogue_refuses_leaves_nothing(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        world.catalogue.fail_next = Unavailable("the store is away")
        with pytest.raises(Unavailable):
            await world.studios.start(OWNER, studio.session_id)
        pair = await world.pair(studio.session_id)
        assert (pair.studio.status, pair.studio.generation, pair.run) == (Status.STOPPED, 0, None)


async def test_tool_that_cannot_be_installed_is_told_with_its_log(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        world.installer.tools.clear()
        world.installer.error = Unavailable("no matching distribution found for jupyterlab")
        studio = await world.add()
        view = await world.studios.start(OWNER, studio.session_id)
        assert view.status is Status.BUILDING
        world.installer.go_on.set()
        await world.until(studio.session_id, Status.BUILD_FAILED, seconds=5)
        view = await world.studios.describe(OWNER, studio.session_id)
        assert "no matching distribution" in view.status_message
        log = await world.studios.logs(OWNER, studio.session_id, stream="build")
        assert "installing jupyter" in log.text
        assert "no matching distribution" in log.text
        assert log.ended
        world.installer.error = None
        await world.run(studio.session_id)


async def test_stop_all_waits_for_every_final_checkpoint(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        said: list[str] = []
        for name in ("one", "two"):
            studio = await world.add(name)
            await world.run(studio.session_id)
        leaving = asyncio.ensure_future(world.lifecycle.stop_all(said.append, asyncio.Event()))
        while not leaving.done():
            await world.passes(0.5)
        await leaving
        assert sorted(said) == [
            "Stopping one: saving its state",
            "Stopping two: saving its state",
            "one: saved and stopped",
            "two: saved and stopped",
        ]
        assert world.lifecycle.running == 0


async def test_stop_all_can_be_given_up(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        agent = await world.run(studio.session_id)
        agent.obeys = False
        abandon = asyncio.Event()
        leaving = asyncio.ensure_future(world.lifecycle.stop_all(lambda _: None, abandon))
        await world.passes(30, step=5)
        assert not leaving.done()
        abandon.set()
        await leaving
        assert (await world.pair(studio.session_id)).studio.status is Status.STOPPING
