"""Accounts, browser sign-ins, tokens and the handover to studios' hosts: everything about who somebody is."""

from portico_gateway.auth import accounts, sign_ins, tokens
from portico_gateway.auth.event_log import record
from portico_gateway.auth.links import OVER, OneUseLinks
from portico_gateway.auth.passwords import Passwords
from portico_gateway.auth.rate import SignInRate
from portico_gateway.auth.revocations import Revocations
from portico_gateway.auth.rights import RightsService
from portico_gateway.auth.secrets_text import MAX_SECRET, digest, is_text, new_secret
from portico_gateway.auth.values import Action, Actor, Link, SignIn, Token, User
from portico_gateway.errors import BadRequest, Forbidden, NotFound, Unauthenticated
from portico_gateway.settings import Settings
from portico_gateway.store.engine import Store
from portico_gateway.store.tables import handover_codes, users
from portico_shared.clock import Clock

CODE_SECONDS = 60.0
WRONG = "user name or password is wrong"


class AuthService:
    """The doors' one way to people. Methods raise the errors of `portico_gateway.errors`."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        settings: Settings,
        *,
        rights: RightsService,
        revocations: Revocations,
        links: OneUseLinks,
        passwords: Passwords | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._rights = rights
        self._revocations = revocations
        self._links = links
        self._passwords = passwords or Passwords()
        self._rate = SignInRate(clock)

    def close(self) -> None:
        self._passwords.close()

    # --- sign in and out ----------------------------------------------------------------------------------------

    async def sign_in(self, login: str, password: str, *, peer: str, agent: str) -> str:
        """The new session cookie's value. Raises Unauthenticated (one sentence for every cause) or TooMany."""
        name = login.strip().casefold()[:254]
        self._rate.attempt(name, peer)
        async with self._store.connect() as connection:
            found = await accounts.by_login(connection, name)
        right = await self._passwords.verify(found[1] if found else None, password)
        now = self._clock.now()
        async with self._store.begin() as connection:
            if not right or found is None or found[0].disabled:
                await record(connection, now, "sign-in-failed", user_id=found[0].id if found else None, peer=peer)
                failed = True
            else:
                failed = False
                await record(connection, now, "signed-in", user_id=found[0].id, peer=peer)
                cookie = await sign_ins.make(connection, found[0].id, now, self._settings.session_hours, peer, agent)
        if failed:
            raise Unauthenticated(WRONG)
        self._rate.succeeded(name, peer)
        return cookie

    async def sign_out(self, cookie: str) -> None:
        """End it here, at the edge and in every studio it opened. Harmless when it counts no more."""
        now = self._clock.now()
        async with self._store.begin() as connection:
            found = await sign_ins.find(connection, cookie, now)
            if found is None:
                return
            await sign_ins.end(connection, found[0], found[1])
            await record(connection, now, "signed-out", user_id=found[1])
        self._revocations.revoke(user_id=found[1], sign_in=f"s{found[0]}")

    async def link(self, secret: str) -> Link:
        """What a one-use link is for, without using it. Raises NotFound when it is used, expired or unknown."""
        async with self._store.connect() as connection:
            found = await self._links.find(connection, secret)
            user = await accounts.by_id(connection, found.user_id)
        if user is None or user.disabled:
            raise NotFound(OVER)
        return Link(user, found.purpose, found.expires)

    async def use_link(self, secret: str, *, password: str, display_name: str, peer: str, agent: str) -> str:
        """Set the password, use the link up and sign in: the session cookie's value. Other sign-ins end."""
        await self.link(secret)
        hashed = await self._passwords.hash(password)
        now = self._clock.now()
        async with self._store.begin() as connection:
            found = await self._links.use(connection, secret)
            values: dict[str, object] = {"password_hash": hashed}
            if display_name.strip() and is_text(display_name):
                values["display_name"] = display_name.strip()[:128]
            await connection.execute(users.update().where(users.c.id == found.user_id).values(**values))
            ended = await sign_ins.end_others(connection, found.user_id, keep="")
            await record(connection, now, "link-used", user_id=found.user_id, peer=peer, purpose=found.purpose)
            cookie = await sign_ins.make(connection, found.user_id, now, self._settings.session_hours, peer, agent)
        for number in ended:
            self._revocations.revoke(user_id=found.user_id, sign_in=f"s{number}")
        return cookie

    # --- who is this? -------------------------------------------------------------------------------------------

    async def actor_from_cookie(self, cookie: str, peer: str) -> Actor | None:
        """Who is signed in with this cookie; None when it counts no more."""
        now = self._clock.now()
        async with self._store.connect() as connection:
            found = await sign_ins.find(connection, cookie, now)
            user = await accounts.by_id(connection, found[1]) if found else None
        if found is None or user is None or user.disabled:
            return None
        if found[2]:
            async with self._store.begin() as connection:
                await sign_ins.touch(connection, found[0], now)
        return Actor(user, f"s{found[0]}", peer)

    async def actor_from_bearer(self, token: str, peer: str) -> tuple[Actor, float | None] | None:
        """Who holds this personal access token, and when it expires; None when it counts for nothing."""
        now = self._clock.now()
        async with self._store.connect() as connection:
            found = await tokens.find(connection, token, now)
            user = await accounts.by_id(connection, found[1]) if found else None
        if found is None or user is None or user.disabled:
            return None
        if found[3]:
            async with self._store.begin() as connection:
                await tokens.used(connection, found[0], now)
        return Actor(user, f"t{found[0]}", peer), found[2]

    async def actor_of(self, user_id: int, sign_in: str, peer: str) -> Actor | None:
        """Somebody the edge already knows; None when their sign-in or token counts no more."""
        now, number = self._clock.now(), accounts.row_id(sign_in[1:])
        if number is None:
            return None
        async with self._store.connect() as connection:
            user = await accounts.by_id(connection, user_id)
            if user is None or user.disabled:
                return None
            if sign_in[0] == "t":
                alive = any(
                    t.id == number and (t.expires is None or t.expires > now)
                    for t in await tokens.of_user(connection, user_id)
                )
            else:
                alive = sign_in[0] == "s" and await sign_ins.lives(connection, number, user_id, now)
        return Actor(user, sign_in, peer) if alive else None

    # --- handover to a studio's host --------------------------------------------------------------------------------

    async def handover_code(self, actor: Actor, session_id: str, nonce_hash: bytes, location: str) -> str:
        """A one-use code for a studio's host. Raises NotFound, or Forbidden for who may see but not open it."""
        await self._rights.authorise(actor, Action.CONNECT, await self._rights.studio(session_id))
        if not actor.sign_in.startswith("s"):
            raise Forbidden("a studio's page is opened with a browser's sign-in; programs send their token there")
        if len(nonce_hash) != 32 or len(location) > 8000 or not location.startswith("/"):
            raise BadRequest("this handover did not come from a studio's page; open the studio's address again")
        code, now = new_secret(), self._clock.now()
        async with self._store.begin() as connection:
            await connection.execute(handover_codes.delete().where(handover_codes.c.expires < now))
            await connection.execute(
                handover_codes.insert().values(
                    hash=digest(code),
                    user_id=actor.user.id,
                    sign_in_id=int(actor.sign_in[1:]),
                    session_id=session_id,
                    nonce_hash=nonce_hash,
                    location=location,
                    expires=now + CODE_SECONDS,
                )
            )
        return code

    async def redeem(self, code: str, session_id: str, nonce: str, peer: str) -> tuple[Actor, str]:
        """Use a code up: who came, and where to. A wrong studio or browser uses it up too. Raises Unauthenticated."""
        now = self._clock.now()
        async with self._store.begin() as connection:
            used = handover_codes.delete().where(handover_codes.c.hash == digest(code[:MAX_SECRET]))
            row = (await connection.execute(used.returning(handover_codes))).first()
        if (
            row is None
            or row.expires <= now
            or row.session_id != session_id
            or not nonce
            or digest(nonce) != row.nonce_hash
        ):
            raise Unauthenticated("this sign-in took too long or was for another window; open the studio again")
        actor = await self.actor_of(row.user_id, f"s{row.sign_in_id}", peer)
        if actor is None:
            raise Unauthenticated("you were signed out meanwhile; open the studio again")
        return actor, row.location

    # --- what belongs to an account -----------------------------------------------------------------------------

    async def sign_ins(self, actor: Actor) -> tuple[SignIn, ...]:
        async with self._store.connect() as connection:
            return await sign_ins.of_user(connection, actor.user.id, actor.sign_in, self._clock.now())

    async def end_sign_in(self, actor: Actor, sign_in_id: int) -> None:
        async with self._store.begin() as connection:
            await sign_ins.end(connection, sign_in_id, actor.user.id)
        self._revocations.revoke(user_id=actor.user.id, sign_in=f"s{sign_in_id}")

    async def tokens(self, actor: Actor) -> tuple[Token, ...]:
        async with self._store.connect() as connection:
            return await tokens.of_user(connection, actor.user.id)

    async def make_token(self, actor: Actor, name: str, days: int | None) -> str:
        """The token's text, readable this once. `days` None = it does not expire."""
        now = self._clock.now()
        async with self._store.begin() as connection:
            text = await tokens.make(connection, actor.user.id, name, now, days)
            await record(connection, now, "token-made", user_id=actor.user.id, peer=actor.peer, name=name)
        return text

    async def delete_token(self, actor: Actor, token_id: int) -> None:
        now = self._clock.now()
        async with self._store.begin() as connection:
            await tokens.delete(connection, actor.user.id, token_id)
            await record(connection, now, "token-deleted", user_id=actor.user.id, peer=actor.peer, token=token_id)
        self._revocations.revoke(user_id=actor.user.id, sign_in=f"t{token_id}")

    async def change_password(self, actor: Actor, old: str, new: str) -> None:
        """Other sign-ins of this user end with it."""
        self._rate.attempt(actor.user.user_name, actor.peer)
        async with self._store.connect() as connection:
            found = await accounts.by_login(connection, actor.user.user_name)
        if found is None or not await self._passwords.verify(found[1], old):
            raise Forbidden("the present password is wrong")
        self._rate.succeeded(actor.user.user_name, actor.peer)
        hashed, now = await self._passwords.hash(new), self._clock.now()
        async with self._store.begin() as connection:
            await connection.execute(users.update().where(users.c.id == actor.user.id).values(password_hash=hashed))
            ended = await sign_ins.end_others(connection, actor.user.id, actor.sign_in)
            await record(connection, now, "password-changed", user_id=actor.user.id, peer=actor.peer)
        for number in ended:
            self._revocations.revoke(user_id=actor.user.id, sign_in=f"s{number}")

    async def user(self, user_id: int) -> User | None:
        async with self._store.connect() as connection:
            return await accounts.by_id(connection, user_id)
