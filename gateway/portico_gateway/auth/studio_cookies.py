"""The cookie on a studio's own host: a JWT (EdDSA) for one studio, one person, one sign-in, ten minutes.

The edge verifies it with the public key alone; only control can make one.
"""

from typing import Any

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from portico_gateway.errors import Unauthenticated
from portico_gateway.link.messages import STUDIO_COOKIE_SECONDS, StudioCookie
from portico_shared.clock import Clock

TYPE = "portico-studio+jwt"
MAX_COOKIE = 2048


class StudioCookies:
    def __init__(self, key: Ed25519PrivateKey, clock: Clock) -> None:
        self._key = key
        self._clock = clock

    @property
    def public_key(self) -> bytes:
        return self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def mint(
        self, *, session_id: str, user_id: int, user_name: str, sign_in: str, generation: int
    ) -> tuple[str, float]:
        """The cookie's value and when it expires."""
        now = int(self._clock.now())
        claims = StudioCookie(
            aud=f"studio:{session_id}",
            sub=str(user_id),
            name=user_name,
            sid=sign_in,
            gen=generation,
            iat=now,
            exp=now + STUDIO_COOKIE_SECONDS,
        )
        value = jwt.encode(msgspec.to_builtins(claims), self._key, algorithm="EdDSA", headers={"typ": TYPE})
        return value, float(claims.exp)

    def read(self, cookie: str, session_id: str) -> StudioCookie:
        """The claims of a cookie that we signed for this studio, expired or not. Raises Unauthenticated."""
        if len(cookie) > MAX_COOKIE:
            raise Unauthenticated("not a studio cookie")
        options: Any = {"require": ["exp", "iat", "aud", "sub"], "verify_exp": False, "verify_iat": False}
        try:
            decoded = jwt.decode_complete(
                cookie, self._key.public_key(), algorithms=["EdDSA"], audience=f"studio:{session_id}", options=options
            )
            if decoded["header"].get("typ") != TYPE:
                raise Unauthenticated("not a studio cookie")
            return msgspec.convert(decoded["payload"], StudioCookie)
        except (jwt.InvalidTokenError, msgspec.ValidationError, UnicodeEncodeError) as error:
            raise Unauthenticated("not a studio cookie") from error
