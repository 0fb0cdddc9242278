"""People, workspaces and roles as frozen values."""

import enum
from dataclasses import dataclass


class Role(enum.IntEnum):
    """A member's role in a workspace; a higher one includes the lower ones."""

    VIEW = 1
    CONNECT = 2
    LAUNCH = 3
    MAINTAIN = 4
    ADMIN = 5
    OWNER = 6

    @property
    def label(self) -> str:
        return self.name.lower()


class Action(enum.Enum):
    """What somebody may want to do; names as in the role matrix of the API."""

    STUDIO_READ = "studio:read"
    STUDIO_EXECUTE = "studio:execute"
    STUDIO_WRITE = "studio:write"
    STUDIO_DELETE = "studio:delete"
    STUDIO_ADMIN = "studio:admin"
    CONNECT = "studio_session:read"
    EXTEND = "studio_session:execute"
    SETTINGS_READ = "workspace_studio:read"
    SETTINGS_WRITE = "workspace_studio:write"
    MEMBERS_READ = "members:read"
    MEMBERS_WRITE = "members:write"
    INSTANCE_ADMIN = "instance:admin"


@dataclass(frozen=True, slots=True)
class User:
    id: int
    user_name: str
    email: str
    display_name: str = ""
    is_admin: bool = False
    """Administrator of this Portico: makes accounts and workspaces."""
    disabled: bool = False


@dataclass(frozen=True, slots=True)
class Actor:
    """Somebody at a door: the user, and how they proved it."""

    user: User
    sign_in: str
    """'s<id>' for a browser sign-in, 't<id>' for a token: what a revocation names."""
    peer: str = ""
    """Address they come from, for the event log."""


@dataclass(frozen=True, slots=True)
class Workspace:
    id: int
    org_id: int
    name: str
    full_name: str
    org_name: str
    description: str = ""


@dataclass(frozen=True, slots=True)
class Member:
    user: User
    role: Role
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class StudioRights:
    """What `authorise` needs to know of a studio; a value, so that no door can ask about another thing."""

    session_id: str
    workspace_id: int
    creator_id: int
    is_private: bool
    allowed_user_ids: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Link:
    """A one-use link somebody holds."""

    user: User
    purpose: str  # 'bootstrap', 'invitation', 'reset'
    expires: float


@dataclass(frozen=True, slots=True)
class SignIn:
    """A browser somebody is signed in with."""

    id: int
    created: float
    last_used: float
    expires: float
    peer: str
    agent: str
    current: bool


@dataclass(frozen=True, slots=True)
class Token:
    """A personal access token, without its secret."""

    id: int
    name: str
    created: float
    last_used: float | None
    expires: float | None


@dataclass(frozen=True, slots=True)
class Invitation:
    """What came of inviting somebody: `url` is the one-use link to hand over, empty if they had an account already."""

    user: User
    url: str
    expires: float


@dataclass(frozen=True, slots=True)
class Label:
    id: int
    name: str
    value: str | None
    created: float


@dataclass(frozen=True, slots=True)
class WorkspacePolicy:
    """What a workspace settles for all its studios."""

    lifespan_hours: int | None = None
    """None = free to choose; 0 = until stopped."""
    private_by_default: bool = False
    launch_may_start: bool = True
    """False: only Maintain and higher start and stop studios."""


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """None = leave as it is; `free_lifespan` takes the workspace's own lifespan away."""

    lifespan_hours: int | None = None
    free_lifespan: bool = False
    private_by_default: bool | None = None
    launch_may_start: bool | None = None
