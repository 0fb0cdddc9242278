"""The catalogue's own tables: every method is one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from portico_gateway.auth.values import User
from portico_gateway.errors import Conflict, Gone, NotFound
from portico_gateway.store.tables import checkpoint_heads, checkpoints, runs, studios, users
from portico_gateway.studios.checkpoint_search import conditions
from portico_gateway.studios.records import Store
from portico_gateway.studios.run_context import RunContext
from portico_shared.clock import Clock
from portico_shared.messages import CommitCall

KEEP_HEADS = 12
"""Durable moments kept for a row: an hour of them at the default interval."""
INHERITED_HEADS = 3
"""Moments a fork takes over: the one it starts from, and two to fall back on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    id: int
    session_id: str
    run_id: str | None
    name: str
    author_id: int | None
    status: str
    reason: str
    lineage: str
    head: str | None
    generation: int
    content_bytes: int
    uploaded_bytes: int
    entries: int
    lower: str
    created: float
    saved: float | None


@dataclass(frozen=True, slots=True)
class HeadOf:
    row: Row
    head: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NewHead:
    head: str
    size: int
    packs: tuple[tuple[str, int], ...]
    reason: str
    content_bytes: int
    uploaded_bytes: int
    entries: int
    lower: str

    @classmethod
    def of(cls, call: CommitCall) -> "NewHead":
        return cls(
            head=call.head.hash,
            size=call.head.size,
            packs=tuple((pack.hash, pack.size) for pack in call.packs),
            reason=call.reason,
            content_bytes=_count(call.content_bytes),
            uploaded_bytes=_count(call.uploaded_bytes),
            entries=_count(call.entries),
            lower=call.lower[:128],
        )


class CheckpointRows:
    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    # --- rows -------------------------------------------------------------------------------------------------------

    async def insert(self, session_id: str, *, name: str | None, **values: Any) -> int:
        """A pending row. Raises NotFound for no studio, Conflict when the name is taken."""
        async with self._store.begin() as db:
            if name is None:
                name = await _next_name(db, session_id)
            await _require_free(db, session_id, name)
            created = {"status": "pending", "created": self._clock.now(), "name": name, **values}
            return await _insert(db, session_id=session_id, **created)

    async def row(self, session_id: str, checkpoint_id: int) -> Row:
        """Raises NotFound unless the studio has it."""
        async with self._store.begin() as db:
            return await _row(db, session_id, checkpoint_id)

    async def rename(self, session_id: str, checkpoint_id: int, name: str) -> None:
        async with self._store.begin() as db:
            if (await _row(db, session_id, checkpoint_id)).name != name:
                await _require_free(db, session_id, name)
                await db.execute(checkpoints.update().where(checkpoints.c.id == checkpoint_id).values(name=name))

    async def seal(self, checkpoint_id: int) -> bool:
        """Whether it holds something. A row that is gone holds nothing."""
        async with self._store.begin() as db:
            await _seal(db, checkpoints.c.id == checkpoint_id)
            query = sa.select(checkpoints.c.head).where(checkpoints.c.id == checkpoint_id)
            return (await db.execute(query)).scalar_one_or_none() is not None

    async def seal_run(self, run_id: str) -> set[str]:
        """Seals all rows of the run; their lineages."""
        async with self._store.begin() as db:
            await _seal(db, checkpoints.c.run_id == run_id)
            query = sa.select(checkpoints.c.lineage).where(checkpoints.c.run_id == run_id).distinct()
            return set((await db.execute(query)).scalars())

    async def copy(self, checkpoint_id: int, session_id: str, author_id: int | None) -> int:
        """A sealed row of `session_id` with the same newest heads. Raises NotFound, Conflict when nothing was saved."""
        async with self._store.begin() as db:
            found = (await db.execute(sa.select(checkpoints).where(checkpoints.c.id == checkpoint_id))).first()
            if found is None:
                raise NotFound("this checkpoint is gone")
            source = _as_row(found)
            if source.head is None:
                raise Conflict(f"nothing of checkpoint '{source.name}' was saved: choose another one")
            await _require_free(db, session_id, source.name)
            kept = ("name", "reason", "lineage", "head", "content_bytes", "entries", "lower", "saved")
            values = {name: getattr(source, name) for name in kept}
            values |= {"status": "sealed", "author_id": author_id, "created": self._clock.now()}
            made = await _insert(db, session_id=session_id, **values)
            heads = sa.select(checkpoint_heads).where(checkpoint_heads.c.checkpoint_id == checkpoint_id)
            newest = heads.order_by(checkpoint_heads.c.saved.desc()).limit(INHERITED_HEADS)
            for head in (await db.execute(newest)).mappings().all():
                await db.execute(checkpoint_heads.insert().values(**{**head, "checkpoint_id": made}))
            return made

    async def drop_studio(self, session_id: str) -> set[str]:
        """All rows of a studio are gone; the lineages they were in."""
        async with self._store.begin() as db:
            mine = checkpoints.c.session_id == session_id
            lineages = set((await db.execute(sa.select(checkpoints.c.lineage).where(mine).distinct())).scalars())
            ids = sa.select(checkpoints.c.id).where(mine)
            await db.execute(checkpoint_heads.delete().where(checkpoint_heads.c.checkpoint_id.in_(ids)))
            await db.execute(checkpoints.delete().where(mine))
            return lineages

    async def page(self, session_id: str, search: str, *, offset: int, limit: int) -> tuple[list[Row], int]:
        """Newest first, and how many there are in all."""
        where = sa.and_(checkpoints.c.session_id == session_id, *conditions(search))
        query = sa.select(checkpoints).where(where).order_by(checkpoints.c.created.desc(), checkpoints.c.id.desc())
        async with self._store.begin() as db:
            total = (await db.execute(sa.select(sa.func.count()).select_from(checkpoints).where(where))).scalar_one()
            return [_as_row(row) for row in await db.execute(query.offset(offset).limit(limit))], total

    async def authors(self, rows: Sequence[Row]) -> dict[int, User]:
        ids = {row.author_id for row in rows if row.author_id is not None}
        columns = [users.c[field.name] for field in fields(User)]
        async with self._store.begin() as db:
            found = await db.execute(sa.select(*columns).where(users.c.id.in_(ids)))
            return {row.id: User(**row._mapping) for row in found}

    # --- heads ------------------------------------------------------------------------------------------------------

    async def add_head(self, run: RunContext, checkpoint_id: int, new: NewHead) -> Row:
        """The row's newest head is durable. Raises Conflict for a fenced run or a row that takes none, Gone when there
        is no studio any more. (Never NotFound: that is for objects, and makes an agent send them anew.)"""
        async with self._store.begin() as db:
            await _require_current(db, run)
            try:
                row = await _row(db, run.session_id, checkpoint_id)
            except NotFound as error:
                raise Conflict(error.message) from error
            if row.run_id != run.run_id or row.lineage != run.lineage:
                raise Conflict(f"checkpoint '{row.name}' is not this run's")
            if row.head == new.head:
                return row
            if row.status not in ("pending", "saved"):
                raise Conflict(f"checkpoint '{row.name}' is {row.status}: nothing is added to it")
            now = await _after_all(db, run.session_id, self._clock.now())
            await self._store_head(db, row, new, now)
            own = row.id == run.checkpoint_id
            values = {
                "status": "saved" if own else "sealed",
                "head": new.head,
                "reason": new.reason,
                "generation": run.generation,
                "content_bytes": new.content_bytes,
                "uploaded_bytes": row.uploaded_bytes + new.uploaded_bytes,
                "entries": new.entries,
                "lower": new.lower,
                "saved": now,
            }
            await db.execute(checkpoints.update().where(checkpoints.c.id == row.id).values(**values))
            return await _row(db, run.session_id, row.id)

    async def _store_head(self, db: AsyncConnection, row: Row, new: NewHead, now: float) -> None:
        mine = checkpoint_heads.c.checkpoint_id == row.id
        await db.execute(checkpoint_heads.delete().where(mine, checkpoint_heads.c.head == new.head))
        await db.execute(
            checkpoint_heads.insert().values(
                checkpoint_id=row.id,
                head=new.head,
                head_size=new.size,
                packs=[list(pack) for pack in new.packs],
                saved=now,
            )
        )
        kept = sa.select(checkpoint_heads.c.head).where(mine).order_by(checkpoint_heads.c.saved.desc())
        newest = list((await db.execute(kept.limit(KEEP_HEADS))).scalars())
        await db.execute(checkpoint_heads.delete().where(mine, checkpoint_heads.c.head.not_in(newest)))

    async def heads(self, session_id: str, checkpoint_id: int | None, limit: int) -> list[HeadOf]:
        """Newest first; from that checkpoint's newest on backwards when one is named."""
        source = checkpoint_heads.join(checkpoints, checkpoints.c.id == checkpoint_heads.c.checkpoint_id)
        query = sa.select(checkpoints, checkpoint_heads.c.head.label("of")).select_from(source)
        query = query.where(checkpoints.c.session_id == session_id)
        order: list[sa.ColumnElement[Any]] = [checkpoint_heads.c.saved.desc(), checkpoints.c.id.desc()]
        if checkpoint_id is not None:
            named = checkpoints.c.id == checkpoint_id
            newest = sa.select(sa.func.max(checkpoint_heads.c.saved)).where(
                checkpoint_heads.c.checkpoint_id == checkpoint_id
            )
            query = query.where(sa.or_(named, checkpoint_heads.c.saved < newest.scalar_subquery()))
            order.insert(0, sa.case((named, 0), else_=1))
        async with self._store.begin() as db:
            found = await db.execute(query.order_by(*order).limit(limit))
            return [HeadOf(_as_row(row), row.of) for row in found]

    async def objects(self, lineage: str) -> tuple[set[str], set[str]]:
        """Names of all heads of a lineage, and of the packs they need."""
        source = checkpoint_heads.join(checkpoints, checkpoints.c.id == checkpoint_heads.c.checkpoint_id)
        query = sa.select(checkpoint_heads.c.head, checkpoint_heads.c.packs).select_from(source)
        heads: set[str] = set()
        packs: set[str] = set()
        async with self._store.begin() as db:
            for row in await db.execute(query.where(checkpoints.c.lineage == lineage)):
                heads.add(row.head)
                packs.update(name for name, _ in row.packs)
        return heads, packs

    async def has_live_run(self, lineage: str, over: str) -> bool:
        """Whether a run of any studio of the lineage may be writing; `over` counts as ended."""
        source = runs.join(studios, studios.c.session_id == runs.c.session_id)
        query = sa.select(runs.c.id).select_from(source).where(studios.c.lineage == lineage, runs.c.ended.is_(None))
        async with self._store.begin() as db:
            return (await db.execute(query.where(runs.c.id != over).limit(1))).first() is not None


async def _insert(db: AsyncConnection, **values: Any) -> int:
    done = await db.execute(checkpoints.insert().values(**values))
    assert done.inserted_primary_key is not None
    return int(done.inserted_primary_key[0])


async def _row(db: AsyncConnection, session_id: str, checkpoint_id: int) -> Row:
    query = sa.select(checkpoints).where(checkpoints.c.id == checkpoint_id, checkpoints.c.session_id == session_id)
    found = (await db.execute(query)).first()
    if found is None:
        raise NotFound("this studio has no such checkpoint")
    return _as_row(found)


def _as_row(found: sa.Row[Any]) -> Row:
    return Row(**{field.name: getattr(found, field.name) for field in fields(Row)})


async def _seal(db: AsyncConnection, which: sa.ColumnElement[bool]) -> None:
    open_ = checkpoints.c.status.in_(("pending", "saved"))
    status = sa.case((checkpoints.c.head.is_(None), "failed"), else_="sealed")
    await db.execute(checkpoints.update().where(which, open_).values(status=status))


async def _require_current(db: AsyncConnection, run: RunContext) -> None:
    """A newer run fences an older one, whatever its credential still opens."""
    query = sa.select(studios.c.generation).where(studios.c.session_id == run.session_id)
    generation = (await db.execute(query)).scalar_one_or_none()
    if generation is None:
        raise Gone("the studio is gone: stop")
    if run.generation < generation:
        raise Conflict("a newer run of this studio has taken its place: stop")


async def _after_all(db: AsyncConnection, session_id: str, now: float) -> float:
    """A time later than every head of the studio, whatever the clock says: the newest one is what a start takes."""
    source = checkpoint_heads.join(checkpoints, checkpoints.c.id == checkpoint_heads.c.checkpoint_id)
    query = sa.select(sa.func.max(checkpoint_heads.c.saved)).select_from(source)
    newest = (await db.execute(query.where(checkpoints.c.session_id == session_id))).scalar_one_or_none()
    return now if newest is None else max(now, newest + 0.001)


async def _require_free(db: AsyncConnection, session_id: str, name: str) -> None:
    query = sa.select(checkpoints.c.id).where(checkpoints.c.session_id == session_id, checkpoints.c.name == name)
    if (await db.execute(query)).first() is not None:
        raise Conflict(f"a checkpoint named '{name}' exists in this studio already")


async def _next_name(db: AsyncConnection, session_id: str) -> str:
    """`<studio>_<n>`, n counting on from the checkpoints there are."""
    query = sa.select(studios.c.name).where(studios.c.session_id == session_id)
    studio = (await db.execute(query)).scalar_one_or_none()
    if studio is None:
        raise NotFound("the studio is gone")
    taken = set(
        (await db.execute(sa.select(checkpoints.c.name).where(checkpoints.c.session_id == session_id))).scalars()
    )
    base, number = studio.replace(" ", "_"), len(taken) + 1
    while f"{base}_{number}" in taken:
        number += 1
    return f"{base}_{number}"


def _count(value: int) -> int:
    """A figure an agent claims, as far as a column holds it."""
    return max(0, min(value, 2**62))
