"""Checkpoints on request, when the agent or the run ends over them: nobody waits for what cannot come any more."""

from pathlib import Path

from portico_gateway.studios.values import Status
from portico_shared.messages import MakeCheckpoint
from support.studio_world import OWNER, studio_world


async def test_agent_that_takes_another_ones_place_is_asked_for_the_same_checkpoint_again(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        agent = await world.run(studio.session_id)
        agent.silent = True
        view = await world.studios.checkpoint_now(OWNER, studio.session_id)
        await world.passes(1)
        assert (await world.studios.checkpoint(OWNER, studio.session_id, view.id)).status == "pending"
        agent.silent = False
        agent.number, agent.seq = 2, 0
        await agent.says("running", "up", tool_port=8888)
        await world.passes(1)
        first, second = (command for command in agent.commands if isinstance(command, MakeCheckpoint))
        assert first == second
        assert (await world.studios.checkpoint(OWNER, studio.session_id, view.id)).status == "sealed"


async def test_run_that_dies_over_a_checkpoint_does_not_keep_the_next_one_from_making_its_own(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        agent = await world.run(studio.session_id)
        agent.silent = True
        view = await world.studios.checkpoint_now(OWNER, studio.session_id)
        world.compute.die(agent.run_id)
        await world.until(studio.session_id, Status.ERRORED, seconds=10)
        await world.passes(1)
        assert (await world.studios.checkpoint(OWNER, studio.session_id, view.id)).status == "failed"
        await world.run(studio.session_id)
        again = await world.studios.checkpoint_now(OWNER, studio.session_id)
        await world.passes(1)
        assert (await world.studios.checkpoint(OWNER, studio.session_id, again.id)).status == "sealed"


async def test_question_lost_with_the_connection_is_asked_again_as_soon_as_the_agent_is_back(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        agent = await world.run(studio.session_id)
        agent.silent = True
        await agent.will()
        view = await world.studios.checkpoint_now(OWNER, studio.session_id)
        await world.passes(1)
        agent.silent = False
        await agent.says("running", "up", tool_port=8888)
        await world.passes(1)
        first, second = (command for command in agent.commands if isinstance(command, MakeCheckpoint))
        assert first == second
        assert (await world.studios.checkpoint(OWNER, studio.session_id, view.id)).status == "sealed"
