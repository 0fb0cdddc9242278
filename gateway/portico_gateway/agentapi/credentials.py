"""Whose call it is: the run's key, proofs of it, and short tokens checked against the store."""

import hashlib
import hmac
import logging

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from portico_gateway.agentapi.tokens import TOKEN_SECONDS, RunTokens, from_base64url
from portico_gateway.errors import BadRequest, Conflict, Gone, NotFound, Unauthenticated
from portico_gateway.studios.records import Records, RunRecord, StudioRecord
from portico_gateway.studios.run_context import RunContext
from portico_shared.ids import is_run_id
from portico_shared.messages import ChallengeReply, IdentifyCall, IdentifyReply, TokenCall, TokenReply, proof_text
from portico_shared.versions import PROTOCOL, Version, accepts

NO_RUN = "there is no such run, or this does not prove it"
OVER = "this run is over: stop"
FENCED = "a newer run of this studio has taken its place: stop"

_log = logging.getLogger(__name__)


class RunCredentials:
    """Every answer here is about a run that the store says lives; Gone (410) or Conflict (409) otherwise."""

    def __init__(self, records: Records, tokens: RunTokens) -> None:
        self._records = records
        self._tokens = tokens

    async def identify(self, call: IdentifyCall, peer: str) -> IdentifyReply:
        """The first key with the run token owns the run; the same key may come again, any other never."""
        run = await self._known(call.run)
        if not hmac.compare_digest(hashlib.sha256(call.run_token.encode()).digest(), run.run_token_hash):
            raise Unauthenticated(NO_RUN)
        if not accepts(PROTOCOL, Version(*call.protocol)):
            theirs = Version(*call.protocol)
            raise BadRequest(f"this agent speaks protocol {theirs}, this gateway {PROTOCOL}: use an image that fits")
        key = from_base64url(call.public_key)
        if len(from_base64url(call.nonce)) != 16:
            raise BadRequest("the nonce is 16 bytes, base64url")
        _verify(key, call.signature, proof_text("identify", call.run, call.nonce, call.time))
        studio = await self._living(run)
        owner = await self._records.claim_key(run.id, key)
        if owner is None or not hmac.compare_digest(owner, key):
            _log.warning("run %s: a second key was presented from %s and refused", run.id, peer)
            await self._records.add_event("run-key-refused", studio, None, peer, run=run.id)
            raise Conflict("another key owns this run")
        return IdentifyReply(
            run=run.id,
            session_id=run.session_id,
            token=self._tokens.mint(run.id, run.generation),
            expires_in=TOKEN_SECONDS,
            protocol=(PROTOCOL.major, PROTOCOL.minor),
        )

    async def challenge(self, run_id: str) -> ChallengeReply:
        run = await self._known(run_id)
        await self._living(run)
        return ChallengeReply(nonce=self._tokens.challenge(run.id))

    async def token(self, call: TokenCall) -> TokenReply:
        """A new short token for whoever holds the run's key."""
        run = await self._known(call.run)
        if run.public_key is None:
            raise Unauthenticated(NO_RUN)
        _verify(run.public_key, call.signature, proof_text("token", run.id, call.nonce, 0))
        await self._living(run)
        self._tokens.use_challenge(run.id, call.nonce)
        return TokenReply(token=self._tokens.mint(run.id, run.generation), expires_in=TOKEN_SECONDS)

    async def check(self, token: str) -> tuple[RunContext, float]:
        """The run a short token speaks for, and when the token expires (epoch seconds)."""
        read = self._tokens.read(token)
        run = await self._known(read.run_id)
        studio = await self._living(run)
        context = RunContext(
            run_id=run.id,
            session_id=run.session_id,
            lineage=studio.lineage,
            generation=run.generation,
            checkpoint_id=run.checkpoint_id or 0,
            workspace_id=studio.workspace_id,
            author_id=run.started_by,
        )
        return context, read.expires_at

    async def _known(self, run_id: str) -> RunRecord:
        run = await self._records.run(run_id) if is_run_id(run_id) else None
        if run is None:
            raise Unauthenticated(NO_RUN)
        return run

    async def _living(self, run: RunRecord) -> StudioRecord:
        if run.ended is not None:
            raise Gone(OVER)
        studio = await self._records.studio(run.session_id)
        if studio is None:
            raise NotFound("the studio is gone")
        if studio.run_id != run.id or studio.generation != run.generation:
            raise Conflict(FENCED)
        return studio


def _verify(key: bytes, signature: str, text: bytes) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(from_base64url(signature), text)
    except (InvalidSignature, ValueError):
        raise Unauthenticated(NO_RUN) from None
