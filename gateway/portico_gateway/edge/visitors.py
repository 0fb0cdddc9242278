"""Who is at a studio's door: the cookie verified here, everything else asked of control and remembered shortly."""

from collections import OrderedDict
from dataclasses import dataclass, field

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from portico_gateway.link.messages import ControlMessage, Keys, Revoke, StudioCookie, Verdict
from portico_shared.clock import Clock

REMEMBERED = 20_000
RENEW_BEFORE = 300.0
"""Seconds before a cookie's end at which a new one is asked for, half its life."""
TYPE = "portico-studio+jwt"
MAX_COOKIE = 2048
RECENT_REVOCATIONS = 1000


@dataclass(frozen=True, slots=True)
class Visitor:
    user_id: int
    sign_in: str
    session_id: str
    expires_at: float
    generation: int = 0
    bearer: bool = False
    secret: bytes = field(default=b"", repr=False)
    """The cookie or token itself, to ask about it again."""


def matches(revocation: Revoke, visitor: Visitor) -> bool:
    """Whether a revocation names this visitor: it matches what has all its non-empty fields."""
    if revocation.run:
        return False
    return (
        revocation.user_id in (0, visitor.user_id)
        and revocation.session_id in ("", visitor.session_id)
        and revocation.sign_in in ("", visitor.sign_in)
    )


def good_until(visitor: Visitor) -> float:
    """Until when (epoch seconds) nobody need be asked about this visitor, if nothing is revoked."""
    return visitor.expires_at - (0.0 if visitor.bearer else RENEW_BEFORE)


class Visitors:
    """Cookies and tokens that were found good, until they expire or are revoked."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._keys: tuple[Ed25519PublicKey, ...] = ()
        self._floor = 0
        """Cookies of an older generation are asked about: we may have missed what was revoked before."""
        self._recent: list[Revoke] = []
        self._known: OrderedDict[tuple[str, bytes], Visitor] = OrderedDict()

    @property
    def can_verify(self) -> bool:
        """Whether control has ever told its keys."""
        return bool(self._keys)

    def apply(self, message: ControlMessage) -> None:
        match message:
            case Keys():
                self._keys = tuple(Ed25519PublicKey.from_public_bytes(key) for key in message.public_keys)
                self._floor = message.generation
                self._recent.clear()
                self._known.clear()
            case Revoke():
                if len(self._recent) >= RECENT_REVOCATIONS:
                    self._floor, self._recent = message.generation, []
                self._recent.append(message)
                for key in [k for k, visitor in self._known.items() if matches(message, visitor)]:
                    del self._known[key]

    def from_cookie(self, cookie: bytes, session_id: str) -> Visitor | None:
        """The holder of a cookie that counts now, by our own knowledge; None = ask control."""
        known = self._known.get((session_id, cookie))
        if known is None:
            known = self.signed(cookie, session_id)
            if known is None or self._doubtful(known):
                return None
            self._remember(known)
        return known if known.expires_at > self._clock.now() and not known.bearer else None

    def from_token(self, token: bytes, session_id: str) -> Visitor | None:
        """The holder of a token that control has vouched for lately; None = ask control."""
        known = self._known.get((session_id, token))
        if known is None or not known.bearer:
            return None
        return known if known.expires_at > self._clock.now() else None

    def vouched(self, secret: bytes, verdict: Verdict, *, bearer: bool) -> Visitor | None:
        """Remember control's yes. None when a revocation overtook it on the way: ask again."""
        visitor = Visitor(
            user_id=verdict.user_id,
            sign_in=verdict.sign_in,
            session_id=verdict.session_id,
            expires_at=verdict.expires_at,
            generation=verdict.generation,
            bearer=bearer,
            secret=secret,
        )
        if self._doubtful(visitor):
            return None
        self._remember(visitor)
        return visitor

    def wants_renewal(self, visitor: Visitor) -> bool:
        return not visitor.bearer and self._clock.now() > good_until(visitor)

    def _doubtful(self, visitor: Visitor) -> bool:
        if visitor.generation < self._floor:
            return True
        return any(visitor.generation < each.generation and matches(each, visitor) for each in self._recent)

    def _remember(self, visitor: Visitor) -> None:
        self._known[visitor.session_id, visitor.secret] = visitor
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    def signed(self, cookie: bytes, session_id: str) -> Visitor | None:
        """Whom a cookie with a right signature names, expired or revoked or not; None = it is not control's."""
        if len(cookie) > MAX_COOKIE:
            return None
        for key in self._keys:
            try:
                decoded = jwt.decode_complete(
                    cookie,
                    key,
                    algorithms=["EdDSA"],
                    audience=f"studio:{session_id}",
                    options={"require": ["exp", "iat", "aud", "sub"], "verify_exp": False, "verify_iat": False},
                )
                claims = msgspec.convert(decoded["payload"], StudioCookie)
                if decoded["header"].get("typ") == TYPE and claims.sub.isdigit():
                    expires = float(claims.exp)
                    return Visitor(int(claims.sub), claims.sid, session_id, expires, claims.gen, secret=cookie)
            except (jwt.InvalidTokenError, msgspec.ValidationError):
                continue
        return None
