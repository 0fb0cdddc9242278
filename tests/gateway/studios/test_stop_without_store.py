"""The checkpoint store is away while a studio stops: people see why it takes so long."""

from pathlib import Path

from portico_gateway.studios.values import Status
from portico_shared.messages import CheckpointDone, Warning_
from support.studio_world import OWNER, studio_world

AWAY = "It cannot be saved at the moment and is tried again: the store does not answer."


async def test_stopping_studio_says_what_it_waits_for_and_forgets_it_when_saved(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        agent = await world.run(studio.session_id)
        agent.obeys = False
        warning = Warning_(run=agent.run_id, at=0, kind="storage", detail=AWAY)
        await world.lifecycle.on_message(agent.run_id, warning)  # told while it ran; told again while it stops
        await world.studios.stop(OWNER, studio.session_id)
        await world.lifecycle.on_message(agent.run_id, warning)
        view = await world.studios.describe(OWNER, studio.session_id)
        assert (view.status, view.status_message) == (Status.STOPPING, AWAY)
        await agent.commits("stop")
        await world.lifecycle.on_message(agent.run_id, CheckpointDone(run=agent.run_id, at=0, ok=True, reason="stop"))
        await agent.says("left", "exited")
        await world.until(studio.session_id, Status.STOPPED, seconds=30)
        assert (await world.studios.describe(OWNER, studio.session_id)).status_message == ""
        assert world.compute.released == [studio.session_id]
