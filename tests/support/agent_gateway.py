"""A gateway as an agent sees it: the agent API on a Unix socket, every signature and token really checked."""

import asyncio
import base64
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from aiohttp import web
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from portico_shared.messages import (
    AGENT_API,
    ChallengeReply,
    CommitCall,
    CommitReply,
    ErrorReply,
    Grant,
    GrantsCall,
    GrantsReply,
    IdentifyCall,
    IdentifyReply,
    LogReply,
    Plan,
    TokenCall,
    TokenReply,
    proof_text,
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
RUN = "r0123456789abcdef"
RUN_TOKEN = "the-run-token"
HOST = "portico.localhost:8000"


def plan(**changes: object) -> Plan:
    base = {
        "run": RUN, "session_id": "3fa1b2c4", "lineage": "l0123456789abcdef", "generation": 1, "studio_name": "s",
        "tool": "custom", "environment": {}, "checkpoint_interval": 300.0, "quota": 2**30, "grace": 5.0,
    }  # fmt: skip
    return Plan(**{**base, **changes})


@dataclass
class AgentGateway:
    """What it was asked, and knobs to make it misbehave."""

    plan: Plan
    expires_in: float = 600.0
    failures: list[int] = field(default_factory=list)
    """Statuses that the next calls are answered with instead."""
    owner: str = ""
    tokens: set[str] = field(default_factory=set)
    nonces: set[str] = field(default_factory=set)
    calls: list[str] = field(default_factory=list)
    commits: list[CommitCall] = field(default_factory=list)
    objects: dict[str, bytes] = field(default_factory=dict)
    logs: dict[str, bytes] = field(default_factory=dict)
    over: bool = False
    called: asyncio.Event = field(default_factory=asyncio.Event)

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._guard], client_max_size=2**28)
        app.add_routes(
            [
                web.post(f"{AGENT_API}/identify", self._identify),
                web.get(f"{AGENT_API}/challenge", self._challenge),
                web.post(f"{AGENT_API}/token", self._token),
                web.get(f"{AGENT_API}/plan", self._plan),
                web.post(f"{AGENT_API}/grants", self._grants),
                web.post(f"{AGENT_API}/reads", self._grants),
                web.post(f"{AGENT_API}/commit", self._commit),
                web.post(f"{AGENT_API}/log", self._log),
                web.put("/objects/{hash}", self._put),
                web.get("/objects/{hash}", self._get),
            ]
        )
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        name = request.path.removeprefix(AGENT_API + "/")
        self.calls.append(name)
        self.called.set()
        if request.headers["Host"] != HOST:
            return _error(421, "another host")
        if self.failures:
            return _error(self.failures.pop(0), "as asked for")
        if self.over:
            return _error(410, "this run is over")
        open_to_all = name in ("identify", "challenge", "token") or request.path.startswith("/objects/")
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not open_to_all and bearer not in self.tokens:
            return _error(401, "no such token")
        return await handler(request)

    async def _identify(self, request: web.Request) -> web.Response:
        call = msgspec.json.decode(await request.read(), type=IdentifyCall)
        if call.run_token != RUN_TOKEN or not self._signed(
            call.public_key, call.signature, "identify", call.nonce, call.time
        ):
            return _error(401, "wrong run token or signature")
        if self.owner not in ("", call.public_key):
            return _error(409, "another key owns this run")
        self.owner = call.public_key
        return _reply(
            IdentifyReply(
                run=RUN, session_id="3fa1b2c4", token=self._mint(), expires_in=self.expires_in, protocol=(1, 0)
            )
        )

    async def _challenge(self, _: web.Request) -> web.Response:
        nonce = secrets.token_hex(8)
        self.nonces.add(nonce)
        return _reply(ChallengeReply(nonce=nonce))

    async def _token(self, request: web.Request) -> web.Response:
        call = msgspec.json.decode(await request.read(), type=TokenCall)
        if call.nonce not in self.nonces or not self._signed(self.owner, call.signature, "token", call.nonce, 0):
            return _error(401, "wrong nonce or signature")
        self.nonces.discard(call.nonce)
        return _reply(TokenReply(token=self._mint(), expires_in=self.expires_in))

    async def _plan(self, _: web.Request) -> web.Response:
        return _reply(self.plan)

    async def _grants(self, request: web.Request) -> web.Response:
        call = msgspec.json.decode(await request.read(), type=GrantsCall)
        method = "GET" if request.path.endswith("reads") else "PUT"
        grants = [
            Grant(
                hash=o.hash,
                method=method,
                url=f"/objects/{o.hash}?signed=a%2Fb",
                headers={},
                exists=o.hash in self.objects,
            )
            for o in call.objects
        ]
        return _reply(GrantsReply(grants=tuple(grants)))

    async def _commit(self, request: web.Request) -> web.Response:
        self.commits.append(msgspec.json.decode(await request.read(), type=CommitCall))
        return _reply(CommitReply(checkpoint_id=len(self.commits), name=f"checkpoint {len(self.commits)}"))

    async def _log(self, request: web.Request) -> web.Response:
        stream, offset = request.query["stream"], int(request.query["offset"])
        kept = self.logs.get(stream, b"")
        self.logs[stream] = kept.ljust(offset, b"\0") + (await request.read())[max(0, len(kept) - offset) :]
        return _reply(LogReply(next_offset=len(self.logs[stream])))

    async def _put(self, request: web.Request) -> web.Response:
        self.objects[request.match_info["hash"]] = await request.read()
        return web.Response(status=201)

    async def _get(self, request: web.Request) -> web.StreamResponse:
        content = self.objects.get(request.match_info["hash"])
        if content is None:
            return web.Response(status=404)
        span = request.http_range
        part = content[span.start : span.stop]
        return web.Response(status=206 if "Range" in request.headers else 200, body=part)

    def _mint(self) -> str:
        token = secrets.token_hex(8)
        self.tokens.add(token)
        return token

    def _signed(self, key: str, signature: str, use: str, nonce: str, at: int) -> bool:
        try:
            Ed25519PublicKey.from_public_bytes(_bytes(key)).verify(_bytes(signature), proof_text(use, RUN, nonce, at))
        except (InvalidSignature, ValueError):
            return False
        return True


@contextlib.asynccontextmanager
async def agent_gateway(folder: Path, what: Plan | None = None) -> AsyncIterator[tuple[AgentGateway, str]]:
    """The gateway and its address."""
    gateway = AgentGateway(what or plan())
    runner = web.AppRunner(gateway.application(), access_log=None)
    await runner.setup()
    await web.UnixSite(runner, str(folder / "gateway.sock")).start()
    try:
        yield gateway, f"unix:{folder / 'gateway.sock'}"
    finally:
        await runner.cleanup()


def _reply(content: msgspec.Struct) -> web.Response:
    return web.Response(body=msgspec.json.encode(content), content_type="application/json")


def _error(status: int, message: str) -> web.Response:
    return web.Response(
        status=status, body=msgspec.json.encode(ErrorReply(message=message)), content_type="application/json"
    )


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
