"""What each door may ask: rights, values, names, lists, logs, events."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from portico_gateway.compute.memory import MemoryCompute
from portico_gateway.errors import BadRequest, Conflict, Forbidden, NotFound, PorticoError
from portico_gateway.link.messages import Presence
from portico_gateway.store.tables import labels
from portico_gateway.studios.events import MAX_PENDING, EventHub
from portico_gateway.studios.listing import Search, parse_search
from portico_gateway.studios.needs import Policy
from portico_gateway.studios.transitions import RIGHTS
from portico_gateway.studios.values import (
    Configuration,
    ForkStudio,
    NewStudio,
    StartOverride,
    Status,
    StudioChange,
    StudioEvent,
)
from portico_shared.messages import Step
from support.studio_world import (
    CONNECTOR,
    LAUNCHER,
    MAINTAINER,
    OWNER,
    STRANGER,
    VIEWER,
    WORKSPACE,
    studio_world,
)


def new_studio(**changes: object) -> NewStudio:
    new = NewStudio(
        name="one",
        template="portico/jupyterlab:4.6",
        compute_env_id="memory",
        configuration=Configuration(),
    )
    return replace(new, **changes)  # type: ignore[arg-type]


async def test_name_is_made_up_when_none_is_given(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        names = set()
        for _ in range(30):
            studio = await world.studios.add(OWNER, WORKSPACE, new_studio(name=None), start=False)
            names.add(studio.name)
        assert len(names) == 30


async def test_name_is_taken_once_in_a_workspace(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        await world.add("one")
        with pytest.raises(Conflict, match="'one'"):
            await world.add("one")
        with pytest.raises(Conflict, match="'one'"):
            await world.studios.validate_name(OWNER, WORKSPACE, " one ")
        await world.studios.validate_name(OWNER, WORKSPACE, "two")
        two = await world.add("two")
        with pytest.raises(Conflict, match="'one'"):
            await world.studios.update(OWNER, two.session_id, StudioChange(name="one"))
        results = await asyncio.gather(*(world.add("three") for _ in range(4)), return_exceptions=True)
        assert sum(isinstance(result, Conflict) for result in results) == 3


@pytest.mark.parametrize(
    "change",
    [
        {"name": "x" * 81},
        {"name": "line\nbreak"},
        {"description": "x" * 2049},
        {"template": "unknown/image:1"},
        {"compute_env_id": "elsewhere"},
        {"allowed_user_ids": (999,)},
        {"label_ids": (999,)},
        {"configuration": Configuration(cpu=0)},
        {"configuration": Configuration(cpu=3)},
        {"configuration": Configuration(memory=16)},
        {"configuration": Configuration(memory=9000)},
        {"configuration": Configuration(gpu=1)},
        {"configuration": Configuration(lifespan_hours=121)},
        {"configuration": Configuration(lifespan_hours=-1)},
        {"configuration": Configuration(environment=(("1X", "v"),))},
        {"configuration": Configuration(environment=(("PORTICO_RUN", "v"),))},
        {"configuration": Configuration(environment=(("A", "\0"),))},
        {"configuration": Configuration(environment=(("A", "x" * 40_000),))},
        {"configuration": Configuration(environment=tuple((f"V{i}", "") for i in range(201)))},
        {"configuration": Configuration(conda_environment="numpy")},
    ],
)
async def test_value_out_of_bounds_adds_nothing(tmp_path: Path, change: dict[str, object]) -> None:
    async with studio_world(tmp_path) as world:
        with pytest.raises(BadRequest):
            await world.studios.add(OWNER, WORKSPACE, new_studio(**change), start=True)
        assert (await world.studios.list_studios(OWNER, WORKSPACE)).total == 0
        assert not world.edge.routes


async def test_defaults_shrink_to_a_small_machine(tmp_path: Path) -> None:
    class Small(MemoryCompute):
        def describe(self):  # type: ignore[no-untyped-def]
            return replace(super().describe(), cpus=1, memory=2048)

    async with studio_world(tmp_path, compute=Small()) as world:
        studio = await world.add()
        assert (studio.configuration.cpu, studio.configuration.memory) == (1, 2048)


async def test_start_overrides_hold_for_that_run_only(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        override = StartOverride(configuration=Configuration(cpu=1, memory=512, lifespan_hours=2))
        view = await world.studios.start(OWNER, studio.session_id, override)
        assert (view.configuration.cpu, view.effective_lifespan_hours) == (1, 2)
        await world.placed(studio.session_id)
        assert world.compute.started[0].memory_mib == 512
        await world.agent(studio.session_id).comes_up()
        await world.until(studio.session_id, Status.RUNNING)
        await world.stop(studio.session_id)
        view = await world.studios.describe(OWNER, studio.session_id)
        assert (view.configuration.cpu, view.effective_lifespan_hours) == (2, 8)


async def test_lifespan_fixed_by_the_workspace_wins(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        world.rights.fixed = Policy(lifespan_hours=3, private_by_default=True)
        studio = await world.studios.add(OWNER, WORKSPACE, new_studio(), start=True)
        assert studio.effective_lifespan_hours == 3
        assert studio.is_private


async def test_environment_reaches_the_plan_and_not_the_boot(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        configuration = Configuration(environment=(("MY_KEY", "secret value"),))
        studio = await world.studios.add(OWNER, WORKSPACE, new_studio(configuration=configuration), start=True)
        await world.placed(studio.session_id)
        plan = await world.lifecycle.plan(world.live(studio.session_id).run.id)
        assert plan.environment == {"MY_KEY": "secret value"}
        assert "secret value" not in repr(world.compute.started[0])


EXPECTED = {
    OWNER: {"connect", "stop", "fork", "checkpoint", "extend", "logs"},
    MAINTAINER: {"connect", "stop", "fork", "checkpoint", "extend", "logs"},
    LAUNCHER: {"connect", "stop", "checkpoint", "extend", "logs"},
    CONNECTOR: {"connect", "extend", "logs"},
    VIEWER: {"logs"},
}


async def test_each_role_is_offered_what_it_may_do_and_told_why_not(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        await world.run(studio.session_id)
        for actor, actions in EXPECTED.items():
            view = await world.studios.describe(actor, studio.session_id)
            assert set(view.actions) == actions
            assert set(view.refusals) == set(RIGHTS) - actions
            assert all(view.refusals.values())


async def test_what_is_not_offered_is_refused(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        sid = studio.session_id
        for actor in (CONNECTOR, VIEWER):
            for call in (
                world.studios.add(actor, WORKSPACE, new_studio(name="x"), start=False),
                world.studios.update(actor, sid, StudioChange(description="x")),
                world.studios.start(actor, sid),
                world.studios.stop(actor, sid),
                world.studios.fork(actor, sid, None, ForkStudio()),
                world.studios.delete(actor, sid),
                world.studios.checkpoint_now(actor, sid),
                world.studios.rename_checkpoint(actor, sid, 1, "x"),
                world.studios.validate_name(actor, WORKSPACE, "x"),
            ):
                with pytest.raises(Forbidden):
                    await call
        assert (await world.pair(sid)).studio.status is Status.STOPPED


async def test_stranger_sees_that_nothing_is_there(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        sid = studio.session_id
        for call in (
            world.studios.list_studios(STRANGER, WORKSPACE),
            world.studios.describe(STRANGER, sid),
            world.studios.start(STRANGER, sid),
            world.studios.stop(STRANGER, sid),
            world.studios.delete(STRANGER, sid),
            world.studios.logs(STRANGER, sid),
            world.studios.list_checkpoints(STRANGER, sid),
            world.studios.extend(STRANGER, sid),
        ):
            with pytest.raises(NotFound):
                await call
        with pytest.raises(NotFound):
            await anext(world.studios.watch(STRANGER, WORKSPACE))


@pytest.mark.parametrize("session_id", ["00000000", "", "../../x", "A" * 8, "x" * 10_000, "'; drop table studios"])
async def test_unknown_studio_is_not_found(tmp_path: Path, session_id: str) -> None:
    async with studio_world(tmp_path) as world:
        with pytest.raises(NotFound):
            await world.studios.describe(OWNER, session_id)
        with pytest.raises(NotFound):
            await world.studios.start(OWNER, session_id)


async def test_studio_of_another_workspace_is_not_found_there(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        with pytest.raises(NotFound):
            await world.studios.describe(OWNER, studio.session_id, workspace_id=2)


async def test_where_studios_cannot_be_kept_apart_only_one_opens_them(tmp_path: Path) -> None:
    async with studio_world(tmp_path, compute=MemoryCompute(shared=False)) as world:
        roles = world.rights.roles
        studio = await world.add()
        roles[(WORKSPACE, 2)] = roles[(WORKSPACE, 5)]  # what the real rights say of who may not open
        view = await world.studios.describe(MAINTAINER, studio.session_id)
        assert "only the account that started Portico" in view.refusals["start"]
        assert "Nothing runs here" in view.refusals["connect"]
        with pytest.raises(PorticoError):
            await world.studios.start(MAINTAINER, studio.session_id)
        await world.run(studio.session_id)


async def test_edit_changes_what_was_given_and_only_while_it_rests(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        change = StudioChange(name="new name", configuration=Configuration(cpu=1), allowed_user_ids=(4, 5, 4))
        view = await world.studios.update(MAINTAINER, studio.session_id, change)
        assert (view.name, view.description, view.configuration.cpu) == ("new name", "", 1)
        assert view.allowed_user_ids == (4, 5)
        await world.run(studio.session_id)
        with pytest.raises(Conflict, match="stop it before you edit"):
            await world.studios.update(OWNER, studio.session_id, StudioChange(name="x"))


async def test_delete_takes_everything_with_it(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        agent = await world.run(studio.session_id)
        world.parts.logs.append(agent.run_id, "tool", 0, b"hello")
        with pytest.raises(Conflict, match="stop it before you delete"):
            await world.studios.delete(OWNER, studio.session_id)
        await world.stop(studio.session_id)
        await world.studios.delete(OWNER, studio.session_id)
        assert not world.catalogue.rows
        assert studio.session_id not in world.edge.routes
        assert not (tmp_path / "runs" / agent.run_id).exists()
        assert await world.parts.records.run(agent.run_id) is None


async def test_list_is_searched_and_paged(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        for name in ("Protein folding", "protein design", "notes 100%", "notes 1000"):
            await world.add(name)
            world.clock.set_wall(world.clock.now() + 1)
        mine = await world.add("mine", MAINTAINER)
        await world.run(mine.session_id)

        async def names(search: str, **page: int) -> list[str]:
            found = await world.studios.list_studios(VIEWER, WORKSPACE, search=search, **page)
            return [view.name for view in found.studios]

        assert (await names(""))[0] == "mine"  # running before the rest
        assert await names("", offset=1, limit=2) == ["notes 1000", "notes 100%"]
        assert await names("PROTEIN") == ["protein design", "Protein folding"]
        assert await names("0%") == ["notes 100%"]
        assert await names("status:running") == ["mine"]
        assert await names("author:MIA") == ["mine"]
        assert await names("env:memory protein design") == ["protein design"]
        assert await names('"protein d"') == ["protein design"]
        assert await names("env:elsewhere") == []
        for bad in ({"offset": -1}, {"limit": 0}, {"limit": 101}):
            with pytest.raises(BadRequest):
                await names("", **bad)
        with pytest.raises(BadRequest, match="unknown status"):
            await names("status:sleeping")


def test_search_is_read_as_people_type_it() -> None:
    assert parse_search('a "b c" status:buildFailed') == Search(words=("a", "b c"), statuses=("build-failed",))
    assert parse_search('half "open') == Search(words=("half", '"open'))
    assert parse_search("http://x status:") == Search(words=("http://x", "status:"))
    with pytest.raises(BadRequest):
        parse_search("x" * 257)


async def test_progress_tells_each_step_and_how_far_it_is(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        await world.studios.start(OWNER, studio.session_id)
        await world.placed(studio.session_id)
        await world.settles()
        agent = world.agent(studio.session_id)
        await world.lifecycle.on_message(agent.run_id, Step(run=agent.run_id, at=0, name="restoring", state="started"))
        await agent.says("restoring", done=412_000_000, total=1_200_000_000)
        view = await world.studios.describe(OWNER, studio.session_id)
        assert [(step.name, step.state, step.detail) for step in view.progress] == [
            ("provisioning", "started", ""),
            ("provisioning", "done", ""),
            ("restoring", "started", "412 MB of 1.2 GB"),
        ]


async def test_agent_that_reports_without_end_is_not_listened_to(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        agent = await world.run(studio.session_id)
        for number in range(450):
            step = Step(run=agent.run_id, at=0, name="x" * 999, state="done", detail=str(number) * 999)
            await world.lifecycle.on_message(agent.run_id, step)
        steps = await world.parts.records.steps(agent.run_id)
        assert len(steps) == 400
        assert max(len(step.name) + len(step.detail) for step in steps) <= 64 + 1024


async def test_who_is_connected_is_seen(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        await world.run(studio.session_id)
        here = Presence(session_id=studio.session_id, users=((4, 10.0), (2, 20.0)))
        assert world.parts.visitors.report("w1", here)
        assert not world.parts.visitors.report("w1", here)
        view = await world.studios.describe(VIEWER, studio.session_id)
        assert [connection.user.user_name for connection in view.connections] == ["cleo", "mia"]
        assert world.parts.visitors.report("w1", Presence(session_id=studio.session_id, users=()))
        assert not (await world.studios.describe(VIEWER, studio.session_id)).connections


async def test_visitors_of_a_silent_worker_are_forgotten(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        world.parts.visitors.report("w1", Presence(session_id="00000001", users=((4, 10.0),)))
        await world.passes(121, step=121)
        assert not world.parts.visitors.of("00000001")


async def test_watcher_sees_a_studio_come_and_go(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        events, seen = world.studios.watch(VIEWER, WORKSPACE), []

        async def watching() -> None:
            async for event in events:
                seen.append(event.kind)
                if event.kind == "deleted":
                    return

        async with asyncio.TaskGroup() as group:
            group.create_task(watching())
            while not world.hub.watchers:
                await world.settles()
            studio = await world.add()
            await world.run(studio.session_id)
            await world.stop(studio.session_id)
            await world.studios.delete(OWNER, studio.session_id)
        await events.aclose()  # type: ignore[attr-defined]
        assert seen[0] == "added"
        assert {"status", "progress", "checkpoint", "deleted"} <= set(seen)
        assert world.hub.watchers == 0


async def test_watcher_who_loses_the_right_is_sent_away(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        events = world.studios.watch(VIEWER, WORKSPACE)
        first = asyncio.ensure_future(anext(events))
        while not world.hub.watchers:
            await world.settles()
        await world.add("one")
        assert (await first).kind == "added"
        del world.rights.roles[(WORKSPACE, 5)]
        await world.passes(6)
        await world.add("two")
        with pytest.raises(NotFound):
            await anext(events)
        assert world.hub.watchers == 0


async def test_watcher_that_does_not_read_holds_nobody_up_and_costs_little() -> None:
    hub = EventHub()
    events = hub.watch(1)
    first = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    for number in range(10 * MAX_PENDING):
        hub.publish(StudioEvent(1, f"{number:08x}", "status"))
        hub.publish(StudioEvent(2, f"{number:08x}", "status"))
    assert (await first).workspace_id == 1
    count = 1
    while hub._watchers and next(iter(hub._watchers)).pending:
        await anext(events)
        count += 1
    assert count <= MAX_PENDING
    await events.aclose()


async def test_log_is_read_on_from_an_offset_and_never_splits_a_character(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        agent = await world.run(studio.session_id)
        text = "größe ✓\n".encode()
        world.parts.logs.append(agent.run_id, "tool", 0, text[:-3])
        first = await world.studios.logs(OWNER, studio.session_id, stream="tool")
        assert first.text == "größe "
        world.parts.logs.append(agent.run_id, "tool", len(text) - 3, text[-3:])
        rest = await world.studios.logs(OWNER, studio.session_id, stream="tool", offset=first.next_offset)
        assert rest.text == "✓\n"
        assert not rest.ended
        await world.stop(studio.session_id)
        assert (await world.studios.logs(OWNER, studio.session_id, offset=rest.next_offset)).ended
        for stream, offset in (("../x", 0), ("tool", -1)):
            with pytest.raises(BadRequest):
                await world.studios.logs(OWNER, studio.session_id, stream=stream, offset=offset)


async def test_studio_that_never_ran_has_an_empty_log(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        chunk = await world.studios.logs(VIEWER, studio.session_id)
        assert (chunk.text, chunk.ended) == ("", True)


async def test_logs_of_old_runs_go(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        for _ in range(8):
            agent = await world.run(studio.session_id)
            world.parts.logs.append(agent.run_id, "tool", 0, b"x")
            await world.stop(studio.session_id)
        assert len(list((tmp_path / "runs").iterdir())) <= 6


async def test_extending_what_has_no_end_is_refused(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        new = new_studio(configuration=Configuration(lifespan_hours=0))
        studio = await world.studios.add(OWNER, WORKSPACE, new, start=False)
        with pytest.raises(Conflict, match="its time begins"):
            await world.studios.extend(CONNECTOR, studio.session_id)
        await world.run(studio.session_id)
        with pytest.raises(Conflict, match="no end"):
            await world.studios.extend(CONNECTOR, studio.session_id)


async def test_what_the_machine_writes_of_the_agent_is_in_the_whole_log(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        studio = await world.add()
        agent = await world.run(studio.session_id)
        file = tmp_path / "runs" / agent.run_id / "agent.log"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("agent: hello\n")
        await world.passes(6)
        world.parts.logs.append(agent.run_id, "tool", 0, b"tool: hello\n")
        with file.open("a") as out:
            out.write("agent: bye\n")
        await world.stop(studio.session_id)
        chunk = await world.studios.logs(OWNER, studio.session_id)
        assert chunk.text == "agent: hello\ntool: hello\nagent: bye\n"
        assert (await world.studios.logs(OWNER, studio.session_id, stream="agent")).text == "agent: hello\nagent: bye\n"


async def test_labels_are_the_workspaces_own(tmp_path: Path) -> None:
    async with studio_world(tmp_path) as world:
        async with world.store.begin() as db:
            for number, workspace in ((1, WORKSPACE), (2, WORKSPACE), (3, 2)):
                values = {"id": number, "workspace_id": workspace, "name": f"label{number}", "created": 0}
                await db.execute(labels.insert().values(**values))
        studio = await world.studios.add(OWNER, WORKSPACE, new_studio(label_ids=(1, 2)), start=False)
        assert studio.labels == ((1, "label1", None), (2, "label2", None))
        view = await world.studios.update(OWNER, studio.session_id, StudioChange(label_ids=(2,)))
        assert view.labels == ((2, "label2", None),)
        with pytest.raises(BadRequest, match="no label 3"):
            await world.studios.update(OWNER, studio.session_id, StudioChange(label_ids=(3,)))
