"""What an actor sees of studios: rows, live state and rights put together."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from portico_gateway.auth.values import Action, Actor, User
from portico_gateway.studios.lifecycle import Lifecycle
from portico_gateway.studios.listing import labels_of, last_saved, parents_of
from portico_gateway.studios.live_run import LiveRun
from portico_gateway.studios.needs import Rights
from portico_gateway.studios.records import Pair, StudioRecord
from portico_gateway.studios.templates import known_template
from portico_gateway.studios.transitions import LIVE, NO_RIGHT, RIGHTS, refusal
from portico_gateway.studios.values import (
    ComputeEnv,
    Connection,
    ParentCheckpoint,
    ProgressStep,
    Status,
    StudioView,
)
from portico_shared.messages import Status as AgentStatus

INSIDE = frozenset({"fork", "logs"})
"""Actions that show what is inside a studio: of a private one they take the right to connect as well."""

_UNKNOWN = User(0, "unknown", "", "Somebody who is gone")


@dataclass(frozen=True, slots=True)
class _Around:
    """What is read once for all studios of a page."""

    users: dict[int, User]
    labels: dict[str, tuple[tuple[int, str, str | None], ...]]
    parents: dict[int, ParentCheckpoint]
    saved: dict[str, float]


class Views:
    def __init__(self, lifecycle: Lifecycle, rights: Rights) -> None:
        self._lifecycle = lifecycle
        self._parts = lifecycle.parts
        self._rights = rights

    async def many(self, actor: Actor, pairs: Sequence[Pair]) -> tuple[StudioView, ...]:
        """A view of each, in order; progress is read for what lives alone."""
        permitted = await self._rights.permitted(actor, [pair.studio.rights for pair in pairs])
        around = await self._around(pairs)
        views = []
        for pair, rights in zip(pairs, permitted, strict=True):
            steps = await self._steps(pair) if pair.studio.status in LIVE or len(pairs) == 1 else ()
            views.append(self._view(pair, rights, steps, around))
        return tuple(views)

    async def _around(self, pairs: Sequence[Pair]) -> _Around:
        ids = [pair.studio.session_id for pair in pairs]
        people = {pair.studio.creator_id for pair in pairs}
        for session_id in ids:
            people.update(self._parts.visitors.of(session_id))
        store = self._parts.store
        return _Around(
            users=await self._rights.users(people),
            labels=await labels_of(store, ids),
            parents=await parents_of(store, {p for pair in pairs if (p := pair.studio.parent_checkpoint_id)}),
            saved=await last_saved(store, ids),
        )

    async def _steps(self, pair: Pair) -> tuple[ProgressStep, ...]:
        if pair.run is None:
            return ()
        steps = await self._parts.records.steps(pair.run.id)
        live = self._lifecycle.live(pair.studio.session_id)
        return steps if live is None or live.status is None else _with_progress(steps, live.status)

    def _view(
        self,
        pair: Pair,
        rights: frozenset[Action],
        steps: tuple[ProgressStep, ...],
        around: _Around,
    ) -> StudioView:
        studio, run = pair.studio, pair.run
        live = self._lifecycle.live(studio.session_id)
        lives = run is not None and studio.status in LIVE
        env = self._parts.compute.describe()
        refusals = refused(studio, rights, env, live)
        configuration = run.configuration if run is not None and lives else studio.configuration
        if studio.is_private and not rights & {Action.CONNECT, Action.STUDIO_WRITE}:
            configuration = replace(configuration, environment=())  # variables often hold what opens other doors
        return StudioView(
            session_id=studio.session_id,
            workspace_id=studio.workspace_id,
            name=studio.name,
            description=studio.description,
            creator=around.users.get(studio.creator_id, _UNKNOWN),
            url=self._parts.settings.studio_url(studio.session_id),
            compute_env=env,
            template=known_template(studio.template),
            configuration=configuration,
            created=studio.created,
            updated=studio.updated,
            last_started=studio.last_started,
            status=studio.status,
            status_message=_message(studio, live),
            status_at=studio.status_at,
            stop_reason=studio.stop_reason,
            is_private=studio.is_private,
            allowed_user_ids=studio.allowed_user_ids,
            labels=around.labels.get(studio.session_id, ()),
            connections=self._connections(studio, around),
            progress=steps,
            parent=around.parents.get(studio.parent_checkpoint_id or 0),
            lifespan_ends=run.lifespan_ends if run is not None and lives else None,
            effective_lifespan_hours=(
                run.lifespan_hours if run is not None and lives else studio.configuration.lifespan_hours
            ),
            last_checkpoint=around.saved.get(studio.session_id),
            run_id=studio.run_id,
            actions=frozenset(RIGHTS) - refusals.keys(),
            refusals=refusals,
        )

    def _connections(self, studio: StudioRecord, around: _Around) -> tuple[Connection, ...]:
        if studio.status is not Status.RUNNING:
            return ()
        seen = self._parts.visitors.of(studio.session_id)
        known = [Connection(around.users[user], at) for user, at in seen.items() if user in around.users]
        return tuple(sorted(known, key=lambda each: each.user.user_name))


def refused(studio: StudioRecord, rights: frozenset[Action], env: ComputeEnv, live: LiveRun | None) -> dict[str, str]:
    """Every action that somebody with these rights may not take now, with the reason."""
    found = {}
    for action, right in RIGHTS.items():
        inside = studio.is_private and action in INSIDE and Action.CONNECT not in rights
        if not env.shared and Action.CONNECT not in rights and action in ("start", "connect"):
            found[action] = f"on this machine only the account that started Portico opens studios: {env.isolation_note}"
        elif right not in rights:
            found[action] = NO_RIGHT[action]
        elif inside:
            found[action] = "it is private: only its creator and named members look inside"
        elif action == "stop" and live is not None and live.may_force:
            continue
        elif sentence := refusal(action, studio.status) or "":
            found[action] = sentence
    return found


def _message(studio: StudioRecord, live: LiveRun | None) -> str:
    if live is not None and not live.reachable and studio.status is Status.RUNNING:
        return "It cannot be reached at the moment; what runs in it goes on."
    return studio.status_message


def _with_progress(steps: tuple[ProgressStep, ...], status: AgentStatus) -> tuple[ProgressStep, ...]:
    """The step under way says how far it is."""
    if status.total <= 0 or not steps:
        return steps
    index = max((i for i, step in enumerate(steps) if step.name == status.phase), default=-1)
    if index < 0 or steps[index].state != "started":
        return steps
    step = steps[index]
    detail = f"{_size(min(status.done, status.total))} of {_size(status.total)}"
    return (*steps[:index], ProgressStep(step.at, step.name, step.state, detail), *steps[index + 1 :])


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
