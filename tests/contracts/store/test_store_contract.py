"""What every database behind the store must do. SQLite always; another one when PORTICO_TEST_DATABASE names an empty
database of it (a SQLAlchemy URL, `postgresql+asyncpg://…`)."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from portico_gateway.errors import Conflict
from portico_gateway.store.engine import Store
from portico_gateway.store.tables import keys, members, metadata, organisations, users, workspaces

OTHER = os.environ.get("PORTICO_TEST_DATABASE")


@pytest.fixture(params=["sqlite", *(["other"] if OTHER else [])])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return OTHER if OTHER and request.param == "other" else f"sqlite+aiosqlite:///{tmp_path / 'portico.db'}"


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    async with Store(url) as opened:
        async with opened.begin() as connection:
            for table in reversed(metadata.sorted_tables):
                await connection.execute(table.delete())
        yield opened


def key(name: str) -> dict[str, object]:
    return {"name": name, "secret": b"\x00\xff", "created": 1.5}


async def names(store: Store) -> list[str]:
    async with store.connect() as connection:
        return list((await connection.execute(sa.select(keys.c.name).order_by(keys.c.name))).scalars())


async def test_migrations_make_exactly_the_tables_that_the_code_knows(store: Store) -> None:
    def differences(connection: sa.Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, metadata))

    async with store.connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_what_is_committed_is_there_after_opening_again(store: Store, url: str) -> None:
    async with store.begin() as connection:
        await connection.execute(keys.insert().values(**key("a")))
    async with Store(url) as again:
        assert await names(again) == ["a"]
        async with again.connect() as connection:
            row = (await connection.execute(sa.select(keys))).one()
    assert (row.secret, row.created) == (b"\x00\xff", 1.5)


async def test_a_block_that_raises_changes_nothing(store: Store) -> None:
    with pytest.raises(ValueError, match="half way"):
        async with store.begin() as connection:
            await connection.execute(keys.insert().values(**key("a")))
            raise ValueError("half way")
    assert await names(store) == []


async def test_a_cancelled_block_changes_nothing_and_holds_nobody_up(store: Store) -> None:
    inside = asyncio.Event()

    async def never_ends() -> None:
        async with store.begin() as connection:
            await connection.execute(keys.insert().values(**key("a")))
            inside.set()
            await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(never_ends())
        await inside.wait()
        task.cancel()
    async with store.begin() as connection:
        await connection.execute(keys.insert().values(**key("b")))
    assert await names(store) == ["b"]


async def test_cancelled_in_the_middle_of_a_statement_it_holds_nobody_up(store: Store) -> None:
    async def many() -> None:
        async with store.begin() as connection:
            for number in range(1000):
                await connection.execute(keys.insert().values(**key(f"n{number}")))

    for turns in (1, 3, 7, 20, 60):
        async with asyncio.TaskGroup() as group:
            task = group.create_task(many())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
        assert await names(store) == []
        async with store.begin() as connection:
            await connection.execute(keys.insert().values(**key("after")))
            await connection.execute(keys.delete())


async def test_reading_sees_nothing_of_a_write_under_way(store: Store) -> None:
    async with store.begin() as connection:
        await connection.execute(keys.insert().values(**key("a")))
        assert await names(store) == []
    assert await names(store) == ["a"]


async def test_what_a_reader_writes_is_dropped(store: Store) -> None:
    async with store.connect() as connection:
        await connection.execute(keys.insert().values(**key("a")))
    assert await names(store) == []


async def test_fifty_writers_at_once_lose_nothing(store: Store) -> None:
    async with store.begin() as connection:
        await connection.execute(organisations.insert().values(name="0", created=0.0))

    async def count_up() -> None:
        async with store.begin() as connection:
            query = sa.select(organisations.c.name).with_for_update()
            now = int((await connection.execute(query)).scalar_one())
            await asyncio.sleep(0)
            await connection.execute(organisations.update().values(name=str(now + 1)))

    async with asyncio.TaskGroup() as group:
        for _ in range(50):
            group.create_task(count_up())
    async with store.connect() as connection:
        assert (await connection.execute(sa.select(organisations.c.name))).scalar_one() == "50"


async def test_a_name_taken_twice_is_a_conflict_without_the_databases_words(store: Store) -> None:
    async with store.begin() as connection:
        await connection.execute(keys.insert().values(**key("a")))
    with pytest.raises(Conflict) as caught:
        async with store.begin() as connection:
            await connection.execute(keys.insert().values(**key("a")))
    assert "keys" not in str(caught.value).lower()


async def test_rows_that_point_nowhere_are_refused(store: Store) -> None:
    with pytest.raises(Conflict):
        async with store.begin() as connection:
            await connection.execute(members.insert().values(workspace_id=7, user_id=7, role=1, since=0.0))


async def test_members_go_with_their_account(store: Store) -> None:
    async with store.begin() as connection:
        await connection.execute(users.insert().values(id=1, user_name="ana", email="a@example.org", created=0.0))
        await connection.execute(organisations.insert().values(id=1, name="lab", created=0.0))
        await connection.execute(workspaces.insert().values(id=1, org_id=1, name="main", created=0.0))
        await connection.execute(members.insert().values(workspace_id=1, user_id=1, role=6, since=0.0))
        await connection.execute(users.delete())
    async with store.connect() as connection:
        assert (await connection.execute(sa.select(members))).all() == []


async def test_false_and_true_are_the_defaults_that_the_tables_name(store: Store) -> None:
    async with store.begin() as connection:
        await connection.execute(users.insert().values(id=1, user_name="ana", email="a@example.org", created=0.0))
        await connection.execute(organisations.insert().values(id=1, name="lab", created=0.0))
        await connection.execute(workspaces.insert().values(id=1, org_id=1, name="main", created=0.0))
        person = (await connection.execute(sa.select(users))).one()
        workspace = (await connection.execute(sa.select(workspaces))).one()
    assert (person.is_admin, person.disabled) == (False, False)
    assert (workspace.private_by_default, workspace.launch_may_start) == (False, True)
