"""Finding studios: what people type into the search box, and the page that comes of it."""

import shlex
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from portico_gateway.errors import BadRequest
from portico_gateway.store.tables import checkpoints, labels, studio_labels, studios, users
from portico_gateway.studios.records import Store
from portico_gateway.studios.values import ParentCheckpoint, Status

MAX_SEARCH = 256
MAX_PAGE = 100
SPELT = {"computeenvid": "env"}
"""What clients of the API call it."""


@dataclass(frozen=True, slots=True)
class Search:
    """`words` are parts of the name; `statuses`, `authors` and `environments` narrow it. For example

    status:running author:ana env:local "protein folding"
    """

    words: tuple[str, ...] = ()
    statuses: tuple[str, ...] = ()
    authors: tuple[str, ...] = ()
    environments: tuple[str, ...] = ()
    user_ids: tuple[int, ...] = ()


def parse_search(text: str) -> Search:
    """Raises BadRequest for a text too long or an unknown status."""
    if len(text) > MAX_SEARCH:
        raise BadRequest(f"a search has at most {MAX_SEARCH} characters")
    try:
        parts = shlex.split(text)
    except ValueError:  # an open quotation mark: taken as it is
        parts = text.split()
    found: dict[str, list[str]] = {"": [], "status": [], "author": [], "env": [], "userid": []}
    for part in parts:
        key, colon, value = part.partition(":")
        key = SPELT.get(key.lower(), key.lower())
        if colon and key in found and key and value:
            found[key].append(value)
        else:
            found[""].append(part)
    if wrong := [user for user in found["userid"] if not (user.isascii() and user.isdigit() and len(user) <= 18)]:
        raise BadRequest(f"userId:{wrong[0]} is no number")
    spelt = {"buildfailed": Status.BUILD_FAILED.value}
    statuses = tuple(spelt.get(status.lower(), status.lower()) for status in found["status"])
    for status in statuses:
        if status not in {known.value for known in Status}:
            raise BadRequest(f"unknown status '{status}'; known: {', '.join(Status)}")
    users = tuple(int(user) for user in found["userid"])
    return Search(tuple(found[""]), statuses, tuple(found["author"]), tuple(found["env"]), users)


@dataclass(frozen=True, slots=True)
class Listing:
    ids: list[str] = field(default_factory=list)
    total: int = 0


async def find(store: Store, workspace_id: int, search: Search, *, offset: int, limit: int) -> Listing:
    """Running ones first, then the newest activity."""
    if offset < 0 or not 0 < limit <= MAX_PAGE:
        raise BadRequest(f"offset is 0 or more, and a page has 1 to {MAX_PAGE} entries")
    conditions = _conditions(workspace_id, search)
    source = studios.join(users, users.c.id == studios.c.creator_id)
    live = sa.case((studios.c.status == Status.RUNNING.value, 0), else_=1)
    newest = sa.func.coalesce(studios.c.last_started, studios.c.created)
    query = sa.select(studios.c.session_id).select_from(source).where(*conditions)
    count = sa.select(sa.func.count()).select_from(source).where(*conditions)
    async with store.connect() as db:
        total = (await db.execute(count)).scalar_one()
        rows = await db.execute(query.order_by(live, newest.desc(), studios.c.session_id).offset(offset).limit(limit))
        return Listing(list(rows.scalars()), total)


def _conditions(workspace_id: int, search: Search) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = [studios.c.workspace_id == workspace_id]
    conditions.extend(_contains(studios.c.name, word) for word in search.words)
    if search.statuses:
        conditions.append(studios.c.status.in_(search.statuses))
    conditions.extend(
        sa.or_(_contains(users.c.user_name, author), _contains(users.c.display_name, author))
        for author in search.authors
    )
    if search.user_ids:
        conditions.append(studios.c.creator_id.in_(search.user_ids))
    conditions.extend(_contains(studios.c.compute_env_id, environment) for environment in search.environments)
    return conditions


def _contains(column: sa.Column[Any], text: str) -> sa.ColumnElement[bool]:
    return sa.func.lower(column).contains(text.lower(), autoescape=True)


async def labels_of(store: Store, ids: list[str]) -> dict[str, tuple[tuple[int, str, str | None], ...]]:
    query = (
        sa.select(studio_labels.c.session_id, labels.c.id, labels.c.name, labels.c.value)
        .join(labels, labels.c.id == studio_labels.c.label_id)
        .where(studio_labels.c.session_id.in_(ids))
        .order_by(labels.c.name)
    )
    found: dict[str, tuple[tuple[int, str, str | None], ...]] = {}
    async with store.connect() as db:
        for row in await db.execute(query):
            found[row.session_id] = (*found.get(row.session_id, ()), (row.id, row.name, row.value))
    return found


async def set_labels(store: Store, session_id: str, workspace_id: int, label_ids: tuple[int, ...]) -> None:
    """Raises BadRequest when one is not the workspace's."""
    wanted = set(label_ids)
    async with store.begin() as db:
        known = sa.select(labels.c.id).where(labels.c.workspace_id == workspace_id, labels.c.id.in_(wanted))
        if missing := wanted - set((await db.execute(known)).scalars()):
            raise BadRequest(f"this workspace has no label {min(missing)}")
        await db.execute(studio_labels.delete().where(studio_labels.c.session_id == session_id))
        if wanted:
            rows = [{"session_id": session_id, "label_id": label} for label in sorted(wanted)]
            await db.execute(studio_labels.insert(), rows)


async def parents_of(store: Store, checkpoint_ids: set[int]) -> dict[int, ParentCheckpoint]:
    """Parents that still exist."""
    query = (
        sa.select(checkpoints.c.id, checkpoints.c.name, studios.c.session_id, studios.c.name.label("studio"))
        .join(studios, studios.c.session_id == checkpoints.c.session_id)
        .where(checkpoints.c.id.in_(checkpoint_ids))
    )
    async with store.connect() as db:
        rows = (await db.execute(query)).all()
    return {row.id: ParentCheckpoint(row.id, row.name, row.session_id, row.studio) for row in rows}


async def last_saved(store: Store, ids: list[str]) -> dict[str, float]:
    """When each studio's newest checkpoint became durable."""
    query = (
        sa.select(checkpoints.c.session_id, sa.func.max(checkpoints.c.saved).label("saved"))
        .where(checkpoints.c.session_id.in_(ids), checkpoints.c.saved.is_not(None))
        .group_by(checkpoints.c.session_id)
    )
    async with store.connect() as db:
        return {row.session_id: row.saved for row in await db.execute(query)}
