"""Secrets as text: how one is made, and what is kept of it.

A secret has 256 random bits, so a plain SHA-256 is enough to keep; only passwords need a slow hash. A personal access
token is `pto_` + 43 characters base62 + 6 characters of checksum, so that a scanner can tell a leaked one.
"""

import hashlib
import secrets
import zlib

PREFIX = "pto_"
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_BODY, _CHECK = 43, 6
MAX_SECRET = 256
"""Longest text looked up as a secret; longer ones are refused before any work."""


def new_secret() -> str:
    """256 random bits, URL-safe."""
    return secrets.token_urlsafe(32)


def digest(secret: str) -> bytes:
    """What is stored and looked up in place of a secret."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def new_token() -> str:
    """A personal access token."""
    body = _base62(secrets.randbits(256), _BODY)
    return PREFIX + body + _checksum(body)


def is_text(value: str) -> bool:
    """False for lone surrogates (raw bytes in a header, `\\ud800` in JSON) and zero bytes: nothing stored holds any."""
    return "\0" not in value and not any("\ud800" <= c <= "\udfff" for c in value)


def well_formed(token: str) -> bool:
    """Whether the checksum holds: what fails here was never one of our tokens."""
    body, check = token[len(PREFIX) : -_CHECK], token[-_CHECK:]
    return token.startswith(PREFIX) and len(body) == _BODY and _checksum(body) == check


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), _CHECK)


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
