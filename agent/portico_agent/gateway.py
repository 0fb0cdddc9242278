"""Calls to the gateway and to the object store, over one or two HTTP sessions.

A grant whose URL is a path goes to the gateway itself; an absolute one (S3) goes straight there. Every call of the
gateway's is retried while it is away, for as long as its `patience`; what it refuses is raised at once.
"""

import asyncio
import contextlib
import io
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Self, TypeVar

import aiohttp
import msgspec
from yarl import URL

from portico_agent.credential import Credential
from portico_agent.errors import (
    GatewayAway,
    GatewayBusy,
    GatewayError,
    Refused,
    RunOver,
    StorageAway,
    StorageRefused,
    TokenRefused,
)
from portico_shared.backoff import Backoff
from portico_shared.clock import Clock, SystemClock
from portico_shared.messages import (
    AGENT_API,
    ChallengeReply,
    CommitCall,
    CommitReply,
    ErrorReply,
    Grant,
    GrantsCall,
    GrantsReply,
    IdentifyReply,
    LogReply,
    ObjectName,
    Plan,
    ReadsCall,
    TokenReply,
)

Reply = TypeVar("Reply")

PATIENCE = 120.0
"""Seconds a call goes on trying while the gateway is away: longer than a restart or an upgrade of it takes."""
COMMIT_PATIENCE = 900.0
"""A commit stands at the end of an upload: worth waiting for a gateway that is being moved."""
CALL_TIMEOUT = aiohttp.ClientTimeout(total=60, sock_connect=10)
TRANSFER_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)
MAX_REPLY = 16 * 1024 * 1024
"""Bytes; the largest are grants of some thousand packs, each with a signed URL of about 1 KiB."""
RENEW_AT = 0.5
"""Share of a token's life after which a new one is fetched: half leaves time to find a gateway that is away."""
CONNECTIONS = 16
_OVER = {401, 403, 404, 409, 410}
_log = logging.getLogger(__name__)


class GatewayClient:
    """`async with GatewayClient(settings.gateway, settings.host, credential) as gateway`. One for a whole agent."""

    def __init__(
        self,
        gateway: str,
        host: str,
        credential: Credential,
        *,
        clock: Clock | None = None,
        patience: float = PATIENCE,
        waiting: Callable[[str], None] | None = None,
    ) -> None:
        """`waiting` is told why, each time that the gateway asks for patience with a call; grants take `patience`."""
        self._gateway = gateway
        self._host = host
        self._credential = credential
        self._clock = clock or SystemClock()
        self._patience = patience
        self._waiting = waiting
        self._session: aiohttp.ClientSession | None = None
        self._outside: aiohttp.ClientSession | None = None
        self._token = ""
        self._token_from = self._token_until = -math.inf
        self._renewing = asyncio.Lock()
        self.over = asyncio.Event()
        """The gateway has said that this run is over; every further call says so, too."""

    @property
    def address(self) -> str:
        """'unix:/path' or 'http(s)://host:port', as the settings gave it."""
        return self._gateway

    @property
    def host(self) -> str:
        """The Host header of every request to the gateway."""
        return self._host

    @property
    def run(self) -> str:
        return self._credential.run

    async def __aenter__(self) -> Self:
        unix = self._gateway.removeprefix("unix:") if self._gateway.startswith("unix:") else ""
        connector = aiohttp.UnixConnector(unix, limit=CONNECTIONS) if unix else aiohttp.TCPConnector(limit=CONNECTIONS)
        self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        self._outside = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        for session in (self._session, self._outside):
            if session is not None:
                await session.close()

    # --- who we are -------------------------------------------------------------------------------------------------

    async def identify(self, *, patience: float = math.inf) -> IdentifyReply:
        """Present the run's key. May be repeated with the same key. Raises RunOver when the gateway does not know the
        run or another key owns it."""
        reply = await self._patiently(
            lambda: self._ask("POST", "identify", IdentifyReply, body=self._credential.identify()), patience
        )
        self._keep(reply.token, reply.expires_in)
        return reply

    async def token(self) -> str:
        """A short token that is good for a while yet, for roads that carry their own credential.

        Raises RunOver, or GatewayAway when none is left and no new one can be had.
        """
        now = self._clock.monotonic()
        if now < self._token_from + RENEW_AT * (self._token_until - self._token_from):
            return self._token
        async with self._renewing:
            now = self._clock.monotonic()
            if now < self._token_from + RENEW_AT * (self._token_until - self._token_from):
                return self._token  # somebody else renewed it while we waited
            try:
                await self._renew()
            except GatewayAway:
                if now >= self._token_until:
                    raise
            return self._token

    def forget_token(self, token: str) -> None:
        """The gateway refused `token`: fetch another next time."""
        if token == self._token:
            self._token_from = self._token_until = -math.inf

    async def _renew(self) -> None:
        challenge = await self._ask("GET", f"challenge?run={self._credential.run}", ChallengeReply)
        call = self._credential.answer_challenge(challenge.nonce)
        reply = await self._ask("POST", "token", TokenReply, body=call)
        self._keep(reply.token, reply.expires_in)

    def _keep(self, token: str, expires_in: float) -> None:
        self._token, self._token_from = token, self._clock.monotonic()
        self._token_until = self._token_from + expires_in

    # --- calls ------------------------------------------------------------------------------------------------------

    async def plan(self, *, patience: float = math.inf) -> Plan:
        return await self._call("GET", "plan", Plan, patience=patience)

    async def grants(self, objects: tuple[ObjectName, ...]) -> tuple[Grant, ...]:
        """Permission to put these objects; those the store has are marked `exists`."""
        call = GrantsCall(objects=objects)
        return (await self._call("POST", "grants", GrantsReply, body=call, patience=self._patience)).grants

    async def reads(self, objects: tuple[ObjectName, ...]) -> tuple[Grant, ...]:
        """Permission to read these objects of the lineage."""
        call = ReadsCall(objects=objects)
        return (await self._call("POST", "reads", GrantsReply, body=call, patience=self._patience)).grants

    async def commit(self, call: CommitCall, *, patience: float = COMMIT_PATIENCE) -> CommitReply:
        return await self._call("POST", "commit", CommitReply, body=call, patience=patience)

    async def post_log(self, stream: str, offset: int, data: bytes, *, patience: float = PATIENCE) -> int:
        """A piece of a log; the answer is the offset to go on from. An empty piece asks how far the gateway is."""
        path = f"log?stream={stream}&offset={offset}"
        return (await self._call("POST", path, LogReply, data=data, patience=patience)).next_offset

    async def _call(
        self,
        method: str,
        path: str,
        reply: type[Reply],
        *,
        body: msgspec.Struct | None = None,
        data: bytes | None = None,
        patience: float,
    ) -> Reply:
        return await self._patiently(lambda: self._with_token(method, path, reply, body=body, data=data), patience)

    async def _with_token(self, method: str, path: str, reply: type[Reply], **content: Any) -> Reply:
        token = await self.token()
        try:
            return await self._ask(method, path, reply, token=token, **content)
        except TokenRefused:
            self.forget_token(token)  # the gateway may have other keys now: once more with a token of those
            return await self._ask(method, path, reply, token=await self.token(), **content)

    async def _patiently(self, attempt: Callable[[], Awaitable[Reply]], patience: float) -> Reply:
        deadline, backoff = self._clock.monotonic() + patience, Backoff()
        while True:
            try:
                return await attempt()
            except GatewayAway as away:
                delay = backoff.next_delay()
                if self._clock.monotonic() + delay > deadline:
                    raise
                _log.info("the gateway is away (%s), again in %.1f s", away, delay)
                if self._waiting is not None and isinstance(away, GatewayBusy):
                    self._waiting(str(away))
                await self._clock.sleep(delay)

    async def _ask(
        self,
        method: str,
        path: str,
        reply: type[Reply],
        *,
        token: str = "",
        body: msgspec.Struct | None = None,
        data: bytes | None = None,
    ) -> Reply:
        """One attempt."""
        assert self._session is not None, "enter the client first"
        headers = {"Host": self._host, "Accept-Encoding": "identity"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        if body is not None:
            data, headers["Content-Type"] = msgspec.json.encode(body), "application/json"
        with _gateway_errors():
            async with self._session.request(
                method, self._url(f"{AGENT_API}/{path}"), data=data, headers=headers, timeout=CALL_TIMEOUT,
                allow_redirects=False,
            ) as response:  # fmt: skip
                content = await _bounded(response)
                if response.status != 200:
                    raise self._refusal(response.status, content, whole_run=not token)
        try:
            return msgspec.json.decode(content, type=reply)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise GatewayError(f"the gateway's answer to {path.partition('?')[0]} makes no sense: {error}") from error

    def _refusal(self, status: int, content: bytes, *, whole_run: bool) -> GatewayError:
        """`whole_run`: the call proves who we are by the run's key, so that a refusal is about the run itself."""
        try:
            message: str = msgspec.json.decode(content, type=ErrorReply).message
        except (msgspec.DecodeError, msgspec.ValidationError):
            message = content[:200].decode(errors="replace")
        if status >= 500 or status == 429:
            return GatewayBusy(message) if message else GatewayAway(f"the gateway answered {status}")
        if status == 410 or (whole_run and status in _OVER):
            self.over.set()
            return RunOver(message or f"the gateway answered {status}")
        if status == 401:
            return TokenRefused(message)
        return Refused(status, message)

    def _url(self, path: str) -> str:
        return f"http://{self._host}{path}" if self._gateway.startswith("unix:") else f"{self._gateway}{path}"

    # --- objects ----------------------------------------------------------------------------------------------------

    async def put(self, grant: Grant, body: bytes) -> None:
        """Send an object where the grant says. One attempt; raises StorageAway or StorageRefused.

        An object that is there already (412, 409) is no error: names are hashes of contents.
        """
        async with self._object(grant, body) as response:
            if response.status not in (200, 201, 204, 409, 412):
                raise await _storage_refusal(response)

    async def get(self, grant: Grant, *, start: int = 0, length: int = 0) -> bytes:
        """Read an object, or `length` bytes of it from `start`. One attempt; raises StorageAway or StorageRefused."""
        span = {"Range": f"bytes={start}-{start + length - 1}"} if length else {}
        async with self._object(grant, None, span) as response:
            if response.status not in (200, 206):
                raise await _storage_refusal(response)
            content = await response.read()
        if length and len(content) != length:
            return content[start : start + length]  # a store that ignores ranges; some honour them and answer 200
        return content

    @contextlib.asynccontextmanager
    async def _object(
        self, grant: Grant, body: bytes | None, extra: dict[str, str] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        assert self._session is not None and self._outside is not None, "enter the client first"
        ours = grant.url.startswith("/")
        session = self._session if ours else self._outside
        url = self._url(grant.url) if ours else grant.url
        headers = {"Accept-Encoding": "identity", **({"Host": self._host} if ours else {}), **grant.headers}
        try:
            async with session.request(
                grant.method, _encoded(url), data=_streamed(body), headers={**headers, **(extra or {})},
                timeout=TRANSFER_TIMEOUT, allow_redirects=False, skip_auto_headers=("Content-Type", "User-Agent"),
            ) as response:  # fmt: skip
                if response.status >= 500 or response.status == 429:
                    raise StorageAway(await _away_words(response))
                yield response
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            absent = isinstance(error, aiohttp.ClientConnectorError) and not ours
            words = f"nothing can be reached at {URL(url).authority}" if absent else _words(error)
            raise StorageAway(f"the store does not answer: {words}") from error


def _streamed(body: bytes | None) -> io.BytesIO | None:
    """An object goes out piece by piece: megabytes at once would hold up everything else in this loop."""
    return None if body is None else io.BytesIO(body)


async def _away_words(response: aiohttp.ClientResponse) -> str:
    """507 says which disk is full; the others' words are for machines."""
    if response.status == 507:
        text = await response.content.read(1000)
        with contextlib.suppress(msgspec.DecodeError, msgspec.ValidationError):
            return msgspec.json.decode(text, type=ErrorReply).message
    return f"the store answered {response.status}"


def _encoded(url: str) -> URL:
    """A signed URL goes out byte for byte: normalising it would break the signature."""
    return URL(url, encoded=True)


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


@contextlib.contextmanager
def _gateway_errors() -> Iterator[None]:
    try:
        yield
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise GatewayAway(f"the gateway does not answer: {_words(error)}") from error


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    content = await response.content.read(MAX_REPLY + 1)
    while len(content) <= MAX_REPLY and (more := await response.content.read(MAX_REPLY + 1 - len(content))):
        content += more
    if len(content) > MAX_REPLY:
        raise GatewayError("the gateway's answer is too long")
    return content


async def _storage_refusal(response: aiohttp.ClientResponse) -> StorageRefused:
    text = (await response.content.read(400)).decode(errors="replace")
    return StorageRefused(response.status, text or response.reason or "")
