"""What callers get: the shapes of the API, built from our values. Times are ISO 8601 in UTC."""

import datetime
import hashlib
from typing import Any

import msgspec

from portico_gateway.auth.values import Member, User, Workspace
from portico_gateway.studios.values import (
    CheckpointView,
    ComputeEnv,
    ProgressStep,
    Status,
    StopReason,
    StudioView,
    Template,
)

CHECKPOINT_STATUS = {"pending": "empty", "saved": "interim", "sealed": "finalized", "failed": "invalid"}
PROGRESS_STATUS = {"started": "in-progress", "done": "succeeded", "failed": "errored"}

STOP_REASONS = frozenset(StopReason) - {StopReason.USER, StopReason.IDLE}
"""Those that clients know; the message tells of the others."""


class Dto(msgspec.Struct, rename="camel", kw_only=True):
    pass


class UserInfo(Dto):
    id: int
    user_name: str
    email: str
    avatar: str


class ActiveConnection(UserInfo):
    last_active: str


class ComputeEnvDto(Dto):
    id: str
    name: str
    platform: str
    region: str
    credentials_id: str | None = None
    work_dir: str = ""


class TemplateDto(Dto):
    repository: str
    icon: str
    tool: str
    status: str


class ConfigurationDto(Dto):
    cpu: int
    gpu: int
    memory: int
    lifespan_hours: int
    conda_environment: str | None
    environment: dict[str, str]
    mount_data: list[str]
    mount_data_v2: list[dict[str, str]] = msgspec.field(name="mountDataV2", default_factory=list)
    ssh_enabled: bool = False


class StatusInfo(Dto):
    status: str
    message: str
    last_update: str
    stop_reason: str | None


class ProgressDto(Dto):
    status: str
    message: str
    warnings: list[str]


class ParentDto(Dto):
    checkpoint_id: int
    checkpoint_name: str
    session_id: str
    studio_name: str


class LabelDto(Dto):
    id: int
    name: str
    value: str | None
    resource: bool = False
    is_default: bool = False
    is_dynamic: bool = False
    is_interpolated: bool = False
    date_created: str | None = None


class StudioDto(Dto):
    session_id: str
    workspace_id: int
    name: str
    description: str
    user: UserInfo
    studio_url: str
    compute_env: ComputeEnvDto
    template: TemplateDto
    configuration: ConfigurationDto
    date_created: str
    last_updated: str
    last_started: str | None
    effective_lifespan_hours: int
    active_connections: list[ActiveConnection]
    status_info: StatusInfo
    progress: list[ProgressDto]
    is_private: bool
    allowed_users: list[UserInfo] | None
    labels: list[LabelDto] | None
    parent_checkpoint: ParentDto | None
    mounted_data_links: list[dict[str, str]]
    base_image: str | None = None
    custom_image: bool = False
    wave_build_url: str | None = None
    remote_config: dict[str, str] | None = None
    ssh_details: dict[str, str] | None = None
    lifespan_ends: str | None = None
    """Portico's own: when the present run's lifespan ends."""
    last_checkpoint: str | None = None
    actions: list[str] = []
    refusals: dict[str, str] = {}


class CheckpointDto(Dto):
    id: int
    name: str
    path: str
    status: str
    author: UserInfo
    date_created: str
    date_saved: str
    """Clients expect one always: until something is saved it is the date it was begun; `status` tells."""
    size: int = 0
    uploaded: int = 0
    reason: str = ""


class StudioAnswer(Dto):
    studio: StudioDto


class StudioList(Dto):
    studios: list[StudioDto]
    total_size: int


class CheckpointList(Dto):
    checkpoints: list[CheckpointDto]
    total_size: int


class TemplateList(Dto):
    templates: list[TemplateDto]
    total_size: int


class Submitted(Dto):
    job_submitted: bool
    session_id: str
    status_info: StatusInfo


class LogAnswer(Dto):
    text: str
    next_offset: int
    ended: bool


class Message(Dto):
    message: str


def when(at: float | None) -> str | None:
    if at is None:
        return None
    return datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def user(value: User) -> UserInfo:
    return UserInfo(id=value.id, user_name=value.user_name, email=value.email, avatar=avatar(value))


def avatar(value: User) -> str:
    """A small drawing of the initials, made here: no third party learns who looks at whom."""
    hue = hashlib.sha256(value.user_name.encode()).digest()[0] * 360 // 256
    letters = "".join(c for c in (value.display_name or value.user_name)[:1].upper() if c.isalnum()) or "?"
    return (
        "data:image/svg+xml;utf8,<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'>"
        f"<rect width='32' height='32' rx='16' fill='hsl({hue} 45%25 40%25)'/>"
        f"<text x='16' y='21' text-anchor='middle' font-size='15' fill='white'>{letters}</text></svg>"
    )


def compute_env(value: ComputeEnv) -> ComputeEnvDto:
    return ComputeEnvDto(id=value.id, name=value.name, platform=value.platform, region=value.region)


def environment(value: ComputeEnv, *, resources: bool = True) -> dict[str, Any]:
    """A compute environment as lists of them show it."""
    have = {"cpus": value.cpus, "memory": value.memory, "gpus": value.gpus, "gpuEnabled": value.gpus > 0}
    return {
        "id": value.id,
        "name": value.name,
        "platform": value.platform,
        "region": value.region,
        "status": value.status,
        "message": value.isolation_note,
        "primary": True,
        "workDir": "",
        "credentialsId": None,
        "labels": None,
        "resources": have if resources else None,
        "isolation": value.isolation,
    }


def template(value: Template) -> TemplateDto:
    return TemplateDto(repository=value.repository, icon=value.icon, tool=value.tool, status=value.status)


def status_name(status: Status) -> str:
    return "buildFailed" if status is Status.BUILD_FAILED else status.value


def status_info(view: StudioView) -> StatusInfo:
    return StatusInfo(
        status=status_name(view.status),
        message=view.status_message,
        last_update=when(view.status_at) or "",
        stop_reason=view.stop_reason.value if view.stop_reason in STOP_REASONS else None,
    )


def progress(step: ProgressStep) -> ProgressDto:
    text = f"{step.name}: {step.detail}" if step.detail else step.name
    return ProgressDto(status=PROGRESS_STATUS.get(step.state, "pending"), message=text, warnings=[])


def studio(view: StudioView, users: dict[int, User], *, labels: bool = True) -> StudioDto:
    c, env = view.configuration, view.compute_env
    return StudioDto(
        session_id=view.session_id,
        workspace_id=view.workspace_id,
        name=view.name,
        description=view.description,
        user=user(view.creator),
        studio_url=view.url,
        compute_env=compute_env(env),
        template=template(view.template),
        configuration=ConfigurationDto(
            cpu=c.cpu,
            gpu=c.gpu,
            memory=c.memory,
            lifespan_hours=c.lifespan_hours,
            conda_environment=c.conda_environment,
            environment=dict(c.environment),
            mount_data=[],
            ssh_enabled=c.ssh_enabled,
        ),
        date_created=when(view.created) or "",
        last_updated=when(view.updated) or "",
        last_started=when(view.last_started),
        effective_lifespan_hours=view.effective_lifespan_hours,
        active_connections=[
            ActiveConnection(**msgspec.structs.asdict(user(each.user)), last_active=when(each.last_active) or "")
            for each in view.connections
        ],
        status_info=status_info(view),
        progress=[progress(step) for step in view.progress],
        is_private=view.is_private,
        allowed_users=[user(users[i]) for i in view.allowed_user_ids if i in users],
        labels=[LabelDto(id=i, name=name, value=value) for i, name, value in view.labels] if labels else None,
        parent_checkpoint=ParentDto(
            checkpoint_id=view.parent.checkpoint_id,
            checkpoint_name=view.parent.checkpoint_name,
            session_id=view.parent.session_id,
            studio_name=view.parent.studio_name,
        )
        if view.parent
        else None,
        mounted_data_links=[],
        lifespan_ends=when(view.lifespan_ends),
        last_checkpoint=when(view.last_checkpoint),
        actions=sorted(view.actions),
        refusals=dict(view.refusals),
    )


def checkpoint(view: CheckpointView) -> CheckpointDto:
    author = view.author or User(0, "portico", "")
    return CheckpointDto(
        id=view.id,
        name=view.name,
        path=view.path,
        status=CHECKPOINT_STATUS.get(view.status, "invalid"),
        author=user(author),
        date_created=when(view.created) or "",
        date_saved=when(view.saved if view.saved is not None else view.created) or "",
        size=view.content_bytes,
        uploaded=view.uploaded_bytes,
        reason=view.reason,
    )


def workspace(value: Workspace, roles: list[str]) -> dict[str, Any]:
    return {
        "orgId": value.org_id,
        "orgName": value.org_name,
        "orgLogoUrl": None,
        "orgType": "pro",
        "workspaceId": value.id,
        "workspaceName": value.name,
        "workspaceFullName": value.full_name,
        "roles": roles,
        "visibility": "PRIVATE",
    }


def member(value: Member) -> dict[str, Any]:
    return {
        "memberId": value.user.id,
        "userName": value.user.user_name,
        "email": value.user.email,
        "firstName": value.user.display_name,
        "lastName": "",
        "avatar": avatar(value.user),
        "role": value.role.label,
    }
