"""The door of a studio: a visitor, or the answer that sends them elsewhere."""

import hashlib
import re
import secrets
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import parse_qs, quote

from portico_gateway.edge import answers, cookies
from portico_gateway.edge.head import Head, is_navigation
from portico_gateway.edge.visitors import Visitor, Visitors
from portico_gateway.errors import Unavailable
from portico_gateway.link.messages import (
    NONCE_COOKIE,
    STUDIO_COOKIE,
    CheckToken,
    RedeemCode,
    Renew,
    Verdict,
)
from portico_gateway.settings import Settings

HANDOVER = b"/_portico/handover"
NONCE_SECONDS = 600
COOKIE_LIFE = 7 * 24 * 3600
"""The browser keeps the cookie beyond the JWT's ten minutes: an expired one with a right signature can be renewed."""
ASKED_AGAIN = 3
"""Times a yes of control's may be overtaken by a revocation before we say 'try again'."""
_NONCE = re.compile(r"[A-Za-z0-9_-]{43}")
_TOKEN = re.compile(r"[Bb]earer +([!-~]{1,512})")
NOT_HERE = "There is no such studio, or it is not shared with you. Ask whoever sent you the link."


class Asker(Protocol):
    """The link to control."""

    async def ask(self, question: CheckToken | RedeemCode | Renew) -> Verdict: ...


@dataclass(frozen=True, slots=True)
class Admitted:
    visitor: Visitor
    add: tuple[bytes, ...] = ()
    """Header lines for the response: a renewed cookie."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The request is answered here; it goes no further."""

    response: bytes
    status: int


Outcome = Admitted | Answered


def bearer_of(head: Head) -> str | None:
    """The bearer token of a request; None when there is none or it is no bearer."""
    values = head.values(b"authorization")
    match = _TOKEN.fullmatch(values[0].decode("latin-1")) if len(values) == 1 else None
    return match[1] if match else None


def _code_of(head: Head) -> str:
    try:
        query = parse_qs(head.target.partition(b"?")[2].decode("latin-1"), max_num_fields=10)
    except ValueError:  # too many fields
        return ""
    return query.get("code", [""])[0][:256]


class Gate:
    def __init__(self, visitors: Visitors, control: Asker, settings: Settings) -> None:
        self._visitors = visitors
        self._control = control
        self._settings = settings

    def known(self, head: Head, session_id: str) -> Admitted | None:
        """The fast way, without asking anybody; None = `ask`."""
        if head.target.startswith(HANDOVER):
            return None
        token = bearer_of(head)
        if token is not None:  # a tool's own token scheme belongs in another header or a cookie
            visitor = self._visitors.from_token(token.encode(), session_id)
            return Admitted(visitor) if visitor else None
        cookie = cookies.find(head, STUDIO_COOKIE.encode())
        visitor = self._visitors.from_cookie(cookie, session_id) if cookie else None
        return Admitted(visitor) if visitor and not self._visitors.wants_renewal(visitor) else None

    async def ask(self, head: Head, session_id: str, peer: str) -> Outcome:
        """The slow way: control is asked where our own knowledge ends."""
        try:
            return await self._ask(head, session_id, peer)
        except Unavailable as error:
            cookie = cookies.find(head, STUDIO_COOKIE.encode())
            visitor = self._visitors.from_cookie(cookie, session_id) if cookie else None
            if visitor is not None:  # due for renewal, but it still counts: control may be away
                return Admitted(visitor)
            return self._problem(head, 503, error.message)

    async def _ask(self, head: Head, session_id: str, peer: str) -> Outcome:
        if head.target == HANDOVER or head.target.startswith(HANDOVER + b"?"):
            return await self._redeem(head, session_id, peer)
        for _ in range(ASKED_AGAIN):
            outcome = await self._ask_once(head, session_id, peer)
            if outcome is not None:
                return outcome
        raise Unavailable("Rights are changing just now; try again in a moment.")

    async def _ask_once(self, head: Head, session_id: str, peer: str) -> Outcome | None:
        """None when a revocation overtook control's yes."""
        token = bearer_of(head)
        if token is not None:
            verdict = await self._control.ask(CheckToken(id=0, token=token, session_id=session_id, peer=peer))
            if verdict.status != 200:
                return self._refused(head, verdict)
            visitor = self._visitors.vouched(token.encode(), verdict, bearer=True)
            return Admitted(visitor) if visitor is not None else None
        cookie = self._renewable(head, session_id)
        if cookie is None:
            return self._sign_in(head, session_id)
        verdict = await self._control.ask(Renew(id=0, cookie=cookie, session_id=session_id))
        if verdict.status == 401:
            return self._sign_in(head, session_id)
        if verdict.status != 200:
            return self._refused(head, verdict)
        visitor = self._visitors.vouched(verdict.cookie.encode(), verdict, bearer=False)
        line = cookies.set_line(STUDIO_COOKIE, verdict.cookie, COOKIE_LIFE)
        return Admitted(visitor, (line,)) if visitor is not None else None

    def _renewable(self, head: Head, session_id: str) -> str | None:
        """A cookie worth asking about: one with a right signature, expired or not."""
        cookie = cookies.find(head, STUDIO_COOKIE.encode())
        if cookie is None:
            return None
        if not self._visitors.can_verify:
            raise Unavailable("Portico is starting; try again in a moment.")
        return cookie.decode("latin-1") if self._visitors.signed(cookie, session_id) is not None else None

    async def still(self, visitor: Visitor) -> bool:
        """Whether somebody who was admitted would be admitted now. While control is away: yes."""
        secret = visitor.secret.decode("latin-1")
        question: CheckToken | Renew
        if visitor.bearer:
            question = CheckToken(id=0, token=secret, session_id=visitor.session_id, peer="")
        else:
            question = Renew(id=0, cookie=secret, session_id=visitor.session_id)
        try:
            verdict = await self._control.ask(question)
        except Unavailable:
            return True
        return verdict.status not in (401, 403, 404)

    def _sign_in(self, head: Head, session_id: str) -> Answered:
        """Nobody yet: a person is sent to the management host, a program is told."""
        if not is_navigation(head) or head.upgrade:
            return self._problem(
                head, 401, "Sign in first, or send a personal access token as 'Authorization: Bearer …'."
            )
        nonce = (cookies.find(head, NONCE_COOKIE.encode()) or b"").decode("latin-1")
        if not _NONCE.fullmatch(nonce):
            nonce = secrets.token_urlsafe(32)
        location = (
            f"{self._settings.base_url}/handover?studio={session_id}"
            f"&next={quote(head.target.decode('latin-1'), safe='')}&nonce={hashlib.sha256(nonce.encode()).hexdigest()}"
        )
        line = cookies.set_line(NONCE_COOKIE, nonce, NONCE_SECONDS)
        return Answered(answers.redirect(302, location, keep_alive=head.keep_alive, lines=(line,)), 302)

    async def _redeem(self, head: Head, session_id: str, peer: str) -> Answered:
        """Back from the management host with a one-use code."""
        code = _code_of(head)
        nonce = (cookies.find(head, NONCE_COOKIE.encode()) or b"").decode("latin-1")
        if head.method != b"GET" or not code:
            return self._problem(head, 400, "This address only serves signing in. Open the studio's own address again.")
        question = RedeemCode(id=0, code=code, session_id=session_id, nonce=nonce[:256], peer=peer)
        verdict = await self._control.ask(question)
        if verdict.status != 200:
            return self._refused(head, verdict)
        self._visitors.vouched(verdict.cookie.encode(), verdict, bearer=False)
        lines = (
            cookies.set_line(STUDIO_COOKIE, verdict.cookie, COOKIE_LIFE),
            cookies.set_line(NONCE_COOKIE, "", 0),
        )
        place = quote(verdict.location, safe="/?&=%:@!$'()*+,;~-._#") if verdict.location.startswith("/") else "/"
        if place.startswith("//"):
            place = "/"
        return Answered(answers.redirect(303, place, keep_alive=head.keep_alive, lines=lines), 303)

    def _refused(self, head: Head, verdict: Verdict) -> Answered:
        if verdict.status in (403, 404):
            return self._problem(head, 404, NOT_HERE)
        return self._problem(head, verdict.status, verdict.message)

    def _problem(self, head: Head, status: int, message: str) -> Answered:
        response = answers.problem(
            status,
            message,
            for_people=is_navigation(head),
            keep_alive=head.keep_alive and head.length == 0,
            head_only=head.method == b"HEAD",
        )
        return Answered(response, status)
