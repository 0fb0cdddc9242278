"""Rows of studios and runs as frozen values, and the statements that read and change them.

Every method is one transaction. Status changes go through `transition` alone, which asks the table.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from portico_gateway.auth.values import StudioRights
from portico_gateway.errors import Conflict, NotFound
from portico_gateway.store.tables import events, progress, runs, studios
from portico_gateway.studios.transitions import LIVE, Event, after
from portico_gateway.studios.values import Configuration, ProgressStep, Status, StopReason
from portico_shared.clock import Clock

MAX_STEPS = 400
"""Progress rows kept for a run: a start takes about a dozen; an agent that talks on and on is not listened to."""


class Store(Protocol):
    """What is needed of the store; both translate the database's faults into `portico_gateway.errors`."""

    def begin(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A transaction that commits when its block ends well. A broken unique key raises Conflict."""
        ...

    def connect(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """To read with."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StudioRecord:
    session_id: str
    workspace_id: int
    creator_id: int
    name: str
    description: str
    template: str
    compute_env_id: str
    configuration: Configuration
    is_private: bool
    allowed_user_ids: tuple[int, ...]
    lineage: str
    parent_checkpoint_id: int | None
    start_checkpoint_id: int | None
    status: Status
    status_message: str
    status_at: float
    stop_reason: StopReason | None
    generation: int
    run_id: str | None
    created: float
    updated: float
    last_started: float | None

    @property
    def rights(self) -> StudioRights:
        return StudioRights(
            self.session_id, self.workspace_id, self.creator_id, self.is_private, frozenset(self.allowed_user_ids)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    id: str
    session_id: str
    generation: int
    started_by: int | None
    started: float
    running_since: float | None
    ended: float | None
    outcome: str | None
    outcome_message: str
    lifespan_ends: float | None
    lifespan_hours: int
    configuration: Configuration
    run_token_hash: bytes
    public_key: bytes | None
    tool_port: int
    placement: dict[str, Any] | None
    restore_checkpoint_id: int | None
    salvage: bool
    checkpoint_id: int | None
    launched: bool
    final_saved: bool


@dataclass(frozen=True, slots=True)
class Pair:
    """A studio and its current or latest run."""

    studio: StudioRecord
    run: RunRecord | None


class Records:
    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    # --- studios ------------------------------------------------------------------------------------------------

    async def studio(self, session_id: str) -> StudioRecord | None:
        async with self._store.connect() as db:
            row = (await db.execute(sa.select(studios).where(studios.c.session_id == session_id))).first()
        return None if row is None else _studio(row)

    async def all_studios(self) -> list[StudioRecord]:
        async with self._store.connect() as db:
            return [_studio(row) for row in await db.execute(sa.select(studios))]

    async def pairs(self, ids: Sequence[str]) -> list[Pair]:
        """In the order asked for; those that are gone are left out."""
        source = studios.outerjoin(runs, runs.c.id == studios.c.run_id)
        async with self._store.connect() as db:
            found = (await db.execute(sa.select(studios).where(studios.c.session_id.in_(ids)))).all()
            query = sa.select(runs).select_from(source).where(studios.c.session_id.in_(ids), runs.c.id.is_not(None))
            of = {row.session_id: _run(row) for row in await db.execute(query)}
        by_id = {row.session_id: Pair(_studio(row), of.get(row.session_id)) for row in found}
        return [by_id[session_id] for session_id in ids if session_id in by_id]

    async def live(self) -> list[Pair]:
        """Studios that have, or are to have, a run."""
        query = sa.select(studios.c.session_id).where(studios.c.status.in_([status.value for status in LIVE]))
        async with self._store.connect() as db:
            ids = list((await db.execute(query)).scalars())
        return await self.pairs(ids)

    async def pair(self, session_id: str) -> Pair | None:
        found = await self.pairs([session_id])
        return found[0] if found else None

    async def names(self, workspace_id: int) -> set[str]:
        async with self._store.connect() as db:
            rows = await db.execute(sa.select(studios.c.name).where(studios.c.workspace_id == workspace_id))
            return set(rows.scalars())

    async def insert_studio(self, **values: Any) -> None:
        """Raises Conflict when the name is taken in the workspace."""
        try:
            async with self._store.begin() as db:
                await db.execute(studios.insert().values(**_encoded(values)))
        except Conflict:
            raise Conflict(f"a studio named '{values['name']}' exists in this workspace already") from None

    async def update_studio(self, session_id: str, **values: Any) -> None:
        """Raises Conflict when a new name is taken."""
        statement = studios.update().where(studios.c.session_id == session_id).values(**_encoded(values))
        try:
            async with self._store.begin() as db:
                await db.execute(statement)
        except Conflict:
            raise Conflict(f"a studio named '{values.get('name')}' exists in this workspace already") from None

    async def delete_studio(self, session_id: str) -> list[str]:
        """The ids of its runs, whose logs may go too."""
        async with self._store.begin() as db:
            ids = list((await db.execute(sa.select(runs.c.id).where(runs.c.session_id == session_id))).scalars())
            await db.execute(progress.delete().where(progress.c.run_id.in_(ids)))
            await db.execute(runs.delete().where(runs.c.session_id == session_id))
            await db.execute(studios.delete().where(studios.c.session_id == session_id))
        return ids

    async def transition(
        self,
        session_id: str,
        event: Event,
        *,
        expect_run: str | None = None,
        message: str = "",
        stop_reason: StopReason | None = None,
        **values: Any,
    ) -> StudioRecord:
        """Move the studio as the table says. Raises Conflict when it says no, or when `expect_run` is not its run
        any more; NotFound when the studio is gone."""
        async with self._store.begin() as db:
            row = (await db.execute(sa.select(studios).where(studios.c.session_id == session_id))).first()
            if row is None:
                raise NotFound("the studio is gone")
            before = _studio(row)
            if expect_run is not None and before.run_id != expect_run:
                raise Conflict(f"run {expect_run} is over: the studio has a newer one")
            changed = {
                "status": after(before.status, event).value,
                "status_message": message[:4096],
                "status_at": self._clock.now(),
                "stop_reason": None if stop_reason is None else stop_reason.value,
                **_encoded(values),
            }
            await db.execute(studios.update().where(studios.c.session_id == session_id).values(**changed))
            row = (await db.execute(sa.select(studios).where(studios.c.session_id == session_id))).one()
        return _studio(row)

    # --- runs ---------------------------------------------------------------------------------------------------

    async def run(self, run_id: str) -> RunRecord | None:
        async with self._store.connect() as db:
            row = (await db.execute(sa.select(runs).where(runs.c.id == run_id))).first()
        return None if row is None else _run(row)

    async def insert_run(self, **values: Any) -> None:
        async with self._store.begin() as db:
            await db.execute(runs.insert().values(**_encoded(values)))

    async def drop_run(self, run_id: str) -> None:
        async with self._store.begin() as db:
            await db.execute(runs.delete().where(runs.c.id == run_id))

    async def update_run(self, run_id: str, **values: Any) -> None:
        async with self._store.begin() as db:
            await db.execute(runs.update().where(runs.c.id == run_id).values(**_encoded(values)))

    async def claim_key(self, run_id: str, public_key: bytes) -> bytes | None:
        """The key that owns the run: this one if it is the first. None when there is no such run."""
        statement = runs.update().where(runs.c.id == run_id, runs.c.public_key.is_(None))
        async with self._store.begin() as db:
            await db.execute(statement.values(public_key=public_key))
            return (await db.execute(sa.select(runs.c.public_key).where(runs.c.id == run_id))).scalar_one_or_none()

    async def old_runs(self, session_id: str, keep: int) -> list[str]:
        """Ended runs of a studio beyond the newest `keep`."""
        query = sa.select(runs.c.id).where(runs.c.session_id == session_id, runs.c.ended.is_not(None))
        async with self._store.connect() as db:
            return list((await db.execute(query.order_by(runs.c.started.desc()).offset(keep).limit(100))).scalars())

    # --- what happened --------------------------------------------------------------------------------------------

    async def add_step(self, run_id: str, step: ProgressStep) -> None:
        async with self._store.begin() as db:
            count = sa.select(sa.func.count()).select_from(progress).where(progress.c.run_id == run_id)
            if ((await db.execute(count)).scalar_one()) >= MAX_STEPS:
                return
            values = {"at": step.at, "name": step.name[:64], "state": step.state, "detail": step.detail[:1024]}
            await db.execute(progress.insert().values(run_id=run_id, **values))

    async def steps(self, run_id: str) -> tuple[ProgressStep, ...]:
        query = sa.select(progress).where(progress.c.run_id == run_id).order_by(progress.c.id).limit(MAX_STEPS)
        async with self._store.connect() as db:
            return tuple(ProgressStep(row.at, row.name, row.state, row.detail) for row in await db.execute(query))

    async def add_event(
        self, kind: str, studio: StudioRecord, user_id: int | None = None, peer: str = "", **detail: Any
    ) -> None:
        """One line of the event log."""
        async with self._store.begin() as db:
            await db.execute(
                events.insert().values(
                    at=self._clock.now(),
                    workspace_id=studio.workspace_id,
                    session_id=studio.session_id,
                    user_id=user_id,
                    peer=peer[:64],
                    kind=kind,
                    detail=detail,
                )
            )


def _encoded(values: dict[str, Any]) -> dict[str, Any]:
    """Configurations as JSON; everything else as it is."""
    return {key: msgspec.to_builtins(v) if isinstance(v, Configuration) else v for key, v in values.items()}


def configuration_from(raw: object) -> Configuration:
    return msgspec.convert(raw, Configuration)


def _studio(row: sa.Row[Any]) -> StudioRecord:
    values = dict(row._mapping)
    values["configuration"] = configuration_from(values["configuration"])
    values["allowed_user_ids"] = tuple(values["allowed_user_ids"])
    values["status"] = Status(values["status"])
    values["stop_reason"] = None if values["stop_reason"] is None else StopReason(values["stop_reason"])
    return StudioRecord(**values)


def _run(row: sa.Row[Any]) -> RunRecord:
    values = dict(row._mapping)
    values["configuration"] = configuration_from(values["configuration"])
    return RunRecord(**values)
