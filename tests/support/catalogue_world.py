"""A catalogue over a real database with one workspace, and studios and runs made by a line each."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from portico_gateway.objects.memory import MemoryObjects
from portico_gateway.objects.object_store import ObjectStore
from portico_gateway.store.engine import Store
from portico_gateway.store.tables import organisations, runs, studios, users, workspaces
from portico_gateway.studios.checkpoints import Catalogue
from portico_gateway.studios.run_context import RunContext
from portico_shared.clock import JumpingClock
from portico_shared.ids import new_run_id, new_session_id


@dataclass
class CatalogueWorld:
    store: Store
    clock: JumpingClock
    objects: ObjectStore
    catalogue: Catalogue
    author: int
    workspace: int

    async def studio(self, name: str, lineage: str) -> str:
        session_id = new_session_id()
        now = self.clock.now()
        async with self.store.begin() as db:
            await db.execute(
                studios.insert().values(
                    session_id=session_id, workspace_id=self.workspace, creator_id=self.author, name=name,
                    template="t", compute_env_id="local", configuration={},
                    allowed_user_ids=[], lineage=lineage, status="stopped",
                    status_at=now, created=now, updated=now, generation=0,
                )
            )  # fmt: skip
        return session_id

    async def run(self, session_id: str) -> RunContext:
        """A new run of the studio with its own row in the catalogue."""
        run_id = new_run_id()
        async with self.store.begin() as db:
            row = (await db.execute(studios.select().where(studios.c.session_id == session_id))).one()
            generation = row.generation + 1
            changed = {"generation": generation, "run_id": run_id}
            await db.execute(studios.update().where(studios.c.session_id == session_id).values(**changed))
            await db.execute(
                runs.insert().values(
                    id=run_id, session_id=session_id, generation=generation, started=self.clock.now(),
                    configuration={}, run_token_hash=b"0" * 32,
                )
            )  # fmt: skip
        checkpoint_id = await self.catalogue.open_row(
            session_id, run_id=run_id, lineage=row.lineage, generation=generation, author_id=self.author, reason="start"
        )
        return RunContext(
            run_id=run_id,
            session_id=session_id,
            lineage=row.lineage,
            generation=generation,
            checkpoint_id=checkpoint_id,
            workspace_id=self.workspace,
            author_id=self.author,
        )

    async def end(self, run: RunContext) -> None:
        await self.catalogue.seal_run(run.run_id)
        async with self.store.begin() as db:
            await db.execute(runs.update().where(runs.c.id == run.run_id).values(ended=self.clock.now()))


@asynccontextmanager
async def catalogue_world(folder: Path, objects: ObjectStore | None = None) -> AsyncIterator[CatalogueWorld]:
    clock = JumpingClock()
    async with Store(f"sqlite+aiosqlite:///{folder / 'catalogue.db'}") as store:
        kept = objects or MemoryObjects(clock)
        async with store.begin() as db:
            now = clock.now()
            author = await db.execute(users.insert().values(user_name="ana", email="ana@example.org", created=now))
            org = await db.execute(organisations.insert().values(name="home", created=now))
            workspace = await db.execute(
                workspaces.insert().values(org_id=org.inserted_primary_key[0], name="w", full_name="W", created=now)
            )
        yield CatalogueWorld(
            store=store,
            clock=clock,
            objects=kept,
            catalogue=Catalogue(store, kept, clock),
            author=author.inserted_primary_key[0],
            workspace=workspace.inserted_primary_key[0],
        )
