"""What the pages need from sign-in and people, stated as narrowly as they use it.

Every method raises the errors of `portico_gateway.errors`; their sentences are shown as they are.
"""

from typing import Protocol

from portico_gateway.auth.values import Actor, Invitation, Link, Member, Role, SignIn, Token, Workspace

__all__ = ["Auth", "Invitation", "Link", "People", "SignIn", "Token"]


class Auth(Protocol):
    """Accounts, browser sign-ins and tokens."""

    async def sign_in(self, login: str, password: str, *, peer: str, agent: str) -> str:
        """The new session cookie's value. Raises Unauthenticated (one sentence for every cause) or TooMany."""
        ...

    async def actor_from_cookie(self, cookie: str, peer: str) -> Actor | None:
        """Who is signed in with this cookie; None when it counts no more."""
        ...

    async def actor_of(self, user_id: int, sign_in: str, peer: str) -> Actor | None:
        """The visitor of a studio's host, whom the edge already knows; None when their sign-in counts no more."""
        ...

    async def sign_out(self, cookie: str) -> None: ...

    async def link(self, secret: str) -> Link:
        """What a one-use link is for, without using it. Raises NotFound when it is used, expired or unknown."""
        ...

    async def use_link(self, secret: str, *, password: str, display_name: str, peer: str, agent: str) -> str:
        """Set the password, use the link up and sign in: the session cookie's value."""
        ...

    async def handover_code(self, actor: Actor, session_id: str, nonce_hash: bytes, location: str) -> str:
        """A one-use code for a studio's host. Raises NotFound, or Forbidden for who may see but not open it."""
        ...

    async def sign_ins(self, actor: Actor) -> tuple[SignIn, ...]: ...

    async def end_sign_in(self, actor: Actor, sign_in_id: int) -> None: ...

    async def tokens(self, actor: Actor) -> tuple[Token, ...]: ...

    async def make_token(self, actor: Actor, name: str, days: int | None) -> str:
        """The token's text, readable this once. `days` None = it does not expire."""
        ...

    async def delete_token(self, actor: Actor, token_id: int) -> None: ...

    async def change_password(self, actor: Actor, old: str, new: str) -> None:
        """Other sign-ins of this user end with it."""
        ...


class People(Protocol):
    """Workspaces and who is in them."""

    async def workspaces(self, actor: Actor) -> tuple[Workspace, ...]: ...

    async def role(self, actor: Actor, workspace_id: int) -> Role | None:
        """The actor's own role there; None = not a member."""
        ...

    async def members(self, actor: Actor, workspace_id: int) -> tuple[Member, ...]: ...

    async def invite(self, actor: Actor, workspace_id: int, email: str, role: Role) -> Invitation: ...

    async def set_role(self, actor: Actor, workspace_id: int, user_id: int, role: Role) -> None: ...

    async def remove_member(self, actor: Actor, workspace_id: int, user_id: int) -> None: ...
