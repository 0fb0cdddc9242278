"""The catalogue of checkpoints: rows in the store, grants for objects, and what becomes of objects nobody needs.

A row belongs to one studio and, while it grows, to one run. Its *heads* are the durable moments it holds, newest first:
a row is 'pending' without one, 'saved' with one, 'sealed' when none follows any more, 'failed' when it never got one.
"""

import functools
from collections.abc import Sequence

from portico_gateway.errors import BadRequest, Conflict, NotFound
from portico_gateway.objects.object_store import ObjectStore, object_key
from portico_gateway.studios.checkpoint_rows import CheckpointRows, NewHead, Row
from portico_gateway.studios.collection import Collector, in_batches
from portico_gateway.studios.records import Store
from portico_gateway.studios.run_context import RunContext
from portico_gateway.studios.values import CheckpointPage, CheckpointView
from portico_shared.checkpoint.digest import is_name
from portico_shared.checkpoint.limits import MAX_HEAD, MAX_PACK
from portico_shared.clock import Clock
from portico_shared.messages import (
    CommitCall,
    CommitReply,
    Grant,
    GrantsCall,
    GrantsReply,
    ObjectName,
    ReadsCall,
    RestorePoint,
)

MAX_NAME = 128
FALLBACKS = 8
"""How many older heads a restore may fall back on: they go to the agent with every plan."""


class Catalogue:
    """See `studios.needs.Catalogue` for what each method promises."""

    def __init__(self, store: Store, objects: ObjectStore, clock: Clock) -> None:
        self._rows = CheckpointRows(store, clock)
        self._objects = objects
        self._collector = Collector(self._rows, objects)

    # --- what agents ask --------------------------------------------------------------------------------------------

    async def grants(self, run: RunContext, call: GrantsCall) -> GrantsReply:
        """For each object a permission to put it, or the word that it is there."""
        for each in call.objects:
            _require_sane(each)
        async with self._collector.calm(run.lineage):  # or an object could be collected just after "it is there"
            found = await in_batches(functools.partial(self._put_grant, run.lineage), call.objects)
        return GrantsReply(grants=tuple(found))

    async def reads(self, run: RunContext, call: ReadsCall) -> GrantsReply:
        """Objects of the run's own lineage alone: the key is made here, from the credential."""
        found = await in_batches(functools.partial(self._get_grant, run.lineage), call.objects)
        return GrantsReply(grants=tuple(found))

    async def commit(self, run: RunContext, call: CommitCall) -> CommitReply:
        """All objects are checked, then the head becomes the row's newest. NotFound names an object that is missing."""
        for each in (call.head, *call.packs):
            _require_sane(each)
        if call.head.kind != "head" or any(pack.kind != "pack" for pack in call.packs):
            raise BadRequest("a commit names one head and its packs")
        async with self._collector.calm(run.lineage):
            await self._require_stored(run.lineage, [call.head, *call.packs])
            row = await self._rows.add_head(run, call.row or run.checkpoint_id, NewHead.of(call))
            self._collector.remember(run.lineage, [call.head, *call.packs])
        return CommitReply(checkpoint_id=row.id, name=row.name)

    async def _put_grant(self, lineage: str, each: ObjectName) -> Grant:
        key = object_key(lineage, each.kind, each.hash)
        size = await self._objects.size(key)
        if size == each.size:
            return Grant(hash=each.hash, method="PUT", url="", headers={}, exists=True)
        if size is not None:
            await self._collector.drop_unused(lineage, key)
        signed = await self._objects.presign_put(key, size=each.size, crc32c=each.crc32c)
        return Grant(hash=each.hash, method="PUT", url=signed.url, headers=signed.headers, expires_in=signed.expires_in)

    async def _get_grant(self, lineage: str, each: ObjectName) -> Grant:
        signed = await self._objects.presign_get(object_key(lineage, each.kind, each.hash))
        return Grant(hash=each.hash, method="GET", url=signed.url, headers=signed.headers, expires_in=signed.expires_in)

    async def _require_stored(self, lineage: str, names: Sequence[ObjectName]) -> None:
        unknown = [each for each in names if not self._collector.knows(lineage, each)]

        async def look(each: ObjectName) -> None:
            size = await self._objects.size(object_key(lineage, each.kind, each.hash))
            if size is None:
                raise NotFound(f"{each.kind} {each.hash} is not in the store: upload it, then commit again")
            if size != each.size:
                raise NotFound(f"{each.kind} {each.hash} has {size} bytes in the store, not {each.size}")

        await in_batches(look, unknown)

    # --- rows -------------------------------------------------------------------------------------------------------

    async def open_row(
        self,
        session_id: str,
        *,
        run_id: str,
        lineage: str,
        generation: int,
        author_id: int | None,
        reason: str,
        name: str | None = None,
    ) -> int:
        async with self._collector.calm(lineage):
            return await self._rows.insert(
                session_id,
                name=None if name is None else checked_name(name),
                run_id=run_id,
                lineage=lineage,
                generation=generation,
                author_id=author_id,
                reason=reason,
            )

    async def seal_row(self, checkpoint_id: int) -> bool:
        return await self._rows.seal(checkpoint_id)

    async def seal_run(self, run_id: str) -> None:
        """Seals, and collects what the run left unused: nothing of it runs any more."""
        for lineage in await self._rows.seal_run(run_id):
            await self._collector.collect(lineage, over=run_id)

    async def inherit(self, checkpoint_id: int, session_id: str, *, author_id: int | None) -> int:
        return await self._rows.copy(checkpoint_id, session_id, author_id)

    async def forget(self, session_id: str) -> None:
        for lineage in await self._rows.drop_studio(session_id):
            await self._collector.collect(lineage)

    async def rename(self, session_id: str, checkpoint_id: int, name: str) -> CheckpointView:
        """Raises Conflict when another checkpoint of the studio has that name."""
        await self._rows.rename(session_id, checkpoint_id, checked_name(name))
        return await self.checkpoint(session_id, checkpoint_id)

    # --- what people and starts ask ---------------------------------------------------------------------------------

    async def restore_point(self, session_id: str, checkpoint_id: int | None) -> RestorePoint | None:
        if checkpoint_id is not None:
            row = await self._rows.row(session_id, checkpoint_id)
            if row.head is None:
                raise Conflict(f"nothing of checkpoint '{row.name}' was saved: choose another one")
        heads = await self._rows.heads(session_id, checkpoint_id, FALLBACKS + 1)
        points = [
            RestorePoint(head=each.head, checkpoint_id=each.row.id, name=each.row.name, size=each.row.content_bytes)
            for each in heads
        ]
        if not points:
            return None
        first, *rest = points
        return RestorePoint(
            head=first.head,
            checkpoint_id=first.checkpoint_id,
            name=first.name,
            size=first.size,
            fallbacks=tuple(rest),
        )

    async def list_checkpoints(
        self, session_id: str, *, search: str = "", offset: int = 0, limit: int = 100
    ) -> CheckpointPage:
        rows, total = await self._rows.page(session_id, search, offset=max(0, offset), limit=max(1, min(limit, 100)))
        return CheckpointPage(await self._views(rows), total)

    async def checkpoint(self, session_id: str, checkpoint_id: int) -> CheckpointView:
        return (await self._views([await self._rows.row(session_id, checkpoint_id)]))[0]

    async def _views(self, rows: Sequence[Row]) -> tuple[CheckpointView, ...]:
        authors = await self._rows.authors(rows)
        return tuple(
            CheckpointView(
                id=row.id,
                session_id=row.session_id,
                name=row.name,
                status=row.status,
                reason=row.reason,
                author=authors.get(row.author_id or 0),
                created=row.created,
                saved=row.saved,
                content_bytes=row.content_bytes,
                uploaded_bytes=row.uploaded_bytes,
                entries=row.entries,
                path=f"{row.lineage}/heads/{row.head}" if row.head else "",
                restorable=row.head is not None,
            )
            for row in rows
        )


def checked_name(name: str) -> str:
    """A name people may give. Raises BadRequest."""
    name = name.strip()
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise BadRequest(f"a checkpoint's name has 1 to {MAX_NAME} printable characters")
    return name


def _require_sane(each: ObjectName) -> None:
    if not is_name(each.hash):
        raise BadRequest("an object is named by 64 hex digits")
    if not 0 < each.size <= (MAX_PACK if each.kind == "pack" else MAX_HEAD):
        raise BadRequest(f"a {each.kind} cannot have {each.size} bytes")
