"""What can go wrong with a SQLite file, said in words and without losing anything."""

import os
import sqlite3
import stat
from pathlib import Path

import pytest
import sqlalchemy as sa

from portico_gateway.errors import Unavailable
from portico_gateway.store.engine import Store
from portico_gateway.store.tables import keys, metadata


def url_of(file: Path) -> str:
    return f"sqlite+aiosqlite:///{file}"


async def filled(file: Path, rows: int = 200) -> None:
    async with Store(url_of(file)) as store, store.begin() as connection:
        values = [{"name": f"k{n}", "secret": os.urandom(512), "created": 0.0} for n in range(rows)]
        await connection.execute(keys.insert(), values)


async def test_a_new_file_is_for_this_account_alone(tmp_path: Path) -> None:
    file = tmp_path / "portico.db"
    async with Store(url_of(file)) as store, store.begin() as connection:
        await connection.execute(keys.insert().values(name="a", secret=b"", created=0.0))
        found = {each.name: stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir()}
    assert found == {"portico.db": 0o600, "portico.db-wal": 0o600, "portico.db-shm": 0o600}


async def test_migrations_make_the_same_columns_and_defaults_as_the_tables(tmp_path: Path) -> None:
    def columns(connection: sa.Connection) -> dict[str, object]:
        return {
            table: [
                sorted((str(k), str(v)) for k, v in column.items())
                for column in sa.inspect(connection).get_columns(table)
            ]
            for table in metadata.tables
        }

    async with Store(url_of(tmp_path / "portico.db")) as store, store.connect() as connection:
        migrated = await connection.run_sync(columns)
    made = sa.create_engine(f"sqlite:///{tmp_path / 'made.db'}")
    with made.connect() as plain:
        metadata.create_all(plain)
        assert columns(plain) == migrated
    made.dispose()


async def test_it_writes_ahead_and_to_the_disk(tmp_path: Path) -> None:
    async with Store(url_of(tmp_path / "portico.db")) as store, store.connect() as connection:
        found = [
            (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    assert found == ["wal", 2, 1]


@pytest.mark.parametrize("damage", ["middle", "head", "text"])
async def test_a_damaged_file_is_refused_and_left_as_it_is(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "portico.db"
    await filled(file)
    content = bytearray(file.read_bytes())
    if damage == "middle":
        for page in range(4096, len(content), 4096):
            content[page : page + 64] = b"\xa5" * 64
    elif damage == "head":
        content[:200] = os.urandom(200)
    else:
        content = bytearray(b"this is no database, but somebody's notes\n" * 200)
    file.write_bytes(content)
    with pytest.raises(Unavailable, match="damaged"):
        async with Store(url_of(file)):
            pass
    assert file.read_bytes() == bytes(content)


async def test_a_truncated_file_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "portico.db"
    await filled(file)
    content = file.read_bytes()[: 4096 * 20 + 100]
    file.write_bytes(content)
    with pytest.raises(Unavailable, match="damaged"):
        async with Store(url_of(file)):
            pass
    assert file.read_bytes() == content


async def test_a_file_of_a_newer_portico_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "portico.db"
    await filled(file, 1)
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(Unavailable, match="another version of Portico"):
        async with Store(url_of(file)):
            pass


async def test_a_folder_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot make the database"):
        async with Store(url_of(tmp_path / "nowhere" / "portico.db")):
            pass


async def test_a_database_that_another_program_holds_is_busy(tmp_path: Path) -> None:
    file = tmp_path / "portico.db"
    async with Store(url_of(file), busy_seconds=0.05) as store:
        other = sqlite3.connect(file, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="busy"):
            async with store.begin() as connection:
                await connection.execute(keys.insert().values(name="a", secret=b"", created=0.0))
        other.execute("ROLLBACK")
        other.close()
        async with store.begin() as connection:
            await connection.execute(keys.insert().values(name="a", secret=b"", created=0.0))


async def test_a_full_disk_is_said_in_words_and_reading_goes_on(tmp_path: Path) -> None:
    async with Store(url_of(tmp_path / "portico.db")) as store:
        async with store.begin() as connection:
            await connection.execute(keys.insert().values(name="a", secret=b"", created=0.0))
        with pytest.raises(Unavailable, match="disk is full"):
            async with store.begin() as connection:
                pages = (await connection.exec_driver_sql("PRAGMA page_count")).scalar_one()
                await connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 2}")
                await connection.execute(keys.insert().values(name="b", secret=os.urandom(1 << 20), created=0.0))
        async with store.connect() as connection:
            assert list((await connection.execute(sa.select(keys.c.name))).scalars()) == ["a"]


async def test_a_write_inside_a_write_is_a_mistake_that_shows_itself(tmp_path: Path) -> None:
    async with Store(url_of(tmp_path / "portico.db")) as store:
        with pytest.raises(AssertionError, match="would wait for itself"):
            async with store.begin(), store.begin():
                pass
        async with store.begin() as connection:
            await connection.execute(keys.insert().values(name="a", secret=b"", created=0.0))


async def test_a_database_that_cannot_be_reached_is_unavailable(tmp_path: Path) -> None:
    def refused(*_: object) -> None:
        raise ConnectionRefusedError(111, "connection refused")  # as a server's driver lets it through

    async with Store(url_of(tmp_path / "portico.db")) as store:
        assert store._engine is not None
        await store._engine.dispose()
        sa.event.listen(store._engine.sync_engine, "do_connect", refused)
        with pytest.raises(Unavailable, match="cannot be reached"):
            async with store.connect():
                pass
        with pytest.raises(Unavailable, match="cannot be reached"):
            async with store.begin():
                pass
        sa.event.remove(store._engine.sync_engine, "do_connect", refused)
        async with store.connect() as connection:
            assert (await connection.execute(sa.select(1))).scalar_one() == 1


async def test_the_id_of_a_deleted_row_is_never_given_again(tmp_path: Path) -> None:
    numbered = [table for table in metadata.tables.values() if table.columns[0].autoincrement is True]
    assert len(numbered) >= 9

    def statements(connection: sa.Connection) -> dict[str, str]:
        found = connection.execute(sa.text("SELECT name, sql FROM sqlite_master WHERE type = 'table'"))
        return {row.name: row.sql for row in found}

    async with Store(url_of(tmp_path / "portico.db")) as store, store.connect() as connection:
        made = await connection.run_sync(statements)
    assert [table.name for table in numbered if "AUTOINCREMENT" not in made[table.name]] == []
