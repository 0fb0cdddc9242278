"""Rows, names, heads, fencing: what a commit may and may not do."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from portico_gateway.errors import BadRequest, Conflict, Gone, NotFound
from portico_gateway.objects.checksums import crc32c_base64
from portico_gateway.objects.memory import MemoryObjects
from portico_gateway.store.tables import runs, studios
from portico_gateway.studios.checkpoint_rows import KEEP_HEADS
from portico_gateway.studios.run_context import RunContext
from portico_shared.checkpoint.digest import name_of
from portico_shared.messages import CommitCall, CommitReply, GrantsCall, ObjectName, ReadsCall
from support.catalogue_world import CatalogueWorld, catalogue_world

LINEAGE = "l" + "0" * 16
OTHER = "l" + "1" * 16


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[CatalogueWorld]:
    async with catalogue_world(tmp_path) as made:
        yield made


def named(kind: str, content: bytes) -> ObjectName:
    return ObjectName(kind=kind, hash=name_of(content), size=len(content), crc32c=crc32c_base64(content))  # type: ignore[arg-type]


async def upload(world: CatalogueWorld, run: RunContext, kind: str, content: bytes) -> ObjectName:
    each = named(kind, content)
    (grant,) = (await world.catalogue.grants(run, GrantsCall(objects=(each,)))).grants
    if not grant.exists:
        assert isinstance(world.objects, MemoryObjects)
        assert world.objects.send("PUT", grant.url, content) == (200, b"")
    return each


async def commit(
    world: CatalogueWorld, run: RunContext, text: str, *, row: int = 0, packs: tuple[str, ...] = ("p",)
) -> CommitReply:
    world.clock.set_wall(world.clock.now() + 1)
    stored = [await upload(world, run, "pack", each.encode()) for each in packs]
    head = await upload(world, run, "head", text.encode())
    reason = "request" if row else "interval"
    call = CommitCall(head=head, packs=tuple(stored), reason=reason, row=row, content_bytes=5, uploaded_bytes=3)
    return await world.catalogue.commit(run, call)


async def test_row_opens_pending_under_the_studios_name_and_takes_heads(world: CatalogueWorld) -> None:
    run = await world.run(await world.studio("my work", LINEAGE))
    opened = await world.catalogue.checkpoint(run.session_id, run.checkpoint_id)
    assert (opened.name, opened.status, opened.path, opened.restorable) == ("my_work_1", "pending", "", False)
    reply = await commit(world, run, "h1")
    await commit(world, run, "h2")
    saved = await world.catalogue.checkpoint(run.session_id, run.checkpoint_id)
    assert reply.checkpoint_id == run.checkpoint_id and reply.name == "my_work_1"
    assert (saved.status, saved.path) == ("saved", f"{LINEAGE}/heads/{name_of(b'h2')}")
    assert saved.uploaded_bytes == 6 and saved.content_bytes == 5
    assert saved.author is not None and saved.author.user_name == "ana"


async def test_repeated_commit_changes_nothing_even_after_sealing(world: CatalogueWorld) -> None:
    run = await world.run(await world.studio("s", LINEAGE))
    await commit(world, run, "h1")
    await world.end(run)
    before = await world.catalogue.checkpoint(run.session_id, run.checkpoint_id)
    await commit(world, run, "h1")
    assert await world.catalogue.checkpoint(run.session_id, run.checkpoint_id) == before
    assert before.status == "sealed"
    with pytest.raises(Conflict, match="is sealed"):
        await commit(world, run, "h2")


async def test_older_run_is_fenced_and_the_newer_one_commits(world: CatalogueWorld) -> None:
    studio = await world.studio("s", LINEAGE)
    old = await world.run(studio)
    new = await world.run(studio)
    with pytest.raises(Conflict, match="newer run"):
        await commit(world, old, "h1")
    await commit(world, new, "h1")
    assert (await world.catalogue.checkpoint(studio, old.checkpoint_id)).status == "pending"


async def test_commit_of_a_missing_or_short_object_names_it_and_changes_nothing(world: CatalogueWorld) -> None:
    run = await world.run(await world.studio("s", LINEAGE))
    head, missing = await upload(world, run, "head", b"h1"), named("pack", b"never sent")
    with pytest.raises(NotFound, match=missing.hash):
        await world.catalogue.commit(run, CommitCall(head=head, packs=(missing,), reason="interval"))
    longer = ObjectName(kind="head", hash=head.hash, size=99)
    with pytest.raises(NotFound, match="has 2 bytes"):
        await world.catalogue.commit(run, CommitCall(head=longer, packs=(), reason="interval"))
    assert (await world.catalogue.checkpoint(run.session_id, run.checkpoint_id)).status == "pending"


async def test_objects_of_another_lineage_are_out_of_reach(world: CatalogueWorld) -> None:
    theirs = await world.run(await world.studio("theirs", OTHER))
    secret = await upload(world, theirs, "pack", b"secret")
    mine = await world.run(await world.studio("mine", LINEAGE))
    (grant,) = (await world.catalogue.reads(mine, ReadsCall(objects=(secret,)))).grants
    assert isinstance(world.objects, MemoryObjects)
    assert world.objects.send("GET", grant.url)[0] == 404
    (put,) = (await world.catalogue.grants(mine, GrantsCall(objects=(secret,)))).grants
    assert not put.exists
    with pytest.raises(NotFound):
        await world.catalogue.commit(mine, CommitCall(head=named("head", b"h"), packs=(secret,), reason="interval"))
    with pytest.raises(Conflict, match="no such checkpoint"):
        await commit(world, mine, "h", row=theirs.checkpoint_id)


async def test_run_of_a_deleted_studio_is_told_to_stop(world: CatalogueWorld) -> None:
    run = await world.run(await world.studio("s", LINEAGE))
    async with world.store.begin() as db:
        await db.execute(runs.delete())
        await db.execute(studios.delete())
    with pytest.raises(Gone, match="stop"):
        await commit(world, run, "h")


async def test_objects_that_cannot_be_are_refused(world: CatalogueWorld) -> None:
    run = await world.run(await world.studio("s", LINEAGE))
    good = named("pack", b"x")
    for bad in (
        ObjectName(kind="pack", hash="../" + good.hash[3:], size=1, crc32c=good.crc32c),
        ObjectName(kind="pack", hash=good.hash.upper(), size=1, crc32c=good.crc32c),
        ObjectName(kind="pack", hash=good.hash, size=0, crc32c=good.crc32c),
        ObjectName(kind="pack", hash=good.hash, size=1 << 40, crc32c=good.crc32c),
        ObjectName(kind="pack", hash=good.hash, size=1, crc32c="nonsense"),
    ):
        with pytest.raises(BadRequest):
            await world.catalogue.grants(run, GrantsCall(objects=(bad,)))
    with pytest.raises(BadRequest, match="one head"):
        await world.catalogue.commit(run, CommitCall(head=good, packs=(), reason="interval"))


async def test_request_seals_a_row_of_its_own(world: CatalogueWorld) -> None:
    run = await world.run(await world.studio("s", LINEAGE))
    row = await world.catalogue.open_row(
        run.session_id, run_id=run.run_id, lineage=LINEAGE, generation=run.generation, author_id=None,
        reason="request", name="before upgrade",
    )  # fmt: skip
    await commit(world, run, "h1", row=row)
    view = await world.catalogue.checkpoint(run.session_id, row)
    assert (view.name, view.status, view.reason) == ("before upgrade", "sealed", "request")
    assert await world.catalogue.seal_row(row) is True
    await commit(world, run, "h2")
    assert (await world.catalogue.checkpoint(run.session_id, row)).path.endswith(name_of(b"h1"))


async def test_sealing_without_a_head_means_failed(world: CatalogueWorld) -> None:
    run = await world.run(await world.studio("s", LINEAGE))
    assert await world.catalogue.seal_row(run.checkpoint_id) is False
    assert (await world.catalogue.checkpoint(run.session_id, run.checkpoint_id)).status == "failed"
    assert await world.catalogue.seal_row(987654) is False


async def test_names_are_unique_within_a_studio(world: CatalogueWorld) -> None:
    run = await world.run(await world.studio("s", LINEAGE))
    second = await world.run(run.session_id)
    with pytest.raises(Conflict, match="'s_1' exists"):
        await world.catalogue.rename(run.session_id, second.checkpoint_id, "s_1")
    assert (await world.catalogue.rename(run.session_id, second.checkpoint_id, " best one ")).name == "best one"
    assert (await world.catalogue.rename(run.session_id, second.checkpoint_id, "best one")).name == "best one"
    for bad in ("", "  ", "x" * 129, "a\nb"):
        with pytest.raises(BadRequest):
            await world.catalogue.rename(run.session_id, second.checkpoint_id, bad)
    other = await world.studio("o", OTHER)
    with pytest.raises(NotFound):
        await world.catalogue.rename(other, second.checkpoint_id, "stolen")


async def test_earlier_heads_of_a_row_are_kept_up_to_a_number(world: CatalogueWorld) -> None:
    run = await world.run(await world.studio("s", LINEAGE))
    for number in range(KEEP_HEADS + 3):
        await commit(world, run, f"h{number}")
    heads, _ = await world.catalogue._rows.objects(LINEAGE)
    assert heads == {name_of(f"h{number}".encode()) for number in range(3, KEEP_HEADS + 3)}


async def test_list_is_newest_first_and_searchable(world: CatalogueWorld) -> None:
    studio = await world.studio("s", LINEAGE)
    first = await world.run(studio)
    await commit(world, first, "h1")
    await world.end(first)
    world.clock.set_wall(world.clock.now() + 86400 * 3)
    second = await world.run(studio)
    page = await world.catalogue.list_checkpoints(studio)
    assert [each.id for each in page.checkpoints] == [second.checkpoint_id, first.checkpoint_id] and page.total == 2
    assert (await world.catalogue.list_checkpoints(studio, offset=1)).checkpoints == page.checkpoints[1:]

    async def found(search: str) -> list[str]:
        return [each.name for each in (await world.catalogue.list_checkpoints(studio, search=search)).checkpoints]

    assert await found("status:sealed") == ["s_1"]
    assert await found("status:finalized") == ["s_1"]
    assert await found("S_2 author:Ana") == ["s_2"]
    assert await found("author:bob") == []
    assert await found("before:2027-01-17 after:2027-01-01") == ["s_1"]
    assert await found("%") == []
    for bad in ("status:odd", "before:yesterday", "x" * 300):
        with pytest.raises(BadRequest):
            await found(bad)


async def test_unknown_studio_has_no_row(world: CatalogueWorld) -> None:
    with pytest.raises(NotFound):
        await world.catalogue.open_row(
            "00000000", run_id="r" + "0" * 16, lineage=LINEAGE, generation=1, author_id=None, reason="start"
        )
    with pytest.raises(NotFound):
        await world.catalogue.checkpoint("00000000", 1)
