"""A studio's way up and down, with everything working."""

from pathlib import Path

from portico_gateway.studios.values import Status, StopReason
from support.studio_world import OWNER, studio_world


async def test_studio_starts_runs_and_stops(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        assert studio.status is Status.STOPPED
        view = await world.studios.start(OWNER, studio.session_id)
        assert view.status is Status.STARTING
        await world.placed(studio.session_id)
        agent = world.agent(studio.session_id)
        await agent.comes_up()
        await agent.commits("start")
        await world.until(studio.session_id, Status.RUNNING)
        assert world.edge.routes[studio.session_id].port == 8888
        await world.studios.stop(OWNER, studio.session_id)
        await world.until(studio.session_id, Status.STOPPED)
        view = await world.studios.describe(OWNER, studio.session_id)
        assert view.stop_reason is StopReason.USER
        assert view.status_message == ""
        assert world.compute.released == [studio.session_id]
        assert [row.status for row in world.catalogue.rows.values()] == ["sealed"]


async def test_ten_cycles_are_as_good_as_the_first(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        for cycle in range(1, 11):
            await world.run(studio.session_id)
            pair = await world.pair(studio.session_id)
            assert pair.run is not None
            assert pair.studio.generation == pair.run.generation == cycle
            assert (pair.run.restore_checkpoint_id is None) == (cycle == 1)
            await world.stop(studio.session_id)
        assert not world.compute.machine.runs
        assert not world.compute.machine.volumes
