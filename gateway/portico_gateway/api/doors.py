"""What the API needs from the other rooms."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from portico_gateway.auth.values import Action, Actor, StudioRights, User
from portico_gateway.settings import Settings
from portico_gateway.store.engine import Store
from portico_gateway.studios.values import Studios
from portico_gateway.web import doors
from portico_shared.clock import Clock


class ApiAuth(doors.Auth, Protocol):
    async def actor_from_bearer(self, token: str, peer: str) -> tuple[Actor, float | None] | None: ...


class ApiRights(Protocol):
    async def authorise(self, actor: Actor, action: Action, target: StudioRights | int) -> None: ...

    async def users(self, ids: Iterable[int]) -> dict[int, User]: ...


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything the routes are given."""

    studios: Studios
    auth: ApiAuth
    people: doors.People
    rights: ApiRights
    store: Store
    settings: Settings
    clock: Clock
