"""What the API needs from the other rooms."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from portico_gateway.auth.values import (
    Action,
    Actor,
    Invitation,
    Label,
    PolicyChange,
    StudioRights,
    User,
    Workspace,
    WorkspacePolicy,
)
from portico_gateway.settings import Settings
from portico_gateway.studios.values import Studios
from portico_gateway.web import doors
from portico_shared.clock import Clock


class ApiAuth(doors.Auth, Protocol):
    async def actor_from_bearer(self, token: str, peer: str) -> tuple[Actor, float | None] | None: ...


class ApiPeople(doors.People, Protocol):
    async def policy(self, actor: Actor, workspace_id: int) -> WorkspacePolicy: ...

    async def change_policy(self, actor: Actor, workspace_id: int, change: PolicyChange) -> None: ...

    async def add_workspace(self, actor: Actor, name: str, full_name: str = "", description: str = "") -> Workspace: ...

    async def set_disabled(self, actor: Actor, user_id: int, disabled: bool) -> None: ...

    async def reset_link(self, actor: Actor, user_id: int) -> Invitation: ...


class ApiRights(Protocol):
    async def authorise(self, actor: Actor, action: Action, target: StudioRights | int) -> None: ...

    async def users(self, ids: Iterable[int]) -> dict[int, User]: ...


class ApiLabels(Protocol):
    async def of_workspace(self, actor: Actor, workspace_id: int, search: str = "") -> tuple[Label, ...]: ...

    async def add(self, actor: Actor, workspace_id: int, name: str, value: str | None) -> Label: ...


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything the routes are given."""

    studios: Studios
    auth: ApiAuth
    people: ApiPeople
    rights: ApiRights
    labels: ApiLabels
    settings: Settings
    clock: Clock
