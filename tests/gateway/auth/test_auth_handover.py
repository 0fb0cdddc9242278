"""From the management host to a studio's host: one-use codes, studio cookies, and what the edge is answered."""

import asyncio
import hashlib

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from portico_gateway.auth.permissions import NO_STUDIO
from portico_gateway.auth.values import Actor, Role
from portico_gateway.errors import BadRequest, Forbidden, NotFound, Unauthenticated
from portico_gateway.link.messages import STUDIO_COOKIE_SECONDS, CheckToken, RedeemCode, Renew, StudioCookie, Verdict
from support.auth_world import PEER, AuthWorld

NONCE = "nonce-of-this-browser"
HASH = hashlib.sha256(NONCE.encode()).digest()


async def code_for(world: AuthWorld, actor: Actor, studio: str, location: str = "/lab?x=1") -> str:
    return await world.auth.handover_code(actor, studio, HASH, location)


async def redeem(world: AuthWorld, code: str, studio: str, nonce: str = NONCE) -> Verdict:
    return await world.edge.answer(RedeemCode(id=7, code=code, session_id=studio, nonce=nonce, peer=PEER))


@pytest.fixture
async def ana(world: AuthWorld) -> Actor:
    return await world.user("ana", Role.CONNECT)


@pytest.fixture
async def studio(world: AuthWorld) -> str:
    return await world.studio((await world.user("olga", Role.OWNER)).user)


async def test_a_code_becomes_a_cookie_for_this_studio_and_person_alone(
    world: AuthWorld, ana: Actor, studio: str
) -> None:
    verdict = await redeem(world, await code_for(world, ana, studio), studio)
    assert (verdict.status, verdict.id, verdict.location, verdict.user_name) == (200, 7, "/lab?x=1", "ana")
    public = Ed25519PublicKey.from_public_bytes(world.cookies.public_key)
    options = {"verify_exp": False, "verify_iat": False}
    decoded = jwt.decode(verdict.cookie, public, algorithms=["EdDSA"], audience=f"studio:{studio}", options=options)
    claims = msgspec.convert(decoded, StudioCookie)
    assert (claims.sub, claims.name, claims.sid, claims.gen) == (
        str(ana.user.id),
        "ana",
        ana.sign_in,
        world.revocations.generation,
    )
    assert claims.exp - claims.iat == STUDIO_COOKIE_SECONDS
    assert verdict.expires_at == claims.exp


async def test_a_code_works_once_even_when_many_try_at_the_same_time(world: AuthWorld, ana: Actor, studio: str) -> None:
    code = await code_for(world, ana, studio)
    verdicts = await asyncio.gather(*(redeem(world, code, studio) for _ in range(8)))
    assert sorted(v.status for v in verdicts) == [200] + [401] * 7


async def test_a_code_is_not_stored_readably(world: AuthWorld, ana: Actor, studio: str) -> None:
    assert await code_for(world, ana, studio) not in await world.everything_stored()


async def test_a_code_in_another_browser_or_for_another_studio_is_used_up(
    world: AuthWorld, ana: Actor, studio: str
) -> None:
    other = await world.studio(ana.user)
    for wrong in ({"nonce": "another"}, {"nonce": ""}, {"nonce": "\udcff"}, {"studio": other}):
        code = await code_for(world, ana, studio)
        assert (await redeem(world, code, wrong.get("studio", studio), wrong.get("nonce", NONCE))).status == 401
        assert (await redeem(world, code, studio)).status == 401


async def test_a_code_ends_after_a_minute(world: AuthWorld, ana: Actor, studio: str) -> None:
    code = await code_for(world, ana, studio)
    await world.clock.jump(60)
    assert (await redeem(world, code, studio)).status == 401


async def test_a_code_of_somebody_who_signed_out_meanwhile_opens_nothing(
    world: AuthWorld, ana: Actor, studio: str
) -> None:
    cookie = await world.sign_in("ana")
    signed_in = await world.auth.actor_from_cookie(cookie, PEER)
    assert signed_in is not None
    code = await code_for(world, signed_in, studio)
    await world.auth.sign_out(cookie)
    await world.sign_in("ana")
    assert (await redeem(world, code, studio)).status == 401


async def test_a_code_of_somebody_removed_meanwhile_opens_nothing(world: AuthWorld, ana: Actor, studio: str) -> None:
    code = await code_for(world, ana, studio)
    olga = await world.auth.actor_from_cookie(await world.sign_in("olga"), PEER)
    assert olga is not None
    await world.people.remove_member(olga, world.workspace, ana.user.id)
    assert (await redeem(world, code, studio)).status == 404


async def test_codes_are_made_for_who_may_open_it_and_came_with_a_browser(
    world: AuthWorld, ana: Actor, studio: str
) -> None:
    viewer, stranger = await world.user("vera", Role.VIEW), await world.user("stan")
    with pytest.raises(Forbidden):
        await code_for(world, viewer, studio)
    with pytest.raises(NotFound):
        await code_for(world, stranger, studio)
    with pytest.raises(NotFound):
        await code_for(world, ana, "00000000")
    with pytest.raises(Forbidden):
        await code_for(world, Actor(ana.user, "t1"), studio)


@pytest.mark.parametrize("location", ["", "lab", "https://evil.example/", "/" + "x" * 9000])
async def test_codes_lead_to_a_path_of_that_studio_alone(
    world: AuthWorld, ana: Actor, studio: str, location: str
) -> None:
    with pytest.raises(BadRequest):
        await code_for(world, ana, studio, location)


async def renew(world: AuthWorld, cookie: str, studio: str) -> Verdict:
    return await world.edge.answer(Renew(id=1, cookie=cookie, session_id=studio))


async def test_a_cookie_is_renewed_while_sign_in_and_right_last(world: AuthWorld, ana: Actor, studio: str) -> None:
    first = await redeem(world, await code_for(world, ana, studio), studio)
    await world.clock.jump(STUDIO_COOKIE_SECONDS * 5)
    second = await renew(world, first.cookie, studio)
    assert (second.status, second.user_id) == (200, ana.user.id)
    assert second.expires_at == int(world.clock.now()) + STUDIO_COOKIE_SECONDS
    assert (await renew(world, second.cookie, "00000000")).status == 401
    await world.auth.end_sign_in(ana, int(ana.sign_in[1:]))
    assert (await renew(world, second.cookie, studio)).status == 401


async def test_an_old_cookie_does_not_come_back_with_the_next_sign_in(
    world: AuthWorld, ana: Actor, studio: str
) -> None:
    first = await redeem(world, await code_for(world, ana, studio), studio)
    await world.auth.end_sign_in(ana, int(ana.sign_in[1:]))
    await world.sign_in("ana")
    assert (await renew(world, first.cookie, studio)).status == 401


async def test_a_lesser_role_ends_renewals(world: AuthWorld, ana: Actor, studio: str) -> None:
    first = await redeem(world, await code_for(world, ana, studio), studio)
    olga = await world.auth.actor_from_cookie(await world.sign_in("olga"), PEER)
    assert olga is not None
    await world.people.set_role(olga, world.workspace, ana.user.id, Role.VIEW)
    assert [r.user_id for r in world.revoked] == [ana.user.id]
    assert world.revoked[0].generation > first.generation
    assert (await renew(world, first.cookie, studio)).status == 403


async def test_forged_cookies_are_refused(world: AuthWorld, ana: Actor, studio: str) -> None:
    claims = {"aud": f"studio:{studio}", "sub": str(ana.user.id), "name": "ana", "sid": ana.sign_in, "gen": 1}
    claims |= {"iat": 1, "exp": 2_000_000_000}
    key, typ = Ed25519PrivateKey.generate(), {"typ": "portico-studio+jwt"}
    forged = [
        jwt.encode(claims, key, algorithm="EdDSA", headers=typ),
        jwt.encode(claims, None, algorithm="none", headers=typ),
        jwt.encode(claims, world.cookies.public_key.hex(), algorithm="HS256", headers=typ),
        jwt.encode(claims, world.cookies._key, algorithm="EdDSA"),
        jwt.encode({**claims, "aud": "studio:other"}, world.cookies._key, algorithm="EdDSA", headers=typ),
        jwt.encode({**claims, "sid": 5}, world.cookies._key, algorithm="EdDSA", headers=typ),
        jwt.encode({k: v for k, v in claims.items() if k != "exp"}, world.cookies._key, "EdDSA", headers=typ),
        "",
        "a.b.c",
        "\udcff",
        "x" * 5000,
    ]
    assert [(await renew(world, cookie, studio)).status for cookie in forged] == [401] * len(forged)
    good = jwt.encode(claims, world.cookies._key, algorithm="EdDSA", headers=typ)
    assert (await renew(world, good, studio)).status == 200


@pytest.mark.parametrize("sub", ["", "x", "-1", "٣", "9" * 40])
async def test_a_cookie_that_names_nobody_is_refused(world: AuthWorld, ana: Actor, studio: str, sub: str) -> None:
    claims = {"aud": f"studio:{studio}", "sub": sub, "name": "", "sid": ana.sign_in, "gen": 1, "iat": 1, "exp": 2}
    cookie = jwt.encode(claims, world.cookies._key, algorithm="EdDSA", headers={"typ": "portico-studio+jwt"})
    assert (await renew(world, cookie, studio)).status == 401


async def test_the_key_outlives_a_restart(world: AuthWorld) -> None:
    from portico_gateway.auth.keys import signing_key
    from portico_gateway.auth.studio_cookies import StudioCookies

    again = StudioCookies(await signing_key(world.store, world.clock, "studio-cookies"), world.clock)
    assert again.public_key == world.cookies.public_key
    other = StudioCookies(await signing_key(world.store, world.clock, "another use"), world.clock)
    assert other.public_key != world.cookies.public_key


async def ask(world: AuthWorld, token: str, studio: str) -> Verdict:
    return await world.edge.answer(CheckToken(id=3, token=token, session_id=studio, peer=PEER))


async def test_a_token_opens_what_its_owner_may_open_for_a_minute_at_a_time(
    world: AuthWorld, ana: Actor, studio: str
) -> None:
    token = await world.token(ana)
    verdict = await ask(world, token, studio)
    assert (verdict.status, verdict.user_id, verdict.session_id) == (200, ana.user.id, studio)
    assert verdict.expires_at == world.clock.now() + 60
    assert verdict.generation == world.revocations.generation
    short = await world.token(ana, "short", 1)
    await world.clock.jump(86400 - 20)
    assert (await ask(world, short, studio)).expires_at == world.clock.now() + 20


async def test_tokens_of_others_unknown_ones_and_unknown_studios_are_told_apart_from_nothing(
    world: AuthWorld, ana: Actor, studio: str
) -> None:
    stan, vera = await world.user("stan"), await world.user("vera", Role.VIEW)
    assert (await ask(world, "pto_unknown", studio)).status == 401
    hidden = await ask(world, await world.token(stan), studio)
    missing = await ask(world, await world.token(stan, "two"), "00000000")
    assert (hidden.status, hidden.message) == (missing.status, missing.message) == (404, NO_STUDIO)
    assert (await ask(world, await world.token(vera), studio)).status == 403


async def test_a_newer_start_counts_further_than_every_earlier_revocation(world: AuthWorld) -> None:
    from portico_gateway.auth.revocations import Revocations

    for _ in range(100):
        world.revocations.revoke(user_id=1)
    await world.clock.jump(1)
    assert Revocations(world.clock).generation > world.revocations.generation


async def test_unknown_readers_of_a_sign_in_are_nobody(world: AuthWorld, ana: Actor) -> None:
    for name in ("", "s", "x1", "s1x", "s٣", "-1", "s" + "9" * 40):
        assert await world.auth.actor_of(ana.user.id, name, PEER) is None
    with pytest.raises(Unauthenticated):
        await world.auth.redeem("", "", "", "")
