"""The role matrix, private studios, and machines that cannot keep people apart."""

import itertools
from pathlib import Path

import pytest
import sqlalchemy as sa

from portico_gateway.auth.permissions import LEAST, Standing, permitted, refusal
from portico_gateway.auth.rights import Sharing
from portico_gateway.auth.values import Action, Role, StudioRights, User
from portico_gateway.errors import Forbidden, NotFound
from portico_gateway.store.tables import users
from support.auth_world import AuthWorld, auth_world

MATRIX = """
                         view connect launch maintain admin owner
studio:read              Y    Y       Y      Y        Y     Y
studio:execute           n    n       Y      Y        Y     Y
studio:write             n    n       n      Y        Y     Y
studio:delete            n    n       n      Y        Y     Y
studio:admin             n    n       n      n        Y     Y
studio_session:read      n    Y       Y      Y        Y     Y
studio_session:execute   n    Y       Y      Y        Y     Y
workspace_studio:read    n    n       Y      Y        Y     Y
workspace_studio:write   n    n       n      n        Y     Y
members:read             Y    Y       Y      Y        Y     Y
members:write            n    n       n      n        Y     Y
instance:admin           n    n       n      n        n     n
"""
CREATOR, NAMED, OTHER = User(1, "creator", ""), User(2, "named", ""), User(3, "other", "")
OPEN = StudioRights("00000001", 1, CREATOR.id, False)
PRIVATE = StudioRights("00000002", 1, CREATOR.id, True, frozenset({NAMED.id}))


def expected() -> dict[tuple[Action, Role], bool]:
    head, *rows = MATRIX.strip("\n").splitlines()
    roles = [Role[name.upper()] for name in head.split()]
    return {
        (Action(row.split()[0]), role): mark == "Y"
        for row in rows
        for role, mark in zip(roles, row.split()[1:], strict=True)
    }


def test_the_matrix_names_every_action_and_role() -> None:
    assert set(expected()) == set(itertools.product(Action, Role))


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("studio", [None, OPEN], ids=["workspace", "studio"])
def test_each_role_may_what_the_matrix_says(role: Role, studio: StudioRights | None) -> None:
    found = permitted(Standing(OTHER, role), studio)
    assert found == {action for action in Action if expected()[action, role]}


@pytest.mark.parametrize("studio", [None, OPEN, PRIVATE])
@pytest.mark.parametrize("admin", [False, True])
def test_who_is_no_member_may_nothing_not_even_the_instances_administrator(
    studio: StudioRights | None, admin: bool
) -> None:
    assert permitted(Standing(User(9, "who", "", is_admin=admin), None), studio) == frozenset()
    assert permitted(Standing(User(1, "creator", "", is_admin=admin, disabled=True), Role.OWNER), studio) == frozenset()


@pytest.mark.parametrize("role", Role)
def test_a_private_studio_is_opened_by_its_creator_and_the_named_alone(role: Role) -> None:
    may = {user: permitted(Standing(user, role), PRIVATE) for user in (CREATOR, NAMED, OTHER)}
    usual = permitted(Standing(OTHER, role), OPEN)
    assert may[CREATOR] == usual
    assert Action.CONNECT not in may[OTHER]
    assert Action.EXTEND not in may[OTHER]
    assert Action.STUDIO_WRITE not in may[OTHER]
    assert (Action.CONNECT in may[NAMED]) == (Action.CONNECT in usual)
    assert (Action.STUDIO_EXECUTE in may[NAMED]) == (Action.STUDIO_EXECUTE in usual)
    administers = role >= Role.ADMIN
    assert (Action.STUDIO_EXECUTE in may[OTHER]) == administers
    assert (Action.STUDIO_DELETE in may[OTHER]) == administers
    assert (Action.STUDIO_DELETE in may[NAMED]) == administers
    assert Action.STUDIO_READ in may[OTHER]


def test_a_workspace_can_take_starting_away_from_launch_alone() -> None:
    for role in Role:
        without = permitted(Standing(OTHER, role, launch_may_start=False), OPEN)
        lost = {Action.STUDIO_EXECUTE} if role is Role.LAUNCH else set()
        assert without == permitted(Standing(OTHER, role), OPEN) - lost


def test_where_people_cannot_be_kept_apart_nothing_is_lost_but_opening() -> None:
    standing = Standing(OTHER, Role.OWNER, may_open=False, not_open_because="this machine cannot")
    assert permitted(Standing(OTHER, Role.OWNER), OPEN) - permitted(standing, OPEN) == {Action.CONNECT}
    assert refusal(standing, Action.CONNECT, OPEN) == "this machine cannot"


def test_every_refusal_is_a_sentence() -> None:
    for role, action, studio in itertools.product([None, *Role], Action, [None, OPEN, PRIVATE]):
        why = refusal(Standing(OTHER, role), action, studio)
        assert why is None or len(why) > 20


def test_actions_of_the_table_are_all_but_the_instances_own() -> None:
    assert set(Action) - set(LEAST) == {Action.INSTANCE_ADMIN}


async def test_strangers_hear_the_same_of_hidden_and_missing_workspaces(world: AuthWorld) -> None:
    stan = await world.user("stan")
    said = set()
    for workspace in (world.workspace, 999):
        with pytest.raises(NotFound) as caught:
            await world.rights.authorise(stan, Action.STUDIO_READ, workspace)
        said.add(str(caught.value))
    assert len(said) == 1


async def test_a_member_hears_why(world: AuthWorld) -> None:
    vera = await world.user("vera", Role.VIEW)
    with pytest.raises(Forbidden, match="role connect"):
        await world.rights.authorise(vera, Action.CONNECT, await world.rights.studio(await world.studio(vera.user)))


async def test_what_is_permitted_is_what_is_authorised(world: AuthWorld) -> None:
    olga, leo = await world.user("olga", Role.OWNER), await world.user("leo", Role.LAUNCH)
    ids = [
        await world.studio(olga.user, private=private, allowed=allowed)
        for private in (0, 1)
        for allowed in ((), (leo.user.id,))
    ]
    targets = [await world.rights.studio(each) for each in ids]
    for actor in (olga, leo, await world.user("stan")):
        for target, allowed in zip(targets, await world.rights.permitted(actor, targets), strict=True):
            for action in LEAST:
                try:
                    await world.rights.authorise(actor, action, target)
                    may = True
                except (Forbidden, NotFound):
                    may = False
                assert may == (action in allowed), (actor.user.user_name, action, target)


async def test_on_a_machine_that_cannot_share_only_who_started_it_opens_studios(tmp_path: Path) -> None:
    async with auth_world(tmp_path, sharing=Sharing(False, "this machine has no namespaces")) as world:
        second = await world.user("second", Role.OWNER, admin=True)
        cookie = await world.auth.use_link(
            world.first_secret, password="a long and simple sentence", display_name="", peer="", agent=""
        )
        first = await world.auth.actor_from_cookie(cookie, "")
        assert first is not None
        studio = await world.rights.studio(await world.studio(second.user))
        await world.rights.authorise(first, Action.CONNECT, studio)
        await world.rights.authorise(second, Action.STUDIO_DELETE, studio)
        with pytest.raises(Forbidden, match="no namespaces"):
            await world.rights.authorise(second, Action.CONNECT, studio)


async def test_the_instances_own_rights_are_the_accounts_flag(world: AuthWorld) -> None:
    ada, olga = await world.user("ada", admin=True), await world.user("olga", Role.OWNER)
    await world.rights.authorise(ada, Action.INSTANCE_ADMIN, 0)
    with pytest.raises(Forbidden):
        await world.rights.authorise(olga, Action.INSTANCE_ADMIN, 0)
    with pytest.raises(NotFound):
        await world.rights.authorise(ada, Action.STUDIO_READ, world.workspace)


async def test_thousands_of_people_are_found_by_their_ids(world: AuthWorld) -> None:
    rows = [{"user_name": f"u{n}", "email": f"u{n}@example.org", "created": 0.0} for n in range(1200)]
    async with world.store.begin() as connection:
        await connection.execute(users.insert(), rows)
        ids = list((await connection.execute(sa.select(users.c.id))).scalars())
    found = await world.rights.users([*ids, *ids, 10**15])
    assert set(found) == set(ids)
    assert await world.rights.users([]) == {}


async def test_a_workspaces_policy_is_read_by_the_studios(world: AuthWorld) -> None:
    assert (await world.rights.policy(world.workspace)).lifespan_hours is None
    with pytest.raises(NotFound):
        await world.rights.policy(999)
