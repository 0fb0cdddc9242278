"""How runs end: killed agents, tools and machines, silence, time, force; and what becomes of their volume."""

import contextlib
from pathlib import Path

import pytest

from portico_gateway.compute.environment import Placement, RunSpec, RunState
from portico_gateway.compute.memory import MemoryCompute
from portico_gateway.errors import Conflict, Unavailable
from portico_gateway.studios.values import Status, StopReason, StudioView
from portico_shared.messages import CheckpointDone, Reidentify, Step, Stop, Warning_
from support.studio_world import OWNER, FailingStore, World, studio_world


class DeafCompute(MemoryCompute):
    """Cannot be asked while `deaf`."""

    deaf = False

    async def inspect(self, run_id: str, placement: Placement) -> RunState:
        if self.deaf:
            raise Unavailable("the cluster's API does not answer")
        return await super().inspect(run_id, placement)


async def seen(world: World, studio: StudioView) -> StudioView:
    return await world.studios.describe(OWNER, studio.session_id)


async def test_run_that_dies_is_errored_at_once_and_its_volume_kept(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        agent = await world.run(studio.session_id)
        world.compute.die(agent.run_id, "portico-init was killed (signal 9)")
        await world.until(studio.session_id, Status.ERRORED, seconds=6)
        view = await seen(world, studio)
        assert "portico-init was killed (signal 9)" in view.status_message
        assert "kept on this machine" in view.status_message
        assert world.compute.has_volume(studio.session_id)
        assert world.edge.routes[studio.session_id].state == "errored"
        assert ("", agent.run_id) in world.edge.revoked


async def test_next_start_salvages_what_a_dead_run_left(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        agent = await world.run(studio.session_id)
        world.compute.die(agent.run_id)
        await world.until(studio.session_id, Status.ERRORED)
        await world.studios.start(OWNER, studio.session_id)
        await world.placed(studio.session_id)
        plan = await world.lifecycle.plan(world.live(studio.session_id).run.id)
        assert plan.salvage
        assert plan.restore is None
        assert plan.generation == 2


async def test_older_checkpoint_is_not_chosen_over_unsaved_changes(tmp_path: Path) -> None:
    from portico_gateway.studios.values import StartOverride

    async with studio_world(tmp_path) as world:
        studio = await world.add()
        agent = await world.run(studio.session_id)
        world.compute.die(agent.run_id)
        await world.until(studio.session_id, Status.ERRORED)
        with pytest.raises(Conflict, match="without choosing a checkpoint"):
            await world.studios.start(OWNER, studio.session_id, StartOverride(checkpoint_id=1))


async def test_run_that_died_before_anything_was_launched_leaves_nothing_to_salvage(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        await world.studios.start(OWNER, studio.session_id)
        await world.placed(studio.session_id)
        await world.agent(studio.session_id).says("restoring", done=3, total=9)
        world.compute.die(world.live(studio.session_id).run.id)
        await world.until(studio.session_id, Status.ERRORED)
        assert not world.compute.has_volume(studio.session_id)


async def test_salvaging_run_that_dies_early_keeps_what_it_was_to_salvage(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        agent = await world.run(studio.session_id)
        for _ in range(2):
            world.compute.die(agent.run_id)
            await world.until(studio.session_id, Status.ERRORED)
            assert world.compute.has_volume(studio.session_id)
            await world.studios.start(OWNER, studio.session_id)
            await world.placed(studio.session_id)
            agent = world.agent(studio.session_id)


async def test_last_will_alone_changes_nothing_but_the_words(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        agent = await world.run(studio.session_id)
        agent.answers = False
        await agent.will()
        await world.passes(600, step=5)
        view = await seen(world, studio)
        assert view.status is Status.RUNNING
        assert "cannot be reached" in view.status_message
        assert any(isinstance(command, Reidentify) for command in agent.commands)
        await agent.says("running", "up", tool_port=8888)
        assert (await seen(world, studio)).status_message == ""


async def test_last_will_asks_the_machine_at_once(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        agent = await world.run(studio.session_id)
        await world.passes(0.5)
        world.compute.die(agent.run_id, "out of memory")
        await agent.will()
        await world.until(studio.session_id, Status.ERRORED, seconds=1.6)


async def test_late_will_of_an_older_agent_is_not_believed(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        agent = await world.run(studio.session_id)
        agent.number, agent.seq = 2, 0
        await agent.says("running", "up", tool_port=8888)
        agent.number = 1
        await agent.will()
        assert world.live(studio.session_id).reachable


async def test_silence_is_death_only_when_the_machine_cannot_be_asked(tmp_path: Path) -> None:
    compute = DeafCompute()
    async with studio_world(tmp_path, compute=compute) as world:
        studio = await world.add()
        agent = await world.run(studio.session_id)
        compute.deaf = True
        await world.passes(300, step=5)
        assert (await seen(world, studio)).status is Status.RUNNING  # its connection stands
        await agent.will()
        agent.answers = False
        await world.passes(50, step=5)
        assert (await seen(world, studio)).status is Status.RUNNING
        await world.until(studio.session_id, Status.ERRORED, seconds=20)
        assert "the cluster's API does not answer" in (await seen(world, studio)).status_message


async def test_a_tunnel_is_contact_enough(tmp_path: Path) -> None:
    compute = DeafCompute()
    async with studio_world(tmp_path, compute=compute) as world:
        studio = await world.add()
        agent = await world.run(studio.session_id)
        compute.deaf, agent.answers = True, False
        world.lifecycle.on_tunnels("w1", agent.run_id, 2)
        await agent.will()
        await world.passes(300, step=5)
        assert (await seen(world, studio)).status is Status.RUNNING
        world.lifecycle.on_tunnels("w1", agent.run_id, 0)
        await world.until(studio.session_id, Status.ERRORED, seconds=70)


async def test_wall_clock_that_jumps_ends_nothing(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        await world.run(studio.session_id)
        world.clock.set_wall(world.clock.now() + 24 * 3600)
        await world.passes(120, step=5)
        assert (await seen(world, studio)).status is Status.RUNNING


async def test_lifespan_that_ends_stops_the_studio(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        await world.run(studio.session_id)
        await world.passes(8 * 3600 - 60, step=30)
        assert (await seen(world, studio)).status is Status.RUNNING
        await world.until(studio.session_id, Status.STOPPED, seconds=120)
        assert (await seen(world, studio)).stop_reason is StopReason.LIFESPAN_EXPIRED


async def test_extended_lifespan_ends_later(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        await world.run(studio.session_id)
        before = (await seen(world, studio)).lifespan_ends
        view = await world.studios.extend(OWNER, studio.session_id)
        assert before is not None
        assert view.lifespan_ends == before + 8 * 3600
        await world.passes(8 * 3600 + 60, step=30)
        assert (await seen(world, studio)).status is Status.RUNNING


async def test_lifespan_is_not_extended_without_end(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        await world.run(studio.session_id)
        with pytest.raises(Conflict, match="120 hours"):
            for _ in range(20):
                await world.studios.extend(OWNER, studio.session_id)


async def test_tool_that_never_answers_is_errored_with_its_last_words(tmp_path: Path) -> None:
    async with studio_world(tmp_path, start_timeout=60.0) as world:
        studio = await world.add()
        await world.studios.start(OWNER, studio.session_id)
        await world.placed(studio.session_id)
        agent = world.agent(studio.session_id)
        await agent.says("running", "up", tool_port=8888)
        world.parts.logs.append(agent.run_id, "tool", 0, b"ImportError: no module named jupyterlab\n")
        await world.passes(50)
        assert (await seen(world, studio)).status is Status.STARTING
        await world.until(studio.session_id, Status.ERRORED, seconds=30)
        message = (await seen(world, studio)).status_message
        assert "did not answer within 60 s" in message
        assert "ImportError: no module named jupyterlab" in message
        assert agent.run_id in world.compute.killed


async def test_long_restore_does_not_count_as_a_tool_that_does_not_answer(tmp_path: Path) -> None:
    async with studio_world(tmp_path, start_timeout=60.0) as world:
        studio = await world.add()
        await world.studios.start(OWNER, studio.session_id)
        await world.placed(studio.session_id)
        agent = world.agent(studio.session_id)
        await agent.says("restoring", done=1, total=1000)
        await world.passes(300, step=5)
        assert (await seen(world, studio)).status is Status.STARTING
        await agent.comes_up()
        await world.until(studio.session_id, Status.RUNNING)


async def test_agent_that_is_never_heard_of_is_errored(tmp_path: Path) -> None:
    async with studio_world(tmp_path, start_timeout=60.0) as world:
        studio = await world.add()
        await world.studios.start(OWNER, studio.session_id)
        await world.placed(studio.session_id)
        await world.until(studio.session_id, Status.ERRORED, seconds=70)
        assert "Nothing was heard of its agent" in (await seen(world, studio)).status_message


async def test_tool_that_exits_with_an_error_is_saved_and_then_told(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        agent = await world.run(studio.session_id)
        world.parts.logs.append(agent.run_id, "tool", 0, b"Segmentation fault\n")
        await agent.says("running", "exited", exit_code=-11)
        await world.until(studio.session_id, Status.ERRORED, seconds=10)
        view = await seen(world, studio)
        assert "The tool ended (killed by SIGSEGV)." in view.status_message
        assert "Segmentation fault" in view.status_message
        assert world.compute.released == [studio.session_id]


async def test_tool_shut_down_from_inside_stops_the_studio(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        agent = await world.run(studio.session_id)
        await agent.says("running", "exited", exit_code=0)
        await world.until(studio.session_id, Status.STOPPED, seconds=10)
        assert (await seen(world, studio)).status_message == "The tool was shut down from inside."


async def test_agent_that_gives_up_while_starting_says_why(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        await world.studios.start(OWNER, studio.session_id)
        await world.placed(studio.session_id)
        agent = world.agent(studio.session_id)
        step = Step(run=agent.run_id, at=0, name="restoring", state="failed", detail="pack 12ab… is damaged")
        await world.lifecycle.on_message(agent.run_id, step)
        await agent.says("left")
        world.compute.leave(agent.run_id)
        await world.until(studio.session_id, Status.ERRORED, seconds=10)
        view = await seen(world, studio)
        assert "pack 12ab… is damaged" in view.status_message
        assert ("restoring", "failed") in [(step.name, step.state) for step in view.progress]


async def test_run_ended_from_outside_in_order_is_stopped_not_errored(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        agent = await world.run(studio.session_id)
        await agent.leaves()
        await world.until(studio.session_id, Status.STOPPED, seconds=10)
        assert "ended from outside" in (await seen(world, studio)).status_message


async def test_stop_of_an_unreachable_agent_ends_in_force_after_a_while(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        agent = await world.run(studio.session_id)
        agent.answers = False
        await world.studios.stop(OWNER, studio.session_id)
        await world.passes(50)
        assert (await seen(world, studio)).status is Status.STOPPING
        await world.until(studio.session_id, Status.STOPPED, seconds=20)
        view = await seen(world, studio)
        assert "without a final checkpoint" in view.status_message
        assert "kept on this machine" in view.status_message
        assert world.compute.has_volume(studio.session_id)


async def test_stop_waits_for_a_long_final_checkpoint(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        agent = await world.run(studio.session_id)
        agent.obeys = False
        await world.studios.stop(OWNER, studio.session_id)
        await agent.says("stopping", "up", tool_port=8888)
        await world.passes(1800, step=10)
        assert (await seen(world, studio)).status is Status.STOPPING
        await agent.leaves()
        await world.until(studio.session_id, Status.STOPPED, seconds=10)
        assert world.compute.released == [studio.session_id]


async def test_second_stop_forces_only_after_ten_minutes(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        agent = await world.run(studio.session_id)
        agent.obeys = False
        await world.studios.stop(OWNER, studio.session_id)
        await agent.says("stopping", "up", tool_port=8888)
        await world.passes(590, step=10)
        with pytest.raises(Conflict, match="second stop"):
            await world.studios.stop(OWNER, studio.session_id)
        assert "stop" not in (await seen(world, studio)).actions
        await world.passes(20, step=10)
        assert "stop" in (await seen(world, studio)).actions
        await world.studios.stop(OWNER, studio.session_id)
        await world.until(studio.session_id, Status.STOPPED, seconds=10)
        assert agent.run_id in world.compute.killed
        assert world.compute.has_volume(studio.session_id)


async def test_agent_restarted_while_stopping_is_told_again(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        agent = await world.run(studio.session_id)
        agent.obeys = False
        await world.studios.stop(OWNER, studio.session_id)
        await world.passes(2)
        agent.number, agent.seq, agent.obeys = 2, 0, True
        await agent.says("running", "up", tool_port=8888)
        await world.until(studio.session_id, Status.STOPPED, seconds=20)
        assert [type(command) for command in agent.commands] == [Stop, Stop]
        assert agent.commands[0].id == agent.commands[1].id


async def test_run_killed_while_stopping_is_errored_and_kept(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        agent = await world.run(studio.session_id)
        agent.obeys = False
        await world.studios.stop(OWNER, studio.session_id)
        await world.passes(1)
        world.compute.die(agent.run_id, "killed")
        await world.until(studio.session_id, Status.ERRORED, seconds=10)
        assert world.compute.has_volume(studio.session_id)


async def test_final_checkpoint_that_failed_keeps_the_volume_and_says_so(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        agent = await world.run(studio.session_id)
        agent.saves = False
        await world.stop(studio.session_id)
        assert "kept on this machine" in (await seen(world, studio)).status_message
        assert world.compute.has_volume(studio.session_id)


async def test_run_that_left_but_lingers_is_ended(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        agent = await world.run(studio.session_id)
        agent.obeys = False
        await world.studios.stop(OWNER, studio.session_id)
        await agent.commits("stop")
        await agent.says("left", "exited")
        await world.until(studio.session_id, Status.STOPPED, seconds=30)
        assert world.compute.killed == [agent.run_id]
        assert world.compute.released == [studio.session_id]


async def test_warnings_leave_it_running_and_go_when_all_is_well(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        agent = await world.run(studio.session_id)
        disk = Warning_(run=agent.run_id, at=0, kind="disk", detail="the studio's disk is nearly full")
        await world.lifecycle.on_message(agent.run_id, disk)
        view = await seen(world, studio)
        assert (view.status, view.status_message) == (Status.RUNNING, "the studio's disk is nearly full")
        failed = CheckpointDone(run=agent.run_id, at=0, ok=False, reason="interval", detail="the store is away\nat 1")
        await world.lifecycle.on_message(agent.run_id, failed)
        same = Warning_(run=agent.run_id, at=0, kind="storage", detail="in other words")
        await world.lifecycle.on_message(agent.run_id, same)
        assert (await seen(world, studio)).status_message == "A checkpoint could not be saved: the store is away"
        saved = CheckpointDone(run=agent.run_id, at=0, ok=True, reason="interval")
        await world.lifecycle.on_message(agent.run_id, saved)
        assert (await seen(world, studio)).status_message == ""


async def test_end_is_written_down_when_the_store_comes_back(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        agent = await world.run(studio.session_id)
        world.store.away = Unavailable("the database's disk is full")
        world.compute.die(agent.run_id, "gone")
        await world.passes(60, step=1)
        assert (await seen(world, studio)).status is Status.RUNNING
        world.store.away = None
        await world.until(studio.session_id, Status.ERRORED, seconds=10)
        assert "gone" in (await seen(world, studio)).status_message


async def test_store_that_is_away_for_a_while_ends_nothing(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        await world.studios.start(OWNER, studio.session_id)
        await world.placed(studio.session_id)
        agent = world.agent(studio.session_id)
        world.store.away = Unavailable("the database is busy")
        for say in (agent.says("launching", "starting", tool_port=8888), agent.says("running", "up", tool_port=8888)):
            with contextlib.suppress(Unavailable):
                await say
        world.edge.answers[studio.session_id] = 200
        await world.passes(30)
        world.store.away = None
        await world.until(studio.session_id, Status.RUNNING, seconds=30)
        run = (await world.pair(studio.session_id)).run
        assert run is not None
        assert (run.tool_port, run.launched) == (8888, True)
        await world.stop(studio.session_id)


async def test_place_found_while_the_store_is_away_is_not_lost(tmp_path: Path) -> None:
    class Awkward(MemoryCompute):
        store: FailingStore

        async def start(self, spec: RunSpec) -> Placement:
            self.store.away = Unavailable("the database's disk is full")
            return await super().start(spec)

    compute = Awkward()
    async with studio_world(tmp_path, compute=compute) as world:
        compute.store = world.store
        studio = await world.add()
        await world.studios.start(OWNER, studio.session_id)
        await world.placed(studio.session_id)
        await world.passes(10)
        world.store.away = None
        await world.passes(10)
        run = (await world.pair(studio.session_id)).run
        assert run is not None
        assert run.placement is not None
        assert len(compute.started) == 1
        await world.agent(studio.session_id).comes_up()
        await world.until(studio.session_id, Status.RUNNING)


async def test_half_a_restore_is_never_kept_to_be_salvaged(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        await world.run(studio.session_id)
        await world.stop(studio.session_id)
        await world.studios.start(OWNER, studio.session_id)
        await world.placed(studio.session_id)
        agent = world.agent(studio.session_id)
        await agent.says("restoring", done=1, total=9)
        agent.obeys = False
        await world.studios.stop(OWNER, studio.session_id)
        await agent.says("stopping")
        await agent.says("left")
        world.compute.leave(agent.run_id)
        await world.until(studio.session_id, Status.STOPPED, seconds=10)
        assert not world.compute.has_volume(studio.session_id)


async def test_last_checkpoint_counts_as_last_only_while_none_follows(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        agent = await world.run(studio.session_id)
        await agent.commits("signal")
        await agent.commits("interval")
        world.compute.die(agent.run_id)
        await world.until(studio.session_id, Status.ERRORED)
        assert world.compute.has_volume(studio.session_id)


async def test_last_checkpoint_without_a_change_lets_the_volume_go(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        agent = await world.run(studio.session_id)
        agent.saves = False
        done = CheckpointDone(run=agent.run_id, at=0, ok=True, reason="stop")
        await world.lifecycle.on_message(agent.run_id, done)
        await world.stop(studio.session_id)
        assert world.compute.released == [studio.session_id]
        assert (await seen(world, studio)).status_message == ""
