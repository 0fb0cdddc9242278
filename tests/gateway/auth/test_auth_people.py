"""Members and roles: who may change whom, and what ends with it."""

import asyncio
import contextlib
import random

import pytest
import sqlalchemy as sa

from portico_gateway.auth.values import Action, Actor, PolicyChange, Role
from portico_gateway.errors import BadRequest, Conflict, Forbidden, NotFound, PorticoError
from portico_gateway.store.tables import events, members, sign_in_links, sign_ins
from support.auth_world import PASSWORD, PEER, AuthWorld


@pytest.fixture
async def admin(world: AuthWorld) -> Actor:
    """The instance's administrator, owner of the first workspace."""
    cookie = await world.auth.use_link(world.first_secret, password=PASSWORD, display_name="", peer=PEER, agent="")
    actor = await world.auth.actor_from_cookie(cookie, PEER)
    assert actor is not None
    return actor


async def roles(world: AuthWorld, actor: Actor) -> dict[str, Role]:
    return {m.user.user_name: m.role for m in await world.people.members(actor, world.workspace)}


async def test_the_first_start_makes_an_administrator_who_owns_a_workspace(world: AuthWorld, admin: Actor) -> None:
    (workspace,) = await world.people.workspaces(admin)
    assert (workspace.org_name, workspace.name) == ("portico", "studios")
    assert await roles(world, admin) == {"admin": Role.OWNER}


async def test_an_invitation_makes_an_account_and_a_link_that_signs_in(world: AuthWorld, admin: Actor) -> None:
    invitation = await world.people.invite(admin, world.workspace, " Ben.O+x@Example.ORG ", Role.CONNECT)
    assert (invitation.user.email, invitation.user.user_name) == ("ben.o+x@example.org", "ben.o-x")
    secret = invitation.url.rpartition("/")[2]
    assert secret not in await world.everything_stored()
    cookie = await world.auth.use_link(secret, password=PASSWORD, display_name="Ben", peer=PEER, agent="")
    ben = await world.auth.actor_from_cookie(cookie, PEER)
    assert ben is not None
    assert ben.user.display_name == "Ben"
    assert await world.people.role(ben, world.workspace) is Role.CONNECT


async def test_who_has_a_password_is_added_without_a_link(world: AuthWorld, admin: Actor) -> None:
    ana = await world.user("ana")
    invitation = await world.people.invite(admin, world.workspace, "ana@example.org", Role.LAUNCH)
    assert (invitation.user.id, invitation.url) == (ana.user.id, "")
    with pytest.raises(Conflict):
        await world.people.invite(admin, world.workspace, "ana@example.org", Role.OWNER)
    assert (await roles(world, admin))["ana"] is Role.LAUNCH


async def test_inviting_again_renews_the_link_and_leaves_the_role(world: AuthWorld, admin: Actor) -> None:
    first = await world.people.invite(admin, world.workspace, "ben@example.org", Role.CONNECT)
    second = await world.people.invite(admin, world.workspace, "ben@example.org", Role.OWNER)
    assert first.url != second.url
    with pytest.raises(NotFound):
        await world.auth.link(first.url.rpartition("/")[2])
    assert (await roles(world, admin))["ben"] is Role.CONNECT


async def test_a_workspaces_administrator_gets_no_link_to_become_somebody_else(world: AuthWorld) -> None:
    eve = await world.user("eve", Role.ADMIN)
    with pytest.raises(Conflict):  # the instance's administrator, who has no password yet
        await world.people.invite(eve, world.workspace, "admin@portico.localhost", Role.VIEW)
    assert (await roles(world, eve))["admin"] is Role.OWNER
    with pytest.raises(Forbidden, match="no account"):
        await world.people.invite(eve, world.workspace, "chief@example.org", Role.VIEW)
    other = await world.user("ana")
    assert (await world.people.invite(eve, world.workspace, "ana@example.org", Role.VIEW)).user.id == other.user.id


@pytest.mark.parametrize("email", ["", "ben", "@", "a@", "@b", "a b@c", "a@b\nc", "\ud800@b", "a@" + "b" * 300])
async def test_what_is_no_address_is_refused(world: AuthWorld, admin: Actor, email: str) -> None:
    with pytest.raises(BadRequest):
        await world.people.invite(admin, world.workspace, email, Role.VIEW)


async def test_names_made_from_addresses_are_free_ones(world: AuthWorld, admin: Actor) -> None:
    addresses = ("ben@a.org", "ben@b.org", "BEN@c.org", "ben2@d.org", "日本@e.org", "...@f.org")
    made = [await world.people.invite(admin, world.workspace, each, Role.VIEW) for each in addresses]
    names = [each.user.user_name for each in made]
    assert len(set(names)) == len(names)
    assert names[:3] == ["ben", "ben2", "ben3"]


async def test_nobody_gives_more_than_they_have_or_touches_who_has_more(world: AuthWorld, admin: Actor) -> None:
    eve, ana = await world.user("eve", Role.ADMIN), await world.user("ana", Role.VIEW)
    for attempt in (
        world.people.set_role(eve, world.workspace, ana.user.id, Role.OWNER),
        world.people.set_role(eve, world.workspace, eve.user.id, Role.OWNER),
        world.people.set_role(eve, world.workspace, admin.user.id, Role.VIEW),
        world.people.remove_member(eve, world.workspace, admin.user.id),
        world.people.set_role(ana, world.workspace, ana.user.id, Role.OWNER),
        world.people.remove_member(ana, world.workspace, eve.user.id),
        world.people.invite(ana, world.workspace, "x@example.org", Role.VIEW),
        world.people.change_policy(ana, world.workspace, PolicyChange(launch_may_start=False)),
    ):
        with pytest.raises(Forbidden):
            await attempt
    assert await roles(world, admin) == {"admin": Role.OWNER, "eve": Role.ADMIN, "ana": Role.VIEW}
    assert world.revoked == []


async def test_the_last_owner_stays(world: AuthWorld, admin: Actor) -> None:
    for attempt in (
        world.people.remove_member(admin, world.workspace, admin.user.id),
        world.people.set_role(admin, world.workspace, admin.user.id, Role.ADMIN),
    ):
        with pytest.raises(BadRequest, match="at least one owner"):
            await attempt
    olga = await world.user("olga", Role.OWNER)
    await world.people.remove_member(olga, world.workspace, admin.user.id)
    assert await roles(world, olga) == {"olga": Role.OWNER}


async def test_a_removed_member_is_out_everywhere_at_once(world: AuthWorld, admin: Actor) -> None:
    ana = await world.user("ana", Role.MAINTAIN)
    await world.people.remove_member(admin, world.workspace, ana.user.id)
    assert [r.user_id for r in world.revoked] == [ana.user.id]
    assert await world.people.workspaces(ana) == ()
    with pytest.raises(NotFound):
        await world.people.members(ana, world.workspace)
    with pytest.raises(NotFound):
        await world.people.remove_member(admin, world.workspace, ana.user.id)


async def test_coming_back_does_not_bring_old_rights_back(world: AuthWorld, admin: Actor) -> None:
    ana = await world.user("ana", Role.CONNECT)
    studio = await world.studio(admin.user, private=True, allowed=(ana.user.id, admin.user.id))
    await world.rights.authorise(ana, Action.CONNECT, await world.rights.studio(studio))
    await world.people.remove_member(admin, world.workspace, ana.user.id)
    await world.join(ana.user, Role.CONNECT)
    with pytest.raises(Forbidden, match="private"):
        await world.rights.authorise(ana, Action.CONNECT, await world.rights.studio(studio))
    assert (await world.rights.studio(studio)).allowed_user_ids == {admin.user.id}


async def test_anybody_may_leave(world: AuthWorld, admin: Actor) -> None:
    ana = await world.user("ana", Role.VIEW)
    await world.people.remove_member(ana, world.workspace, ana.user.id)
    assert await roles(world, admin) == {"admin": Role.OWNER}


async def test_a_changed_role_is_told_to_the_edge(world: AuthWorld, admin: Actor) -> None:
    ana = await world.user("ana", Role.MAINTAIN)
    await world.people.set_role(admin, world.workspace, ana.user.id, Role.VIEW)
    assert (await roles(world, admin))["ana"] is Role.VIEW
    assert [r.user_id for r in world.revoked] == [ana.user.id]


async def test_workspaces_are_added_by_the_instances_administrator_and_kept_apart(
    world: AuthWorld, admin: Actor
) -> None:
    olga = await world.user("olga", Role.OWNER)
    with pytest.raises(Forbidden):
        await world.people.add_workspace(olga, "lab")
    lab = await world.people.add_workspace(admin, "lab", "The lab", "wet")
    assert [w.name for w in await world.people.workspaces(admin)] == ["studios", "lab"]
    assert [w.name for w in await world.people.workspaces(olga)] == ["studios"]
    with pytest.raises(NotFound):
        await world.people.members(olga, lab.id)
    with pytest.raises(Conflict):
        await world.people.add_workspace(admin, "lab")
    for name in ("", " lab", "a/b", "x" * 81, "-x"):
        with pytest.raises(BadRequest):
            await world.people.add_workspace(admin, name)


async def test_a_policy_is_changed_field_by_field(world: AuthWorld, admin: Actor) -> None:
    leo, vera = await world.user("leo", Role.LAUNCH), await world.user("vera", Role.VIEW)
    await world.people.change_policy(admin, world.workspace, PolicyChange(lifespan_hours=4))
    await world.people.change_policy(admin, world.workspace, PolicyChange(launch_may_start=False))
    found = await world.people.policy(leo, world.workspace)
    assert (found.lifespan_hours, found.private_by_default, found.launch_may_start) == (4, False, False)
    with pytest.raises(Forbidden):
        await world.rights.authorise(leo, Action.STUDIO_EXECUTE, world.workspace)
    await world.people.change_policy(admin, world.workspace, PolicyChange(free_lifespan=True, launch_may_start=True))
    assert (await world.people.policy(leo, world.workspace)).lifespan_hours is None
    with pytest.raises(Forbidden):
        await world.people.policy(vera, world.workspace)
    with pytest.raises(BadRequest):
        await world.people.change_policy(admin, world.workspace, PolicyChange(lifespan_hours=121))


async def test_labels_belong_to_a_workspace(world: AuthWorld, admin: Actor) -> None:
    vera, stan = await world.user("vera", Role.VIEW), await world.user("stan")
    made = await world.labels.add(admin, world.workspace, "cost", "lab_7")
    await world.labels.add(admin, world.workspace, "cost", None)
    assert made in await world.labels.of_workspace(vera, world.workspace)
    assert [label.name for label in await world.labels.of_workspace(vera, world.workspace, "OS")] == ["cost", "cost"]
    assert await world.labels.of_workspace(vera, world.workspace, "%") == ()
    for value in ("lab_7", None):
        with pytest.raises(Conflict):
            await world.labels.add(admin, world.workspace, "cost", value)
    with pytest.raises(Forbidden):
        await world.labels.add(vera, world.workspace, "x", None)
    with pytest.raises(NotFound):
        await world.labels.of_workspace(stan, world.workspace)


async def test_what_people_did_is_on_record(world: AuthWorld, admin: Actor) -> None:
    ana = await world.user("ana", Role.VIEW)
    await world.people.set_role(admin, world.workspace, ana.user.id, Role.CONNECT)
    await world.people.remove_member(admin, world.workspace, ana.user.id)
    async with world.store.connect() as connection:
        rows = (await connection.execute(sa.select(events).order_by(events.c.id))).all()
    told = [(r.kind, r.user_id, r.peer, r.detail) for r in rows if r.workspace_id]
    assert told == [
        ("role-changed", admin.user.id, PEER, {"member": ana.user.id, "role": "connect"}),
        ("member-removed", admin.user.id, PEER, {"member": ana.user.id, "role": None}),
    ]
    assert {"link-used", "signed-in"} <= {r.kind for r in rows}


async def test_a_disabled_account_is_shut_out_and_can_be_let_in_again(world: AuthWorld, admin: Actor) -> None:
    ana = await world.user("ana", Role.OWNER)
    token = await world.token(ana)
    await world.people.set_disabled(admin, ana.user.id, True)
    assert [r.user_id for r in world.revoked] == [ana.user.id]
    assert await world.auth.actor_of(ana.user.id, ana.sign_in, PEER) is None
    assert await world.auth.actor_from_bearer(token, PEER) is None
    await world.people.set_disabled(admin, ana.user.id, False)
    assert await world.auth.actor_of(ana.user.id, ana.sign_in, PEER) is None
    assert await world.auth.actor_from_bearer(token, PEER) is not None
    assert await world.sign_in("ana")


async def test_a_reset_link_sets_a_new_password(world: AuthWorld, admin: Actor) -> None:
    ana = await world.user("ana", Role.OWNER)
    made = await world.people.reset_link(admin, ana.user.id)
    new = "another long sentence"
    await world.auth.use_link(made.url.rpartition("/")[2], password=new, display_name="", peer=PEER, agent="")
    assert await world.sign_in("ana", new)


async def test_accounts_are_the_instances_administrators_alone(world: AuthWorld, admin: Actor) -> None:
    olga = await world.user("olga", Role.OWNER)
    for attempt in (
        world.people.set_disabled(olga, admin.user.id, True),
        world.people.reset_link(olga, admin.user.id),
    ):
        with pytest.raises(Forbidden):
            await attempt
    with pytest.raises(BadRequest):
        await world.people.set_disabled(admin, admin.user.id, True)
    with pytest.raises(NotFound):
        await world.people.set_disabled(admin, 999, True)
    with pytest.raises(NotFound):
        await world.people.reset_link(admin, 999)


async def test_two_owners_who_demote_each_other_leave_one(world: AuthWorld, admin: Actor) -> None:
    olga = await world.user("olga", Role.OWNER)
    done = await asyncio.gather(
        world.people.set_role(admin, world.workspace, olga.user.id, Role.VIEW),
        world.people.set_role(olga, world.workspace, admin.user.id, Role.VIEW),
        world.people.remove_member(olga, world.workspace, olga.user.id),
        return_exceptions=True,
    )
    async with world.store.connect() as connection:
        query = sa.select(sa.func.count()).where(members.c.role == int(Role.OWNER))
        assert (await connection.execute(query)).scalar_one() == 1
    assert any(isinstance(each, PorticoError) for each in done)


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_lesser_members_try_nobody_rises_and_an_owner_stays(world: AuthWorld, seed: int) -> None:
    chance = random.Random(seed)
    people = {role: await world.user(f"the-{role.label}", role) for role in Role}
    start = {actor.user.id: role for role, actor in people.items()}
    lesser = [actor for role, actor in people.items() if role < Role.ADMIN]
    for _ in range(60):
        actor, target, role = chance.choice(lesser), chance.choice(list(people.values())), chance.choice(list(Role))
        with contextlib.suppress(Forbidden, BadRequest, Conflict, NotFound):
            match chance.randrange(4):
                case 0:
                    await world.people.set_role(actor, world.workspace, target.user.id, role)
                case 1:
                    await world.people.invite(actor, world.workspace, target.user.email, role)
                case 2:
                    await world.people.remove_member(actor, world.workspace, target.user.id)
                case _:
                    await world.people.change_policy(actor, world.workspace, PolicyChange(launch_may_start=True))
    async with world.store.connect() as connection:
        rows = (await connection.execute(sa.select(members.c.user_id, members.c.role))).all()
    after = {row.user_id: Role(row.role) for row in rows}
    assert all(after[user] == start[user] for user in after if user in start)  # they may only have left
    assert {start[user] for user in start.keys() - after.keys()} <= set(Role) - {Role.ADMIN, Role.OWNER}


async def test_sign_ins_and_links_that_are_over_are_cleared_away(world: AuthWorld, admin: Actor) -> None:
    await world.user("ana")
    await world.people.invite(admin, world.workspace, "late@example.org", Role.VIEW)
    await world.clock.jump(30 * 86400)
    await world.sign_in("ana")
    await world.people.invite(admin, world.workspace, "next@example.org", Role.VIEW)
    async with world.store.connect() as connection:
        assert (await connection.execute(sa.select(sa.func.count()).select_from(sign_ins))).scalar_one() == 1
        assert (await connection.execute(sa.select(sa.func.count()).select_from(sign_in_links))).scalar_one() == 1
