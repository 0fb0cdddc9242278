"""Copies: of a stopped studio, of a running one, of an older checkpoint; and checkpoints on request."""

from pathlib import Path

import pytest

from portico_gateway.errors import Conflict, Forbidden, NotFound, Unavailable
from portico_gateway.studios.values import Configuration, ForkStudio, NewStudio, Status
from support.studio_world import CONNECTOR, LAUNCHER, MAINTAINER, OWNER, WORKSPACE, studio_world


async def test_copy_of_a_stopped_studio_begins_with_its_newest_checkpoint(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        parent = await world.add("paper")
        await world.run(parent.session_id)
        await world.stop(parent.session_id)
        child = await world.studios.fork(OWNER, parent.session_id, None, ForkStudio())
        assert child.name == "paper 2"
        assert child.status is Status.STOPPED
        assert child.parent is not None
        assert (child.parent.session_id, child.parent.studio_name) == (parent.session_id, "paper")
        old, new = (await world.pair(parent.session_id)).studio, (await world.pair(child.session_id)).studio
        assert new.lineage == old.lineage
        await world.studios.start(OWNER, child.session_id)
        plan = await world.lifecycle.plan(world.live(child.session_id).run.id)
        assert plan.forked
        assert plan.restore is not None
        head = world.catalogue.rows[child.parent.checkpoint_id].head
        assert plan.restore.head == head


async def test_only_the_first_run_of_a_copy_is_a_copy(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        parent = await world.add()
        await world.run(parent.session_id)
        await world.stop(parent.session_id)
        child = await world.studios.fork(OWNER, parent.session_id, None, ForkStudio())
        await world.run(child.session_id)
        await world.stop(child.session_id)
        await world.studios.start(OWNER, child.session_id)
        assert not (await world.lifecycle.plan(world.live(child.session_id).run.id)).forked


async def test_copy_stands_without_its_parent(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        parent = await world.add()
        await world.run(parent.session_id)
        await world.stop(parent.session_id)
        child = await world.studios.fork(OWNER, parent.session_id, None, ForkStudio())
        await world.studios.delete(OWNER, parent.session_id)
        await world.run(child.session_id)
        view = await world.studios.describe(OWNER, child.session_id)
        assert view.parent is None


async def test_copy_of_a_running_studio_is_saved_first_and_it_runs_on(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        parent = await world.add()
        await world.run(parent.session_id)
        child = await world.studios.fork(OWNER, parent.session_id, None, ForkStudio(name="copy", start=True))
        assert child.status is Status.STARTING
        assert child.parent is not None
        row = world.catalogue.rows[child.parent.checkpoint_id]
        assert (row.reason, row.status) == ("request", "sealed")
        plan = await world.lifecycle.plan(world.live(child.session_id).run.id)
        assert plan.restore is not None
        assert plan.restore.head == row.head
        assert (await world.pair(parent.session_id)).studio.status is Status.RUNNING


async def test_running_studio_that_cannot_be_saved_is_not_copied(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        parent = await world.add()
        agent = await world.run(parent.session_id)
        agent.saves = False
        with pytest.raises(Conflict, match="the disk is full"):
            await world.studios.fork(OWNER, parent.session_id, None, ForkStudio())
        assert (await world.studios.list_studios(OWNER, WORKSPACE)).total == 1


async def test_copy_of_an_older_checkpoint_takes_that_one(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        parent = await world.add()
        for _ in range(3):
            await world.run(parent.session_id)
            await world.stop(parent.session_id)
        page = await world.studios.list_checkpoints(OWNER, parent.session_id)
        second = page.checkpoints[1]
        child = await world.studios.fork(OWNER, parent.session_id, second.id, ForkStudio())
        assert child.parent is not None
        assert child.parent.checkpoint_id == second.id


async def test_adding_with_a_checkpoint_is_a_copy_too(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        parent = await world.add()
        await world.run(parent.session_id)
        await world.stop(parent.session_id)
        point = await world.catalogue.restore_point(parent.session_id, None)
        assert point is not None
        new = NewStudio(
            name="from it",
            template="portico/jupyterlab:4.6",
            compute_env_id="memory",
            configuration=Configuration(cpu=1),
            initial_checkpoint_id=point.checkpoint_id,
        )
        child = await world.studios.add(OWNER, WORKSPACE, new, start=False)
        assert child.parent is not None
        assert child.parent.session_id == parent.session_id
        assert child.configuration.cpu == 1
        with pytest.raises(NotFound):
            await world.studios.add(OWNER, 2, new, start=False)


async def test_copy_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        parent = await world.add()
        await world.run(parent.session_id)
        await world.stop(parent.session_id)
        world.catalogue.fail_next = Unavailable("the store is away")
        with pytest.raises(Unavailable):
            await world.studios.fork(OWNER, parent.session_id, None, ForkStudio())
        assert (await world.studios.list_studios(OWNER, WORKSPACE)).total == 1


async def test_studio_without_a_checkpoint_is_not_copied(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        parent = await world.add()
        with pytest.raises(Conflict, match="no checkpoint yet"):
            await world.studios.fork(OWNER, parent.session_id, None, ForkStudio())


async def test_copying_takes_the_right_to_add_and_to_look_inside(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        parent = await world.add("mine", MAINTAINER, is_private=True)
        await world.run(parent.session_id)
        await world.stop(parent.session_id)
        with pytest.raises(Forbidden):
            await world.studios.fork(LAUNCHER, parent.session_id, None, ForkStudio())
        with pytest.raises(Forbidden):  # the workspace's owner may stop it, but not look inside
            await world.studios.fork(OWNER, parent.session_id, None, ForkStudio())
        view = await world.studios.describe(OWNER, parent.session_id)
        assert "private" in view.refusals["fork"]
        assert "private" in view.refusals["logs"]
        child = await world.studios.fork(MAINTAINER, parent.session_id, None, ForkStudio())
        assert child.is_private


async def test_checkpoint_on_request_is_pending_then_sealed(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        await world.run(studio.session_id)
        view = await world.studios.checkpoint_now(LAUNCHER, studio.session_id, "before_the_talk")
        assert (view.name, view.reason) == ("before_the_talk", "request")
        await world.passes(1)
        assert (await world.studios.checkpoint(OWNER, studio.session_id, view.id)).status == "sealed"


async def test_checkpoint_on_request_that_fails_says_so(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        agent = await world.run(studio.session_id)
        agent.answers = False
        view = await world.studios.checkpoint_now(OWNER, studio.session_id)
        await world.passes(1)
        assert (await world.studios.checkpoint(OWNER, studio.session_id, view.id)).status == "failed"
        agent.answers = True
        again = await world.studios.checkpoint_now(OWNER, studio.session_id)
        await world.passes(1)
        assert (await world.studios.checkpoint(OWNER, studio.session_id, again.id)).status == "sealed"


async def test_checkpoint_takes_the_right_to_run_studios(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        await world.run(studio.session_id)
        with pytest.raises(Forbidden):
            await world.studios.checkpoint_now(CONNECTOR, studio.session_id)
