"""Personal access tokens, and the administrator's first one."""

from pathlib import Path

import pytest

from portico_gateway.auth import secrets_text, tokens
from portico_gateway.errors import BadRequest, Conflict, NotFound
from support.auth_world import PASSWORD, PEER, AuthWorld, auth_world

TOKEN = "first-token-of-the-machine-0123456789"


async def test_a_token_is_shown_once_and_not_stored(world: AuthWorld) -> None:
    ana = await world.user("ana")
    text = await world.auth.make_token(ana, "laptop", None)
    assert text.startswith("pto_")
    assert secrets_text.well_formed(text)
    assert text not in await world.everything_stored()
    found = await world.auth.actor_from_bearer(text, PEER)
    assert found is not None
    assert (found[0].user, found[0].sign_in, found[1]) == (ana.user, f"t{(await world.auth.tokens(ana))[0].id}", None)


async def test_a_token_ends_at_its_day(world: AuthWorld) -> None:
    ana = await world.user("ana")
    text = await world.auth.make_token(ana, "week", 7)
    await world.clock.jump(7 * 86400 - 1)
    found = await world.auth.actor_from_bearer(text, PEER)
    assert found is not None
    assert found[1] == world.clock.now() + 1
    await world.clock.jump(1)
    assert await world.auth.actor_from_bearer(text, PEER) is None
    assert await world.auth.actor_of(ana.user.id, found[0].sign_in, PEER) is None


async def test_a_deleted_token_counts_no_more_and_the_edge_is_told(world: AuthWorld) -> None:
    ana, ben = await world.user("ana"), await world.user("ben")
    text = await world.auth.make_token(ana, "laptop", None)
    (row,) = await world.auth.tokens(ana)
    with pytest.raises(NotFound):
        await world.auth.delete_token(ben, row.id)
    await world.auth.delete_token(ana, row.id)
    assert await world.auth.actor_from_bearer(text, PEER) is None
    assert [(r.user_id, r.sign_in) for r in world.revoked] == [(ana.user.id, f"t{row.id}")]
    again = await world.auth.make_token(ana, "laptop", None)
    found = await world.auth.actor_from_bearer(again, PEER)
    assert found is not None
    assert found[0].sign_in != f"t{row.id}"


async def test_last_used_is_noted_at_most_once_a_minute(world: AuthWorld) -> None:
    ana = await world.user("ana")
    text = await world.auth.make_token(ana, "laptop", None)
    await world.clock.jump(10)
    first = world.clock.now()
    for _ in range(5):
        await world.auth.actor_from_bearer(text, PEER)
        await world.clock.jump(10)
    assert (await world.auth.tokens(ana))[0].last_used == first
    await world.clock.jump(20)
    await world.auth.actor_from_bearer(text, PEER)
    assert (await world.auth.tokens(ana))[0].last_used == world.clock.now()


@pytest.mark.parametrize("odd", ["", "x", "pto_", "\udcff" * 30, "pto_" + "0" * 49, "p" * 100_000, "é"])
async def test_what_is_no_token_is_nobody(world: AuthWorld, odd: str) -> None:
    assert await world.auth.actor_from_bearer(odd, PEER) is None
    assert await world.auth.actor_from_cookie(odd, PEER) is None


async def test_names_days_and_number_of_tokens_have_bounds(world: AuthWorld) -> None:
    ana = await world.user("ana")
    for name, days in (("", None), (" ", None), ("x" * 81, None), ("a", 0), ("a", -1), ("a", 3651)):
        with pytest.raises(BadRequest):
            await world.auth.make_token(ana, name, days)
    await world.auth.make_token(ana, "a", 1)
    with pytest.raises(Conflict, match="already"):
        await world.auth.make_token(ana, " a ", 1)
    for number in range(tokens.MOST - 1):
        await world.auth.make_token(ana, f"t{number}", None)
    with pytest.raises(Conflict, match="delete one"):
        await world.auth.make_token(ana, "one more", None)


def test_the_checksum_tells_a_token_from_a_typing_mistake() -> None:
    text = secrets_text.new_token()
    assert secrets_text.well_formed(text)
    assert len(text) == 53
    for position in range(4, 53):
        wrong = text[:position] + ("a" if text[position] != "a" else "b") + text[position + 1 :]
        assert not secrets_text.well_formed(wrong)


async def test_the_bootstrap_token_is_the_administrators_and_stays_over_restarts(tmp_path: Path) -> None:
    for _ in range(2):
        async with auth_world(tmp_path, token=TOKEN) as world:
            found = await world.auth.actor_from_bearer(TOKEN, PEER)
            assert found is not None
            assert found[0].user.is_admin
            assert world.first_link is not None
            assert TOKEN not in await world.everything_stored()


async def test_a_later_bootstrap_token_takes_the_place_of_the_earlier_and_of_no_other(tmp_path: Path) -> None:
    async with auth_world(tmp_path, token=TOKEN) as world:
        found = await world.auth.actor_from_bearer(TOKEN, PEER)
        assert found is not None
        made = await world.auth.make_token(found[0], "made with it", None)
    async with auth_world(tmp_path, token=TOKEN[::-1]) as world:
        assert await world.auth.actor_from_bearer(TOKEN, PEER) is None
        assert await world.auth.actor_from_bearer(TOKEN[::-1], PEER) is not None
        assert await world.auth.actor_from_bearer(made, PEER) is not None


async def test_once_the_administrator_came_in_no_bootstrap_token_makes_another(tmp_path: Path) -> None:
    async with auth_world(tmp_path) as world:
        await world.auth.use_link(world.first_secret, password=PASSWORD, display_name="", peer=PEER, agent="")
    async with auth_world(tmp_path, token=TOKEN) as world:
        assert await world.auth.actor_from_bearer(TOKEN, PEER) is None
        assert world.first_link is None


@pytest.mark.parametrize("bad", ["short", "with blanks in it, and long enough", "x" * 257, "ünïcödé-ünïcödé-ünïcödé"])
async def test_a_bootstrap_token_that_is_none_is_refused_at_start(tmp_path: Path, bad: str) -> None:
    with pytest.raises(BadRequest, match="PORTICO_BOOTSTRAP_TOKEN"):
        async with auth_world(tmp_path, token=bad):
            pass


async def test_each_start_before_the_first_sign_in_ends_the_earlier_link(tmp_path: Path) -> None:
    async with auth_world(tmp_path) as world:
        earlier = world.first_secret
    async with auth_world(tmp_path) as world:
        with pytest.raises(NotFound):
            await world.auth.link(earlier)
        assert (await world.auth.link(world.first_secret)).purpose == "bootstrap"
