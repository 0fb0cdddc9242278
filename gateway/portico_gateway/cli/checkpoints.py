"""Commands on checkpoints: make one, list them, fork from one."""

import asyncio
from collections.abc import Callable
from typing import Any

import click
from rich.table import Table

from portico_gateway.cli.client import ApiError, Client, find_studio, read_login, workspace_of
from portico_gateway.cli.output import command, show, table_of, with_progress
from portico_gateway.cli.studios import common, wait_for

POLL_SECONDS = 0.7


@click.command()
@click.argument("studio")
@click.option("--name", help="A name for it (default: numbered).")
@click.option("--wait/--no-wait", default=True, show_default=True)
@common
@command
async def checkpoint(workspace: str | None, output: str, studio: str, name: str | None, wait: bool) -> None:
    """Make a checkpoint of a running studio now."""
    async with Client(read_login()) as api:
        where = await workspace_of(api, workspace)
        session_id = (await find_studio(api, where, studio))["sessionId"]
        made = await api.post(f"/studios/{session_id}/checkpoints", {"name": name} if name else {}, workspaceId=where)
        if wait:
            made = await _durable(api, where, session_id, made["id"], output)
    show(made, output, lambda: f"Checkpoint {made['name']} ({made['id']}): {made['status']}")


async def _durable(api: Client, workspace: int, session_id: str, checkpoint_id: int, output: str) -> dict[str, Any]:
    async def steps(say: Callable[[str], None]) -> dict[str, Any]:
        while True:
            row = await api.get(f"/studios/{session_id}/checkpoints/{checkpoint_id}", workspaceId=workspace)
            if row["status"] == "invalid":
                raise ApiError(409, "the checkpoint failed; `portico logs` shows why; earlier ones are untouched")
            if row["status"] == "finalized":
                return dict(row)
            say(row["status"])
            await asyncio.sleep(POLL_SECONDS)

    return await with_progress("Saving", steps, quiet=output == "json")


@click.command()
@click.argument("studio")
@common
@command
async def checkpoints(workspace: str | None, output: str, studio: str) -> None:
    """List a studio's checkpoints, newest first."""
    async with Client(read_login()) as api:
        where = await workspace_of(api, workspace)
        session_id = (await find_studio(api, where, studio))["sessionId"]
        page = await api.get(f"/studios/{session_id}/checkpoints", workspaceId=where, max=100)

    def table() -> Table | str:
        if not page["checkpoints"]:
            return "No checkpoints yet: the first is made when the studio starts."
        rows = table_of("id", "name", "status", "saved")
        for row in page["checkpoints"]:
            saved = row["dateSaved"] if row["status"] in ("interim", "finalized") else ""
            rows.add_row(str(row["id"]), row["name"], row["status"], saved)
        return rows

    show(page, output, table)


@click.command()
@click.argument("studio")
@click.option("--checkpoint", "checkpoint_id", type=int, help="Checkpoint id (default: now, or the newest).")
@click.option("--name", help="The new studio's name.")
@click.option("--start/--no-start", default=False, show_default=True)
@common
@command
async def fork(
    workspace: str | None, output: str, studio: str, checkpoint_id: int | None, name: str | None, start: bool
) -> None:
    """Add a new studio from a checkpoint of another; later changes of the two are apart."""
    async with Client(read_login()) as api:
        where = await workspace_of(api, workspace)
        session_id = (await find_studio(api, where, studio))["sessionId"]
        body = {"checkpointId": checkpoint_id, "name": name, "start": start}
        given = {key: value for key, value in body.items() if value is not None}
        answer = await api.post(f"/studios/{session_id}/fork", given, workspaceId=where)
        made = answer["studio"]
        if start:
            made = await wait_for(api, where, made["sessionId"], ("running",), "Starting", output)
    show(made, output, lambda: f"{made['name']} ({made['sessionId']}) {made['studioUrl']}")


COMMANDS = (checkpoint, checkpoints, fork)
