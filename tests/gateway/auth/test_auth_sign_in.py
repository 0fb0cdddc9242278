"""Passwords, browser sign-ins and one-use links."""

import asyncio

import pytest

from portico_gateway.auth.passwords import WAITING, Passwords
from portico_gateway.auth.values import Role
from portico_gateway.errors import BadRequest, Forbidden, NotFound, TooMany, Unauthenticated
from support.auth_world import PASSWORD, PEER, QUICK, AuthWorld


async def test_the_right_password_signs_in_by_name_and_by_address(world: AuthWorld) -> None:
    ana = await world.user("ana")
    for login in ("ana", " ANA ", "Ana@Example.org"):
        actor = await world.auth.actor_from_cookie(await world.sign_in(login), PEER)
        assert actor is not None
        assert actor.user == ana.user


async def test_unknown_names_and_wrong_passwords_are_told_the_same(world: AuthWorld) -> None:
    ana = await world.user("ana")
    await world.disable((await world.user("gone")).user)
    said = set()
    for login, password in (("ana", "wrong password"), ("nobody", PASSWORD), ("gone", PASSWORD), ("admin", "")):
        with pytest.raises(Unauthenticated) as caught:
            await world.sign_in(login, password)
        said.add(str(caught.value))
    assert len(said) == 1
    assert ana.user.user_name not in said.pop()


async def test_an_unknown_name_costs_as_much_work_as_a_known_one(world: AuthWorld) -> None:
    work = []

    class Counting(type(QUICK)):  # type: ignore[misc]
        def verify(self, stored: str, password: bytes) -> bool:
            work.append(stored)
            return bool(QUICK.verify(stored, password))

    passwords = Passwords(Counting(time_cost=1, memory_cost=64, parallelism=1))
    assert not await passwords.verify(None, PASSWORD)
    assert not await passwords.verify(QUICK.hash("another one"), PASSWORD)
    assert await passwords.verify(QUICK.hash(PASSWORD), PASSWORD)
    passwords.close()
    assert len(work) == 3


@pytest.mark.parametrize("odd", ["\ud800", "\0", "'; DROP TABLE users; --", "x" * 100_000, "%", "", "\u202e"])
async def test_odd_names_and_passwords_are_just_wrong(world: AuthWorld, odd: str) -> None:
    await world.user("ana")
    with pytest.raises(Unauthenticated):
        await world.sign_in(odd, PASSWORD)
    with pytest.raises(Unauthenticated):
        await world.sign_in("ana", odd)


async def test_a_password_is_never_stored_and_a_cookie_neither(world: AuthWorld) -> None:
    await world.user("ana")
    cookie = await world.sign_in("ana")
    stored = await world.everything_stored()
    assert PASSWORD not in stored
    assert cookie not in stored
    assert "argon2id" in stored


async def test_a_flood_of_sign_ins_is_told_to_come_back(world: AuthWorld) -> None:
    passwords = Passwords(QUICK)
    stored = QUICK.hash(PASSWORD)
    asked = [passwords.verify(stored, PASSWORD) for _ in range(WAITING * 3)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    passwords.close()
    assert sum(answer is True for answer in answers) >= 1
    assert any(isinstance(answer, TooMany) for answer in answers)
    assert all(answer is True or isinstance(answer, TooMany) for answer in answers)


async def test_signing_out_ends_the_cookie_and_everything_it_opened(world: AuthWorld) -> None:
    ana = await world.user("ana")
    cookie = await world.sign_in("ana")
    actor = await world.auth.actor_from_cookie(cookie, PEER)
    assert actor is not None
    await world.auth.sign_out(cookie)
    assert await world.auth.actor_from_cookie(cookie, PEER) is None
    assert [(r.user_id, r.sign_in) for r in world.revoked] == [(ana.user.id, actor.sign_in)]
    assert await world.auth.actor_of(ana.user.id, ana.sign_in, PEER) is not None
    await world.auth.sign_out(cookie)
    await world.auth.sign_out("no such cookie")


async def test_a_sign_in_ends_by_itself(world: AuthWorld) -> None:
    await world.user("ana")
    cookie = await world.sign_in("ana")
    await world.clock.jump(world.settings.session_hours * 3600 - 1)
    assert await world.auth.actor_from_cookie(cookie, PEER) is not None
    await world.clock.jump(2)
    assert await world.auth.actor_from_cookie(cookie, PEER) is None


async def test_each_sign_in_has_a_secret_of_its_own(world: AuthWorld) -> None:
    await world.user("ana")
    assert len({await world.sign_in("ana") for _ in range(5)}) == 5


async def test_a_disabled_account_is_out_at_once(world: AuthWorld) -> None:
    ana = await world.user("ana")
    cookie, token = await world.sign_in("ana"), await world.token(ana)
    await world.disable(ana.user)
    assert await world.auth.actor_from_cookie(cookie, PEER) is None
    assert await world.auth.actor_from_bearer(token, PEER) is None
    assert await world.auth.actor_of(ana.user.id, ana.sign_in, PEER) is None


async def test_sign_ins_are_listed_and_ended_one_by_one_by_their_owner_alone(world: AuthWorld) -> None:
    ana, ben = await world.user("ana"), await world.user("ben")
    cookie = await world.sign_in("ana")
    rows = await world.auth.sign_ins(ana)
    assert [row.current for row in rows].count(True) == 1
    other = next(row for row in rows if not row.current)
    with pytest.raises(NotFound):
        await world.auth.end_sign_in(ben, other.id)
    await world.auth.end_sign_in(ana, other.id)
    assert await world.auth.actor_from_cookie(cookie, PEER) is None
    assert world.revoked[-1].sign_in == f"s{other.id}"


async def test_a_new_password_needs_the_old_one_and_ends_other_sign_ins(world: AuthWorld) -> None:
    ana = await world.user("ana")
    cookie = await world.sign_in("ana")
    with pytest.raises(Forbidden):
        await world.auth.change_password(ana, "wrong password", "another long sentence")
    with pytest.raises(BadRequest):
        await world.auth.change_password(ana, PASSWORD, "short")
    await world.auth.change_password(ana, PASSWORD, "another long sentence")
    assert await world.auth.actor_from_cookie(cookie, PEER) is None
    assert await world.auth.actor_of(ana.user.id, ana.sign_in, PEER) is not None
    with pytest.raises(Unauthenticated):
        await world.sign_in("ana")
    assert await world.sign_in("ana", "another long sentence")


async def test_the_first_link_works_once(world: AuthWorld) -> None:
    link = await world.auth.link(world.first_secret)
    assert (link.user.user_name, link.purpose) == ("admin", "bootstrap")
    cookie = await use(world, world.first_secret)
    actor = await world.auth.actor_from_cookie(cookie, PEER)
    assert actor is not None
    assert actor.user.is_admin
    with pytest.raises(NotFound):
        await use(world, world.first_secret)
    with pytest.raises(NotFound):
        await world.auth.link(world.first_secret)


async def use(world: AuthWorld, secret: str, password: str = PASSWORD) -> str:
    return await world.auth.use_link(secret, password=password, display_name="Ada", peer=PEER, agent="a browser")


async def test_two_browsers_with_one_link_make_one_sign_in(world: AuthWorld) -> None:
    done = await asyncio.gather(*(use(world, world.first_secret) for _ in range(6)), return_exceptions=True)
    assert sum(isinstance(each, str) for each in done) == 1
    assert sum(isinstance(each, NotFound) for each in done) == 5


async def test_a_password_that_is_too_short_leaves_the_link_usable(world: AuthWorld) -> None:
    with pytest.raises(BadRequest):
        await use(world, world.first_secret, "short")
    assert await use(world, world.first_secret)


async def test_a_link_ends_after_its_time(world: AuthWorld) -> None:
    await world.clock.jump(24 * 3600 + 1)
    with pytest.raises(NotFound):
        await use(world, world.first_secret)


@pytest.mark.parametrize("odd", ["", "x", "\ud800", "a" * 5000])
async def test_what_is_no_link_is_not_found(world: AuthWorld, odd: str) -> None:
    with pytest.raises(NotFound):
        await world.auth.link(odd)


async def test_a_link_for_somebody_disabled_counts_no_more(world: AuthWorld) -> None:
    link = await world.auth.link(world.first_secret)
    await world.disable(link.user)
    with pytest.raises(NotFound):
        await use(world, world.first_secret)


async def test_a_reset_ends_the_sign_ins_that_were_there(world: AuthWorld) -> None:
    ana = await world.user("ana", Role.VIEW)
    async with world.store.begin() as connection:
        url, _ = await world.links.make(connection, ana.user.id, "reset")
    await use(world, url.rpartition("/")[2], "another long sentence")
    assert await world.auth.actor_of(ana.user.id, ana.sign_in, PEER) is None
    assert ana.sign_in in {each.sign_in for each in world.revoked}
