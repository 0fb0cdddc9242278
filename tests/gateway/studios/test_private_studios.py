"""A private studio over the real rights: administrators stop and delete it, and never get in by a side door."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from portico_gateway.auth.rights import RightsService
from portico_gateway.auth.values import Role
from portico_gateway.errors import BadRequest, Conflict, Forbidden
from portico_gateway.store.tables import members
from portico_gateway.studios.service import StudioService
from portico_gateway.studios.values import (
    Configuration,
    ForkStudio,
    NewStudio,
    StartOverride,
    Status,
    StudioChange,
)
from support.studio_world import MAINTAINER, OWNER, WORKSPACE, World, studio_world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with studio_world(tmp_path) as opened:
        rows = [(OWNER, Role.OWNER), (MAINTAINER, Role.MAINTAIN)]
        async with opened.store.begin() as db:
            for actor, role in rows:
                row = {"workspace_id": WORKSPACE, "user_id": actor.user.id, "role": int(role), "since": 0.0}
                await db.execute(members.insert().values(**row))
        opened.studios = StudioService(opened.lifecycle, RightsService(opened.store))
        yield opened


async def test_an_owner_of_the_workspace_starts_and_stops_it_as_it_is(world: World) -> None:
    studio = await world.add(actor=MAINTAINER, is_private=True)
    await world.run(studio.session_id, OWNER)
    await world.stop(studio.session_id)
    with pytest.raises(Forbidden, match="private"):
        spy = Configuration(environment=(("BASH_ENV", "/workspace/spy.sh"),))
        await world.studios.start(OWNER, studio.session_id, StartOverride(configuration=spy))
    assert (await world.studios.describe(MAINTAINER, studio.session_id)).status is Status.STOPPED


async def test_an_owner_of_the_workspace_cannot_make_it_public_or_copy_it_or_read_its_log(world: World) -> None:
    studio = await world.add(actor=MAINTAINER, is_private=True)
    await world.run(studio.session_id, MAINTAINER)
    await world.studios.stop(MAINTAINER, studio.session_id)
    await world.until(studio.session_id, Status.STOPPED)
    changes = (
        StudioChange(is_private=False),
        StudioChange(allowed_user_ids=(OWNER.user.id,)),
        StudioChange(configuration=Configuration(environment=(("PYTHONSTARTUP", "/spy.py"),))),
    )
    for change in changes:
        with pytest.raises(Forbidden):
            await world.studios.update(OWNER, studio.session_id, change)
    with pytest.raises(Forbidden):
        await world.studios.fork(OWNER, studio.session_id, None, ForkStudio())
    with pytest.raises(Forbidden):
        await world.studios.logs(OWNER, studio.session_id)
    view = await world.studios.describe(OWNER, studio.session_id)
    assert view.is_private
    assert not view.actions & {"connect", "edit", "fork", "logs", "extend"}
    assert {"start", "delete"} <= view.actions
    await world.studios.delete(OWNER, studio.session_id)


async def test_a_change_that_is_refused_changes_nothing(world: World) -> None:
    one, two = await world.add("one", MAINTAINER), await world.add("two", MAINTAINER)
    with pytest.raises(Conflict, match="'two' exists"):
        await world.studios.update(MAINTAINER, one.session_id, StudioChange(name="two", description="new"))
    with pytest.raises(BadRequest, match="no label"):
        await world.studios.update(MAINTAINER, one.session_id, StudioChange(name="three", label_ids=(7,)))
    assert (await world.studios.describe(OWNER, one.session_id)).name == "one"
    assert (await world.studios.describe(OWNER, two.session_id)).name == "two"


async def test_variables_of_a_private_studio_are_shown_to_who_may_look_inside(world: World) -> None:
    new = NewStudio(
        name="mine",
        template="portico/jupyterlab:4.6",
        compute_env_id="memory",
        configuration=Configuration(environment=(("API_KEY", "secret"),)),
        is_private=True,
    )
    made = await world.studios.add(MAINTAINER, WORKSPACE, new, start=False)
    assert made.configuration.environment == (("API_KEY", "secret"),)
    assert (await world.studios.describe(OWNER, made.session_id)).configuration.environment == ()
    (row,) = (await world.studios.list_studios(OWNER, WORKSPACE)).studios
    assert row.configuration.environment == ()
    await world.studios.start(OWNER, made.session_id)
    assert world.live(made.session_id).run.configuration.environment == (("API_KEY", "secret"),)
