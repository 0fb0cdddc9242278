"""What the edge asks about people, answered: tokens, handover codes, renewals."""

from portico_gateway.auth import accounts
from portico_gateway.auth.revocations import Revocations
from portico_gateway.auth.rights import RightsService
from portico_gateway.auth.service import AuthService
from portico_gateway.auth.studio_cookies import StudioCookies
from portico_gateway.auth.values import Action, Actor
from portico_gateway.errors import PorticoError, Unauthenticated
from portico_gateway.link.messages import CheckToken, RedeemCode, Renew, Verdict
from portico_shared.clock import Clock

TOKEN_SECONDS = 60.0
"""How long an edge may remember that a token opens a studio; a revocation ends it at once."""


class EdgeAnswers:
    def __init__(
        self,
        auth: AuthService,
        rights: RightsService,
        cookies: StudioCookies,
        revocations: Revocations,
        clock: Clock,
    ) -> None:
        self._auth = auth
        self._rights = rights
        self._cookies = cookies
        self._revocations = revocations
        self._clock = clock

    async def answer(self, question: CheckToken | RedeemCode | Renew) -> Verdict:
        """Never raises a PorticoError: a refusal is a verdict with its status."""
        generation = self._revocations.generation
        try:
            match question:
                case CheckToken():
                    return await self._token(question, generation)
                case RedeemCode():
                    actor, location = await self._auth.redeem(
                        question.code, question.session_id, question.nonce, question.peer
                    )
                    return await self._cookie(question.id, actor, question.session_id, generation, location)
                case Renew():
                    claims = self._cookies.read(question.cookie, question.session_id)
                    user_id = accounts.row_id(claims.sub)
                    found = await self._auth.actor_of(user_id, claims.sid, "") if user_id is not None else None
                    if found is None:
                        raise Unauthenticated("signed out")
                    return await self._cookie(question.id, found, question.session_id, generation, "")
        except PorticoError as error:
            return Verdict(id=question.id, status=error.status, message=error.message, generation=generation)

    async def _token(self, question: CheckToken, generation: int) -> Verdict:
        found = await self._auth.actor_from_bearer(question.token, question.peer)
        if found is None:
            raise Unauthenticated("this token is unknown, expired or revoked")
        actor, expires = found
        await self._may_open(actor, question.session_id)
        until = self._clock.now() + TOKEN_SECONDS
        return Verdict(
            id=question.id,
            status=200,
            user_id=actor.user.id,
            user_name=actor.user.user_name,
            session_id=question.session_id,
            expires_at=min(until, expires) if expires is not None else until,
            generation=generation,
            sign_in=actor.sign_in,
        )

    async def _cookie(self, number: int, actor: Actor, session_id: str, generation: int, location: str) -> Verdict:
        await self._may_open(actor, session_id)
        cookie, expires = self._cookies.mint(
            session_id=session_id,
            user_id=actor.user.id,
            user_name=actor.user.user_name,
            sign_in=actor.sign_in,
            generation=generation,
        )
        return Verdict(
            id=number,
            status=200,
            user_id=actor.user.id,
            user_name=actor.user.user_name,
            session_id=session_id,
            expires_at=expires,
            generation=generation,
            cookie=cookie,
            sign_in=actor.sign_in,
            location=location,
        )

    async def _may_open(self, actor: Actor, session_id: str) -> None:
        await self._rights.authorise(actor, Action.CONNECT, await self._rights.studio(session_id))
