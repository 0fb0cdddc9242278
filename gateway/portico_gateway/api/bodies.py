"""What callers may send: one struct a body, with its limits. Unknown fields are ignored; `UNSET` = not given."""

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

Name = Annotated[str, Meta(min_length=1, max_length=80)]
Description = Annotated[str, Meta(max_length=2048)]
Id = Annotated[int, Meta(ge=0, le=2**63 - 1)]
VariableName = Annotated[str, Meta(pattern="^[a-zA-Z_][a-zA-Z0-9_]*$", max_length=256)]
Ids = Annotated[list[Id], Meta(max_length=500)]


class Body(msgspec.Struct, rename="camel", kw_only=True):
    pass


class MountData(Body):
    data_link_id: str
    path: str | None = None


class ConfigurationBody(Body):
    cpu: Annotated[int, Meta(ge=0, le=1024)] | None = None
    gpu: Annotated[int, Meta(ge=0, le=64)] | None = None
    memory: Annotated[int, Meta(ge=0, le=16 * 1024 * 1024)] | None = None
    lifespan_hours: Annotated[int, Meta(ge=0, le=120)] | None = None
    conda_environment: Annotated[str, Meta(max_length=2048)] | None = None
    environment: Annotated[dict[VariableName, Annotated[str, Meta(max_length=32768)]], Meta(max_length=200)] | None = (
        None
    )
    mount_data: list[str] | None = None
    mount_data_v2: list[MountData] | None = msgspec.field(name="mountDataV2", default=None)
    ssh_enabled: bool | None = None


class RemoteConfig(Body):
    repository: str
    revision: str | None = None
    commit_id: str | None = None


class CreateStudio(Body):
    compute_env_id: Annotated[str, Meta(max_length=64)]
    name: Name | None = None
    description: Description | None = None
    data_studio_tool_url: Annotated[str, Meta(max_length=512)] | None = None
    configuration: ConfigurationBody | None = None
    initial_checkpoint_id: Id | None = None
    is_private: bool | None = None
    spot: bool | None = None
    label_ids: Ids | None = None
    allowed_user_ids: Ids | None = None
    remote_config: RemoteConfig | None = None


class StartStudio(Body):
    configuration: ConfigurationBody | None = None
    description: Description | None = None
    name: Name | None = None
    label_ids: Ids | None = None
    spot: bool | None = None
    allowed_user_ids: Ids | None = None
    checkpoint_id: Id | None = None
    """Portico's own: an older checkpoint to start from."""


class UpdateStudio(Body):
    name: Name | None = None
    description: Description | None = None
    configuration: ConfigurationBody | None = None
    label_ids: Ids | None = None
    compute_env_id: Annotated[str, Meta(max_length=64)] | None = None
    is_private: bool | None = None
    allowed_user_ids: Ids | None = None


class ForkStudioBody(Body):
    checkpoint_id: Id | None = None
    name: Name | None = None
    description: Description | None = None
    configuration: ConfigurationBody | None = None
    is_private: bool | None = None
    label_ids: Ids | None = None
    start: bool = False


class RenameCheckpoint(Body):
    name: Annotated[str, Meta(min_length=1, max_length=128)]


class MakeCheckpointBody(Body):
    name: Annotated[str, Meta(min_length=1, max_length=128)] | None = None


class CreateToken(Body):
    name: Name
    days: Annotated[int, Meta(ge=1, le=3650)] | None = None


class CreateLabel(Body):
    name: Annotated[str, Meta(min_length=1, max_length=80, pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*$")]
    value: Annotated[str, Meta(max_length=255)] | None = None
    resource: bool = False


class WorkspaceSettings(Body):
    lifespan_hours: Annotated[int, Meta(ge=0, le=120)] | UnsetType | None = UNSET
    container_repository: str | None = None
    name_strategy: str | None = None
    private_studio_by_default: bool | None = None
    launch_may_start: bool | None = None
    """Portico's own: whether the role Launch starts and stops studios."""


class InviteMember(Body):
    email: Annotated[str, Meta(min_length=3, max_length=254)]
    role: Annotated[str, Meta(max_length=16)]


class ChangeRole(Body):
    role: Annotated[str, Meta(max_length=16)]


class NewWorkspace(Body):
    name: Name
    full_name: Annotated[str, Meta(max_length=160)] | None = None
    description: Annotated[str, Meta(max_length=1024)] | None = None
    visibility: str | None = None


class CreateWorkspace(Body):
    workspace: NewWorkspace


class AccountState(Body):
    disabled: bool
