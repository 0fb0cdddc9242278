"""Passwords: argon2id in a small thread pool, so that a flood of sign-ins cannot stall the event loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import argon2

from portico_gateway.errors import BadRequest, TooMany

T = TypeVar("T")

SHORTEST, LONGEST = 10, 256
WORKERS, WAITING = 2, 64
"""Two hashes at once (each takes 64 MiB and some 50 ms); beyond 64 waiting a sign-in is told to come back."""


class Passwords:
    """Hash and check. A check for an unknown name costs as much as a real one."""

    def __init__(self, hasher: argon2.PasswordHasher | None = None) -> None:
        self._hasher = hasher or argon2.PasswordHasher()
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="argon2")
        self._waiting = 0
        self._dummy: str | None = None

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    async def hash(self, password: str) -> str:
        """Raises BadRequest when it is too short or too long, TooMany under a flood."""
        if not SHORTEST <= len(password) <= LONGEST:
            raise BadRequest(f"a password has {SHORTEST} to {LONGEST} characters")
        return await self._run(self._hasher.hash, _bytes(password))

    async def verify(self, stored: str | None, password: str) -> bool:
        """Whether it is right; with nothing stored the same work is done against a dummy, and the answer is no."""
        if self._dummy is None:
            self._dummy = await self._run(self._hasher.hash, "nobody has this password")
        matches = await self._run(self._check, stored or self._dummy, _bytes(password[: LONGEST + 1]))
        return matches and stored is not None

    def _check(self, stored: str, password: bytes) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
            return False

    async def _run(self, function: Callable[..., T], *arguments: str | bytes) -> T:
        if self._waiting >= WAITING:
            raise TooMany("too many sign-ins at once; try again in a minute")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)
        finally:
            self._waiting -= 1


def _bytes(password: str) -> bytes:
    """Every password has bytes, one with lone surrogates too."""
    return password.encode("utf-8", "surrogatepass")
