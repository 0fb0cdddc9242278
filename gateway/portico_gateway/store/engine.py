"""The database behind one door: opened, migrated, and its faults put into words.

SQLite (the embedded default) runs in WAL mode with full sync, and one writer at a time: `begin` takes the write lock at
once, so that a transaction never fails half-way because another one was quicker.
"""

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import alembic.command
import alembic.config
import alembic.util
import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from portico_gateway.errors import Conflict, Unavailable

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_SECONDS = 10
"""How long a write waits for another process (a backup, say) that holds the database."""


class Store:
    """An open database; `async with Store(url) as store`. Opening migrates to the newest schema.

    Raises Unavailable when the database cannot be opened, is damaged, or is newer than this program.
    """

    def __init__(self, url: str, *, busy_seconds: float = BUSY_SECONDS) -> None:
        self.url = url
        self._busy_seconds = busy_seconds
        self._engine: AsyncEngine | None = None
        self._write_lock = asyncio.Lock()
        self._writer: asyncio.Task[Any] | None = None
        self._is_sqlite = make_url(url).get_backend_name() == "sqlite"

    async def __aenter__(self) -> Self:
        if self._is_sqlite:
            await asyncio.to_thread(_check_file, self.url)
        self._engine = _engine(self.url, self._is_sqlite, self._busy_seconds)
        try:
            async with self.begin() as connection:
                await connection.run_sync(_migrate)
        except BaseException:
            await self._engine.dispose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._engine is not None:
            await self._engine.dispose()

    @contextlib.asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that may write; commits when the block ends well, else rolls back.

        Raises Conflict for a broken unique or foreign key the block did not expect, Unavailable when the database is
        locked, full or away.
        """
        task = asyncio.current_task()
        assert self._writer is None or self._writer is not task, "a write inside a write would wait for itself"
        async with contextlib.AsyncExitStack() as stack:
            if self._is_sqlite:
                await stack.enter_async_context(self._write_lock)
                self._writer = task
                stack.callback(self._no_writer)
            with _faults():
                connection = await stack.enter_async_context(self._open())
                await connection.execution_options(portico_write=True)
                async with connection.begin():
                    yield connection

    def _no_writer(self) -> None:
        self._writer = None

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[AsyncConnection]:
        """A connection to read with, from one moment; what it would change is rolled back."""
        with _faults():
            async with self._open() as connection:
                yield connection

    @contextlib.asynccontextmanager
    async def _open(self) -> AsyncIterator[AsyncConnection]:
        assert self._engine is not None, "the store is not open"
        try:
            connection = await self._engine.connect()
        except (OSError, PoolTimeout) as error:  # drivers let these through as they are
            raise Unavailable(f"the database cannot be reached ({error}); running studios are not affected") from error
        try:
            yield connection
        finally:
            await connection.close()


@contextlib.contextmanager
def _faults() -> Iterator[None]:
    """The one door for the database's own exceptions."""
    try:
        yield
    except IntegrityError as error:
        raise Conflict("this contradicts what is stored already; load it again and repeat") from error
    except OperationalError as error:
        text = str(error.orig)
        if "full" in text:
            raise Unavailable(
                "the database's disk is full: free some space; running studios are not affected"
            ) from error
        if "locked" in text or "busy" in text:
            raise Unavailable("the database is busy; try again in a moment") from error
        raise Unavailable(f"the database does not answer ({text}); running studios are not affected") from error
    except DBAPIError as error:
        raise Unavailable(f"the database failed ({error.orig})") from error


def _engine(url: str, is_sqlite: bool, busy_seconds: float) -> AsyncEngine:
    if not is_sqlite:
        return create_async_engine(url, pool_pre_ping=True)
    engine = create_async_engine(url, connect_args={"timeout": busy_seconds})

    @sa.event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, record: object) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves, below
        cursor = connection.cursor()
        for pragma in (
            "journal_mode=WAL",
            "foreign_keys=ON",
            "synchronous=FULL",
            f"busy_timeout={int(busy_seconds * 1000)}",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @sa.event.listens_for(engine.sync_engine, "begin")
    def begin(connection: sa.Connection) -> None:
        write = connection.get_execution_options().get("portico_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def _check_file(url: str) -> None:
    """Refuse a damaged file loudly, before anything writes to it. A new one is for this account alone."""
    name = make_url(url).database
    if not name or name == ":memory:":
        return
    if not Path(name).exists():
        try:
            os.close(os.open(name, os.O_CREAT | os.O_RDWR, 0o600))
        except OSError as error:
            raise Unavailable(f"cannot make the database {name}: {error.strerror}") from error
        return
    try:
        with contextlib.closing(sqlite3.connect(f"file:{name}?mode=ro", uri=True, timeout=BUSY_SECONDS)) as connection:
            verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.OperationalError as error:
        raise Unavailable(f"cannot open the database {name}: {error}") from error
    except sqlite3.DatabaseError as error:
        verdict = str(error)
    if verdict != "ok":
        raise Unavailable(
            f"the database {name} is damaged ({verdict}). Nothing was changed. Put back a copy, or move it away to "
            "start empty (studios' checkpoints stay in the store)."
        )


def _migrate(connection: sa.Connection) -> None:
    config = alembic.config.Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    try:
        alembic.command.upgrade(config, "head")
    except alembic.util.CommandError as error:
        raise Unavailable(f"the database was written by another version of Portico ({error}): use that one") from error
