"""What a start begins from, forks, and what is collected when nobody needs it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from portico_gateway.errors import Conflict, NotFound, Unavailable
from portico_gateway.objects.checksums import crc32c_base64
from portico_gateway.objects.memory import MemoryObjects
from portico_gateway.studios.run_context import RunContext
from portico_shared.checkpoint.digest import name_of
from portico_shared.messages import CommitCall, GrantsCall, ObjectName
from support.catalogue_world import CatalogueWorld, catalogue_world

LINEAGE = "l" + "0" * 16


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[CatalogueWorld]:
    async with catalogue_world(tmp_path) as made:
        yield made


async def save(world: CatalogueWorld, run: RunContext, head: str, *packs: str) -> None:
    world.clock.set_wall(world.clock.now() + 1)
    names = []
    for kind, text in [("head", head), *(("pack", pack) for pack in packs)]:
        content = text.encode()
        crc32c = crc32c_base64(content)
        names.append(ObjectName(kind=kind, hash=name_of(content), size=len(content), crc32c=crc32c))  # type: ignore[arg-type]
        (grant,) = (await world.catalogue.grants(run, GrantsCall(objects=(names[-1],)))).grants
        if not grant.exists:
            memory(world).send("PUT", grant.url, content)
    await world.catalogue.commit(run, CommitCall(head=names[0], packs=tuple(names[1:]), reason="interval"))


def memory(world: CatalogueWorld) -> MemoryObjects:
    assert isinstance(world.objects, MemoryObjects)
    return world.objects


def stored(world: CatalogueWorld) -> set[bytes]:
    return set(memory(world).objects.values())


async def test_restore_point_is_the_newest_with_older_ones_behind_it(world: CatalogueWorld) -> None:
    studio = await world.studio("s", LINEAGE)
    assert await world.catalogue.restore_point(studio, None) is None
    first, second = await world.run(studio), None
    await save(world, first, "h1", "p")
    await save(world, first, "h2", "p")
    await world.end(first)
    second = await world.run(studio)
    await save(world, second, "h3", "p")
    point = await world.catalogue.restore_point(studio, None)
    assert point is not None and (point.head, point.name) == (name_of(b"h3"), "s_2")
    assert [each.head for each in point.fallbacks] == [name_of(b"h2"), name_of(b"h1")]
    older = await world.catalogue.restore_point(studio, first.checkpoint_id)
    assert older is not None and older.head == name_of(b"h2")
    assert [each.head for each in older.fallbacks] == [name_of(b"h1")]


async def test_restore_point_says_what_cannot_be_restored(world: CatalogueWorld) -> None:
    run = await world.run(await world.studio("s", LINEAGE))
    with pytest.raises(Conflict, match="nothing of checkpoint"):
        await world.catalogue.restore_point(run.session_id, run.checkpoint_id)
    with pytest.raises(NotFound):
        await world.catalogue.restore_point(run.session_id, 12345)


async def test_fork_stands_without_its_parent(world: CatalogueWorld) -> None:
    parent = await world.studio("parent", LINEAGE)
    run = await world.run(parent)
    await save(world, run, "h1", "shared", "only in h1")
    await save(world, run, "h2", "shared")
    child = await world.studio("child", LINEAGE)
    row = await world.catalogue.inherit(run.checkpoint_id, child, author_id=None)
    view = await world.catalogue.checkpoint(child, row)
    assert (view.name, view.status) == ("parent_1", "sealed")
    await world.end(run)
    await world.catalogue.forget(parent)
    point = await world.catalogue.restore_point(child, row)
    assert point is not None and point.head == name_of(b"h2")
    assert [each.head for each in point.fallbacks] == [name_of(b"h1")]
    assert stored(world) == {b"h1", b"h2", b"shared", b"only in h1"}
    await world.catalogue.forget(child)
    assert stored(world) == set()


async def test_fork_of_nothing_is_refused(world: CatalogueWorld) -> None:
    run = await world.run(await world.studio("s", LINEAGE))
    child = await world.studio("child", LINEAGE)
    with pytest.raises(Conflict):
        await world.catalogue.inherit(run.checkpoint_id, child, author_id=None)
    with pytest.raises(NotFound):
        await world.catalogue.inherit(4711, child, author_id=None)


async def test_end_of_a_run_collects_what_it_uploaded_in_vain(world: CatalogueWorld) -> None:
    run = await world.run(await world.studio("s", LINEAGE))
    for number in range(20):
        await save(world, run, f"h{number}", f"p{number}")
    assert len(stored(world)) == 40
    await world.end(run)
    assert stored(world) == {f"{kind}{n}".encode() for kind in "hp" for n in range(8, 20)}


async def test_collection_waits_while_anybody_of_the_lineage_writes(world: CatalogueWorld) -> None:
    parent = await world.studio("parent", LINEAGE)
    run = await world.run(parent)
    await save(world, run, "h1", "p1")
    await world.end(run)
    child = await world.run(await world.studio("child", LINEAGE))
    await world.catalogue.forget(parent)
    assert b"p1" in stored(world)
    await world.end(child)
    assert stored(world) == set()


async def test_other_lineages_are_left_alone(world: CatalogueWorld) -> None:
    other = "l" + "2" * 16
    mine, theirs = await world.run(await world.studio("a", LINEAGE)), await world.run(await world.studio("b", other))
    await save(world, mine, "h", "p")
    await save(world, theirs, "h", "p")
    await world.end(mine)
    await world.catalogue.forget(mine.session_id)
    assert {key.partition("/")[0] for key in memory(world).objects} == {other}


async def test_deleting_goes_through_while_the_store_is_away(
    world: CatalogueWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await world.run(await world.studio("s", LINEAGE))
    await save(world, run, "h", "p")
    await world.end(run)

    async def away(key: str) -> None:
        raise Unavailable("the store is away")

    monkeypatch.setattr(memory(world), "delete", away)
    await world.catalogue.forget(run.session_id)
    assert await world.catalogue.restore_point(run.session_id, None) is None
    assert len(stored(world)) == 2


async def test_commit_after_a_sweep_asks_the_store_again(world: CatalogueWorld) -> None:
    """What was known to be there before a sweep is not taken for granted after it."""
    studio = await world.studio("s", LINEAGE)
    run = await world.run(studio)
    await save(world, run, "h1", "p1")
    await world.end(run)
    memory(world).objects.pop(f"{LINEAGE}/packs/{name_of(b'p1')}")
    again = await world.run(studio)
    head = ObjectName(kind="head", hash=name_of(b"h1"), size=2)
    pack = ObjectName(kind="pack", hash=name_of(b"p1"), size=2)
    with pytest.raises(NotFound, match=pack.hash):
        await world.catalogue.commit(again, CommitCall(head=head, packs=(pack,), reason="start"))
