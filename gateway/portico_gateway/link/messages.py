"""Every message between edge and control. Framing: 4 bytes big-endian length, then msgpack of one struct.

A request carries `id`; its reply repeats it. Either side drops the connection on a frame over MAX_FRAME or on one it
cannot decode; the edge reconnects with backoff and keeps serving with what it knows.
"""

from typing import Literal

import msgspec

MAX_FRAME = 1024 * 1024


# --- edge asks ----------------------------------------------------------------------------------------------------


class Hello(msgspec.Struct, frozen=True, kw_only=True, tag="hello"):
    """First frame of an edge worker."""

    worker: str
    pid: int


class CheckToken(msgspec.Struct, frozen=True, kw_only=True, tag="check-token"):
    """May the bearer of this personal access token open this studio?"""

    id: int
    token: str
    session_id: str
    peer: str


class CheckRun(msgspec.Struct, frozen=True, kw_only=True, tag="check-run"):
    """Is this a run's short token (a tunnel or MQTT upgrade), and whose?"""

    id: int
    token: str


class RedeemCode(msgspec.Struct, frozen=True, kw_only=True, tag="redeem-code"):
    """A visitor came back from the management host with a one-use code."""

    id: int
    code: str
    session_id: str
    nonce: str
    """The value of the nonce cookie of this browser."""
    peer: str


class Renew(msgspec.Struct, frozen=True, kw_only=True, tag="renew"):
    """A studio cookie with a right signature is about to expire, or has: a new one, if the sign-in still lives."""

    id: int
    cookie: str
    session_id: str


class Tunnels(msgspec.Struct, frozen=True, kw_only=True, tag="tunnels"):
    """How many connections a run has at this worker now (0 = lost)."""

    run: str
    session_id: str
    connections: int


class Presence(msgspec.Struct, frozen=True, kw_only=True, tag="presence"):
    """Who is connected to a studio at this worker: user ids with open WebSockets or recent requests."""

    session_id: str
    users: tuple[tuple[int, float], ...]
    """(user id, last seen, epoch seconds)."""


class ProbeReply(msgspec.Struct, frozen=True, kw_only=True, tag="probe-reply"):
    id: int
    status: int
    """HTTP status of the tool's answer; 0 = no answer."""
    detail: str = ""


# --- control answers ----------------------------------------------------------------------------------------------


class Verdict(msgspec.Struct, frozen=True, kw_only=True, tag="verdict"):
    """The answer to every check. `status` 200 = yes; else what to tell the visitor, with `message`."""

    id: int
    status: int
    message: str = ""
    user_id: int = 0
    user_name: str = ""
    session_id: str = ""
    run: str = ""
    """For CheckRun: the run; for it `session_id` is that run's studio."""
    expires_at: float = 0.0
    generation: int = 0
    cookie: str = ""
    """For RedeemCode and Renew: the studio cookie's new value."""
    sign_in: str = ""
    """Id of the sign-in (or token) behind it: revocations name it."""
    location: str = ""
    """For RedeemCode: the path the visitor wanted."""


class Keys(msgspec.Struct, frozen=True, kw_only=True, tag="keys"):
    """Ed25519 public keys (raw, 32 bytes) that sign studio cookies; the first is the current one."""

    public_keys: tuple[bytes, ...]
    generation: int


RouteState = Literal["building", "build-failed", "starting", "running", "stopping", "stopped", "errored"]


class Route(msgspec.Struct, frozen=True, kw_only=True, tag="route"):
    """How a studio can be reached. `run` is the only run whose tunnels count."""

    session_id: str
    state: RouteState
    run: str = ""
    port: int = 0
    """The tool's port inside the studio."""
    inject: bool = True
    """Whether the script tag may be put into its documents."""


class Routes(msgspec.Struct, frozen=True, kw_only=True, tag="routes"):
    """The whole truth, on connect: what is not in it does not exist."""

    routes: tuple[Route, ...]


class RouteGone(msgspec.Struct, frozen=True, kw_only=True, tag="route-gone"):
    session_id: str


class Revoke(msgspec.Struct, frozen=True, kw_only=True, tag="revoke"):
    """These count no more, from now on: cached checks are dropped and open connections cut. Empty field = does not
    matter; a revocation matches what has all its non-empty fields."""

    generation: int
    user_id: int = 0
    session_id: str = ""
    sign_in: str = ""
    run: str = ""


class Probe(msgspec.Struct, frozen=True, kw_only=True, tag="probe"):
    """Ask the tool: GET `path` on `port` through the tunnel."""

    id: int
    session_id: str
    port: int
    path: str
    timeout: float


class Drain(msgspec.Struct, frozen=True, kw_only=True, tag="drain"):
    """Accept nothing new, close WebSockets with 1012 within `seconds`, then exit."""

    seconds: float


EdgeMessage = Hello | CheckToken | CheckRun | RedeemCode | Renew | Tunnels | Presence | ProbeReply
ControlMessage = Verdict | Keys | Routes | Route | RouteGone | Revoke | Probe | Drain


class StudioCookie(msgspec.Struct, frozen=True, kw_only=True):
    """Claims of the studio cookie, a JWT (EdDSA) that control signs and the edge verifies. Life: at most 10 minutes."""

    aud: str
    """'studio:<session id>'."""
    sub: str
    """User id."""
    name: str
    sid: str
    """Id of the sign-in."""
    gen: int
    iat: int
    exp: int


STUDIO_COOKIE_SECONDS = 600
STUDIO_COOKIE = "__Host-portico-studio"
NONCE_COOKIE = "__Host-portico-nonce"
SESSION_COOKIE = "__Host-portico-session"
