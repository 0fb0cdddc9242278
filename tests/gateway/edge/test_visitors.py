import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from portico_gateway.auth.studio_cookies import TYPE, StudioCookies
from portico_gateway.edge.visitors import Visitors
from portico_gateway.link.messages import Keys, Revoke, Verdict
from portico_shared.clock import JumpingClock

STUDIO, OTHER = "00c0ffee", "0000beef"


class Door:
    """Visitors that know control's key, and control's hand to make cookies."""

    def __init__(self) -> None:
        self.clock = JumpingClock()
        self.key = Ed25519PrivateKey.generate()
        self.cookies = StudioCookies(self.key, self.clock)
        self.visitors = Visitors(self.clock)
        self.visitors.apply(Keys(public_keys=(self.cookies.public_key,), generation=5))

    def cookie(self, *, user: int = 1, sign_in: str = "s1", generation: int = 5) -> bytes:
        value, _ = self.cookies.mint(
            session_id=STUDIO, user_id=user, user_name="ann", sign_in=sign_in, generation=generation
        )
        return value.encode()

    def signed(self, key: object = None, algorithm: str = "EdDSA", typ: str = TYPE, **changes: object) -> bytes:
        now = int(self.clock.now())
        claims = {
            "aud": f"studio:{STUDIO}",
            "sub": "1",
            "name": "ann",
            "sid": "s1",
            "gen": 5,
            "iat": now,
            "exp": now + 600,
        }
        claims = {name: value for name, value in {**claims, **changes}.items() if value is not None}
        return jwt.encode(claims, key or self.key, algorithm=algorithm, headers={"typ": typ}).encode()  # type: ignore[arg-type]


@pytest.fixture
def door() -> Door:
    return Door()


def test_cookie_of_this_studio_is_believed_until_it_expires(door: Door):
    visitor = door.visitors.from_cookie(door.cookie(user=7), STUDIO)
    assert visitor is not None and (visitor.user_id, visitor.sign_in, visitor.bearer) == (7, "s1", False)


async def test_expired_cookie_is_asked_about(door: Door):
    cookie = door.cookie()
    assert door.visitors.from_cookie(cookie, STUDIO) is not None
    await door.clock.jump(601)
    assert door.visitors.from_cookie(cookie, STUDIO) is None
    assert door.visitors.signed(cookie, STUDIO) is not None


def test_cookie_of_another_studio_is_nobodys(door: Door):
    cookie = door.cookie()
    assert door.visitors.from_cookie(cookie, STUDIO) is not None
    assert door.visitors.from_cookie(cookie, OTHER) is None
    assert door.visitors.signed(cookie, OTHER) is None


def test_control_cookie_in_no_other_dress_counts(door: Door):
    assert door.visitors.from_cookie(door.signed(), STUDIO) is not None  # the measure of what follows
    public = door.cookies.public_key
    for forged in (
        door.signed(typ="JWT"),
        door.signed(aud=[f"studio:{STUDIO}", "studio:0000beef"]),
        door.signed(aud="studio:"),
        door.signed(aud=None),
        door.signed(exp=None),
        door.signed(sub="x"),
        door.signed(sub=None),
        door.signed(sid=None),
        door.signed(gen="5"),
        door.signed(key=Ed25519PrivateKey.generate()),
        door.signed(key=public + b"\0" * 32, algorithm="HS256"),
        jwt.encode({"aud": f"studio:{STUDIO}"}, None, algorithm="none").encode(),  # type: ignore[arg-type]
        b"x" * 5000,
        b"",
        b"a.b.c",
        b"\xff.\xff.\xff",
    ):
        assert door.visitors.from_cookie(forged, STUDIO) is None, forged[:60]


def test_tampered_signature_is_refused(door: Door):
    head, _, signature = door.cookie().rpartition(b".")
    flipped = bytes([signature[5] ^ 1])
    assert door.visitors.from_cookie(head + b"." + signature[:5] + flipped + signature[6:], STUDIO) is None


@pytest.mark.parametrize(
    ("revocation", "still_good"),
    [
        (Revoke(generation=6, user_id=1), False),
        (Revoke(generation=6, sign_in="s1"), False),
        (Revoke(generation=6, session_id=STUDIO), False),
        (Revoke(generation=6, user_id=1, session_id=STUDIO), False),
        (Revoke(generation=6), False),
        (Revoke(generation=6, user_id=2), True),
        (Revoke(generation=6, user_id=1, session_id=OTHER), True),
        (Revoke(generation=6, sign_in="s2"), True),
        (Revoke(generation=6, run="r" + "1" * 16), True),
    ],
)
def test_revocation_ends_what_it_names_and_nothing_else(door: Door, revocation: Revoke, still_good: bool):
    seen, unseen = door.cookie(), door.signed(name="never shown before")
    door.visitors.from_cookie(seen, STUDIO)
    door.visitors.apply(revocation)
    assert (door.visitors.from_cookie(seen, STUDIO) is not None) is still_good
    assert (door.visitors.from_cookie(unseen, STUDIO) is not None) is still_good


def test_cookie_made_after_the_revocation_counts(door: Door):
    door.visitors.apply(Revoke(generation=6, user_id=1))
    assert door.visitors.from_cookie(door.cookie(generation=6), STUDIO) is not None


def test_yes_that_a_revocation_overtook_is_not_remembered(door: Door):
    yes = Verdict(
        id=1, status=200, user_id=1, sign_in="t3", session_id=STUDIO, generation=5, expires_at=door.clock.now() + 60
    )
    door.visitors.apply(Revoke(generation=6, user_id=1))
    assert door.visitors.vouched(b"token", yes, bearer=True) is None
    assert door.visitors.from_token(b"token", STUDIO) is None


async def test_token_is_believed_as_long_as_control_said(door: Door):
    yes = Verdict(
        id=1, status=200, user_id=1, sign_in="t3", session_id=STUDIO, generation=5, expires_at=door.clock.now() + 60
    )
    assert door.visitors.vouched(b"token", yes, bearer=True) is not None
    assert door.visitors.from_token(b"token", STUDIO) is not None
    assert door.visitors.from_token(b"token", OTHER) is None
    assert door.visitors.from_cookie(b"token", STUDIO) is None
    await door.clock.jump(61)
    assert door.visitors.from_token(b"token", STUDIO) is None


def test_reconnected_control_makes_older_cookies_doubtful(door: Door):
    cookie = door.cookie()
    door.visitors.from_cookie(cookie, STUDIO)
    door.visitors.apply(Keys(public_keys=(door.cookies.public_key,), generation=9))
    assert door.visitors.from_cookie(cookie, STUDIO) is None


async def test_renewal_is_wanted_in_the_second_half_of_its_life(door: Door):
    visitor = door.visitors.from_cookie(door.cookie(), STUDIO)
    assert visitor is not None and not door.visitors.wants_renewal(visitor)
    await door.clock.jump(301)
    assert door.visitors.wants_renewal(visitor)


def test_without_keys_nobody_is_believed():
    door = Door()
    fresh = Visitors(door.clock)
    assert not fresh.can_verify
    assert fresh.from_cookie(door.cookie(), STUDIO) is None
