"""Short tokens and challenges: values signed with keys that never leave the gateway.

A short token is a JWT (HS256, aud 'run', 15 minutes). A challenge is stateless, so that asking for one costs no memory:
16 random bytes, its end, and a MAC over both and the run; only challenges that were used are remembered.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
import struct
from dataclasses import dataclass

import jwt
import sqlalchemy as sa

from portico_gateway.errors import Unauthenticated
from portico_gateway.store.tables import keys
from portico_gateway.studios.records import Store
from portico_shared.clock import Clock

TOKEN_SECONDS = 15 * 60.0
CHALLENGE_SECONDS = 60.0
KEY_NAME = "run-tokens"
MAX_TOKEN = 1024
_AUDIENCE = "run"
_MAC = 16


@dataclass(frozen=True, slots=True)
class RunToken:
    run_id: str
    generation: int
    expires_at: float


async def load_key(store: Store, clock: Clock, name: str = KEY_NAME) -> bytes:
    """This instance's own secret of that name, made at first use."""
    query = sa.select(keys.c.secret).where(keys.c.name == name)
    async with store.begin() as db:
        found = (await db.execute(query)).scalar_one_or_none()
        if found is None:
            found = secrets.token_bytes(32)
            await db.execute(keys.insert().values(name=name, secret=found, created=clock.now()))
    return bytes(found)


class RunTokens:
    """Mints and reads; knows nothing of runs."""

    def __init__(self, key: bytes, clock: Clock) -> None:
        self._token_key = hmac.digest(key, b"short tokens", hashlib.sha256)
        self._challenge_key = hmac.digest(key, b"challenges", hashlib.sha256)
        self._clock = clock
        self._used: dict[bytes, float] = {}

    def mint(self, run_id: str, generation: int) -> str:
        now = self._clock.now()
        claims = {"aud": _AUDIENCE, "sub": run_id, "gen": generation, "iat": int(now), "exp": int(now + TOKEN_SECONDS)}
        return jwt.encode(claims, self._token_key, algorithm="HS256")

    def read(self, token: str) -> RunToken:
        """Raises Unauthenticated for anything but a token of ours whose time is not up."""
        if len(token) > MAX_TOKEN:
            raise Unauthenticated("that is not a run's token")
        try:
            claims = jwt.decode(
                token,
                self._token_key,
                algorithms=["HS256"],
                audience=_AUDIENCE,
                options={"require": ["aud", "sub", "gen", "iat", "exp"], "verify_exp": False, "verify_iat": False},
            )
            found = RunToken(str(claims["sub"]), int(claims["gen"]), float(claims["exp"]))
        except (jwt.InvalidTokenError, TypeError, ValueError):
            raise Unauthenticated("that is not a run's token") from None
        if found.expires_at <= self._clock.now():  # by our own clock, which tests can move
            raise Unauthenticated("the run's token has expired: ask for a new one")
        return found

    def challenge(self, run_id: str) -> str:
        body = secrets.token_bytes(16) + struct.pack(">d", self._clock.monotonic() + CHALLENGE_SECONDS)
        return base64.urlsafe_b64encode(body + self._mac(run_id, body)).rstrip(b"=").decode()

    def use_challenge(self, run_id: str, nonce: str) -> None:
        """Raises Unauthenticated unless it is one of ours, for this run, in time and unused. Call it last."""
        raw = from_base64url(nonce)
        body, mac = raw[:-_MAC], raw[-_MAC:]
        if len(raw) != 24 + _MAC or not hmac.compare_digest(mac, self._mac(run_id, body)):
            raise Unauthenticated("that challenge is not ours: ask for a new one")
        now = self._clock.monotonic()
        self._used = {used: until for used, until in self._used.items() if until > now}
        until = struct.unpack(">d", body[16:])[0]
        if until <= now or raw in self._used:
            raise Unauthenticated("that challenge has been used, or is too old: ask for a new one")
        self._used[raw] = until

    def _mac(self, run_id: str, body: bytes) -> bytes:
        return hmac.digest(self._challenge_key, run_id.encode() + b"\n" + body, hashlib.sha256)[:_MAC]


def from_base64url(text: str) -> bytes:
    """Raises Unauthenticated for what is not base64url without padding."""
    try:
        return base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise Unauthenticated("that is not base64url") from None
