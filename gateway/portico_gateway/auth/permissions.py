"""The role matrix, and the one decision every door asks for."""

from dataclasses import dataclass

from portico_gateway.auth.values import Action, Role, StudioRights, User
from portico_gateway.errors import Forbidden, NotFound

LEAST: dict[Action, Role] = {
    Action.STUDIO_READ: Role.VIEW,
    Action.STUDIO_EXECUTE: Role.LAUNCH,
    Action.STUDIO_WRITE: Role.MAINTAIN,
    Action.STUDIO_DELETE: Role.MAINTAIN,
    Action.STUDIO_ADMIN: Role.ADMIN,
    Action.CONNECT: Role.CONNECT,
    Action.EXTEND: Role.CONNECT,
    Action.SETTINGS_READ: Role.LAUNCH,
    Action.SETTINGS_WRITE: Role.ADMIN,
    Action.MEMBERS_READ: Role.VIEW,
    Action.MEMBERS_WRITE: Role.ADMIN,
}
"""The lowest role that may. INSTANCE_ADMIN is no role's: it is the account's own flag."""

INSIDE = frozenset({Action.CONNECT, Action.EXTEND, Action.STUDIO_WRITE})
"""Looking inside: for a private studio only its creator and the members it names, whatever their role. Changing it is
among them, since who can make it public, or set a variable of its environment, is in."""
ON_PRIVATE = frozenset({Action.STUDIO_EXECUTE, Action.STUDIO_DELETE})
"""On somebody else's private studio these need STUDIO_ADMIN; who is named in it may start and stop it as well."""

NO_STUDIO = "there is no such studio, or it is not for you to see"
"""One sentence for both, so that nobody learns which."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of somebody in one workspace."""

    user: User
    role: Role | None
    launch_may_start: bool = True
    may_open: bool = True
    """False where this machine cannot keep people apart and the account is not the one that started Portico."""
    not_open_because: str = ""


def permitted(standing: Standing, studio: StudioRights | None) -> frozenset[Action]:
    """Everything this standing allows, on a studio or (None) in the workspace at large."""
    return frozenset(action for action in LEAST if refusal(standing, action, studio) is None)


def refusal(standing: Standing, action: Action, studio: StudioRights | None) -> str | None:
    """None = allowed; else the sentence that says why not."""
    if standing.user.disabled or standing.role is None:
        return "you are not a member of this workspace"
    least = LEAST.get(action)
    if least is None:
        return "only an administrator of this Portico may do that"
    if standing.role < least:
        return f"this needs the role {least.label} or higher; yours is {standing.role.label}"
    if action is Action.STUDIO_EXECUTE and standing.role is Role.LAUNCH and not standing.launch_may_start:
        return "this workspace lets only Maintain and higher start and stop studios"
    if studio is not None and (why := _private_refusal(standing, action, studio)):
        return why
    if action is Action.CONNECT and not standing.may_open:
        return standing.not_open_because
    return None


def _private_refusal(standing: Standing, action: Action, studio: StudioRights) -> str | None:
    user, role = standing.user.id, standing.role
    if not studio.is_private or user == studio.creator_id:
        return None
    named = user in studio.allowed_user_ids
    if action in INSIDE and not named:
        return "this studio is private: ask its creator to name you as a member of it"
    if named and action is Action.STUDIO_EXECUTE:
        return None
    if action in ON_PRIVATE and role is not None and role < LEAST[Action.STUDIO_ADMIN]:
        return "this studio is private: only its creator, or an administrator of the workspace, may do that"
    return None


def require(standing: Standing, action: Action, studio: StudioRights | None) -> None:
    """Raises NotFound for what the person may not even see, else Forbidden with the reason."""
    why = refusal(standing, action, studio)
    if why is None:
        return
    if refusal(standing, Action.STUDIO_READ, studio) is not None:
        raise NotFound(NO_STUDIO if studio is not None else "no such workspace")
    raise Forbidden(why)
