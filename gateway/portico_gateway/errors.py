"""What can go wrong in the gateway, named by whose fault it is.

PorticoError                    carries `message` (one sentence for people, says what to do) and `status`
├── BadRequest            400   the caller's words are off
├── Unauthenticated       401   nobody, or a credential that counts no more
├── Forbidden             403   known, but not allowed
├── NotFound              404   not there, or not for these eyes
├── Conflict              409   at odds with the present state
├── Gone                  410   it was there and is over for good
├── TooLarge              413   over a limit
├── TooMany               429   too often
└── Unavailable           503   a part of ours, or one we lean on, is away; trying again may help
"""

from typing import ClassVar


class PorticoError(Exception):
    """Base: `str(error)` is a sentence that may be shown to the caller."""

    status: ClassVar[int] = 500

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class BadRequest(PorticoError):
    status = 400


class Unauthenticated(PorticoError):
    status = 401


class Forbidden(PorticoError):
    status = 403


class NotFound(PorticoError):
    status = 404


class Conflict(PorticoError):
    status = 409


class Gone(PorticoError):
    status = 410


class TooLarge(PorticoError):
    status = 413


class TooMany(PorticoError):
    status = 429


class Unavailable(PorticoError):
    status = 503
