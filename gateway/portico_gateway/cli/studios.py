"""Commands on studios: list, add, start, stop, open, logs, fork, delete, extend, show."""

import asyncio
import webbrowser
from collections.abc import Callable
from typing import Any, TypeVar

import click
from rich.table import Table

from portico_gateway.cli.client import ApiError, Client, find_studio, follow, read_login, workspace_of
from portico_gateway.cli.output import command, show, status_text, table_of, with_progress
from portico_gateway.errors import BadRequest

F = TypeVar("F", bound=Callable[..., Any])
FINAL = ("running", "stopped", "errored", "buildFailed")


def common(function: F) -> F:
    """The options every command on studios has."""
    function = click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")(function)
    return click.option("-w", "--workspace", help="Workspace: id, name or org/name.")(function)


@click.command("list")
@click.option("--search", default="", help="Name, or status:running, author:ana, env:local.")
@common
@command
async def list_(workspace: str | None, output: str, search: str) -> None:
    """List the workspace's studios."""
    async with Client(read_login()) as api:
        where = await workspace_of(api, workspace)
        page = await api.get("/studios", workspaceId=where, search=search or None, max=100)

    def table() -> Table | str:
        if not page["studios"]:
            return "No studios here yet: `portico add` makes the first."
        rows = table_of("id", "name", "status", "tool", "author", "here")
        for s in page["studios"]:
            here = ", ".join(c["userName"] for c in s.get("activeConnections") or ())
            tool, author = s["template"]["tool"], s["user"]["userName"]
            rows.add_row(s["sessionId"], s["name"], status_text(s["statusInfo"]["status"]), tool, author, here)
        return rows

    show(page, output, table)


@click.command("show")
@click.argument("studio")
@common
@command
async def show_(workspace: str | None, output: str, studio: str) -> None:
    """Show one studio."""
    async with Client(read_login()) as api:
        found = await find_studio(api, await workspace_of(api, workspace), studio)
    show(found, output, lambda: _details(found))


def _details(studio: dict[str, Any]) -> Table:
    table, status = table_of("", ""), studio["statusInfo"]
    configuration = studio["configuration"]
    rows = {
        "name": studio["name"],
        "id": studio["sessionId"],
        "status": status_text(status["status"]) + (f"  {status['message']}" if status.get("message") else ""),
        "address": studio["studioUrl"],
        "template": studio["template"]["repository"],
        "resources": f"{configuration['cpu']} CPU, {configuration['memory']} MiB",
        "lifespan": f"{studio['effectiveLifespanHours']} h" if studio["effectiveLifespanHours"] else "until stopped",
        "author": studio["user"]["userName"],
    }
    for name, value in rows.items():
        table.add_row(name, str(value))
    return table


@click.command()
@click.argument("name", required=False)
@click.option("-t", "--template", help="Template (default: the recommended JupyterLab).")
@click.option("--cpu", type=int, default=2, show_default=True)
@click.option("--memory", type=int, default=8192, show_default=True, help="MiB")
@click.option("--lifespan", type=int, default=8, show_default=True, help="Hours; 0 = until stopped.")
@click.option("--description", default="")
@click.option("-e", "--env", "environment", multiple=True, metavar="NAME=VALUE")
@click.option("--private", is_flag=True)
@click.option("--start/--no-start", default=True, show_default=True)
@click.option("--wait/--no-wait", default=True, show_default=True)
@common
@command
async def add(workspace: str | None, output: str, name: str | None, **options: Any) -> None:
    """Add a studio, and start it."""
    async with Client(read_login()) as api:
        where = await workspace_of(api, workspace)
        body = await _new_studio(api, where, name, options)
        answer = await api.post("/studios", body, workspaceId=where, autoStart=str(options["start"]).lower())
        studio = answer["studio"]
        if options["start"] and options["wait"]:
            studio = await wait_for(api, where, studio["sessionId"], ("running",), "Starting", output)
    show(studio, output, lambda: _details(studio))


async def _new_studio(api: Client, workspace: int, name: str | None, options: dict[str, Any]) -> dict[str, Any]:
    templates = (await api.get("/studios/templates", workspaceId=workspace))["templates"]
    repository = options["template"] or next(t["repository"] for t in templates if t["status"] == "recommended")
    environments = (await api.get("/compute-envs", status="AVAILABLE", workspaceId=workspace))["computeEnvs"]
    if not environments:
        raise BadRequest("no compute environment is available; `portico doctor` says why")
    pairs = dict(_pair(text) for text in options["environment"])
    return {
        **({"name": name} if name else {}),
        "description": options["description"],
        "dataStudioToolUrl": repository,
        "computeEnvId": environments[0]["id"],
        "isPrivate": options["private"],
        "configuration": {
            "cpu": options["cpu"],
            "gpu": 0,
            "memory": options["memory"],
            "lifespanHours": options["lifespan"],
            "environment": pairs,
        },
    }


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise BadRequest(f"--env {text!r} is not NAME=VALUE")
    return name, value


async def wait_for(
    api: Client, workspace: int, session_id: str, wanted: tuple[str, ...], title: str, output: str
) -> dict[str, Any]:
    """Follow the studio until one of `wanted`. Raises ApiError when it ends anywhere else."""

    async def steps(say: Callable[[str], None]) -> dict[str, Any]:
        async for studio in follow(api, workspace, session_id):
            status = studio["statusInfo"]["status"]
            if status in wanted:
                return studio
            if status in FINAL:
                message = studio["statusInfo"].get("message") or f"the studio is {status}"
                raise ApiError(409, f"{message} (`portico logs {session_id}` shows more)")
            progress = studio.get("progress") or [{}]
            say(str(progress[-1].get("message") or status))
        raise AssertionError("follow never ends by itself")

    return await with_progress(title, steps, quiet=output == "json")


def _verb(verb: str, title: str, target: tuple[str, ...], help_text: str) -> click.Command:
    @click.command(verb, help=help_text)
    @click.argument("studio")
    @click.option("--wait/--no-wait", default=True, show_default=True)
    @common
    @command
    async def run(workspace: str | None, output: str, studio: str, wait: bool) -> None:
        async with Client(read_login()) as api:
            where = await workspace_of(api, workspace)
            found = await find_studio(api, where, studio)
            await api.put(f"/studios/{found['sessionId']}/{verb}", {} if verb == "start" else None, workspaceId=where)
            if wait:
                found = await wait_for(api, where, found["sessionId"], target, title, output)
            else:
                found = await find_studio(api, where, found["sessionId"])
        show(found, output, lambda: _details(found))

    return run


start = _verb("start", "Starting", ("running",), "Start a studio from its newest checkpoint.")
stop = _verb("stop", "Stopping", ("stopped",), "Stop a studio; a final checkpoint comes first.")


@click.command("open")
@click.argument("studio")
@click.option("--print", "only_print", is_flag=True, help="Only print the address.")
@common
@command
async def open_(workspace: str | None, output: str, studio: str, only_print: bool) -> None:
    """Open a studio in the browser."""
    async with Client(read_login()) as api:
        found = await find_studio(api, await workspace_of(api, workspace), studio)
    show({"url": found["studioUrl"]}, output, lambda: str(found["studioUrl"]))
    if not only_print and output == "text":
        webbrowser.open(found["studioUrl"])


@click.command()
@click.argument("studio")
@click.option("-f", "--follow", "following", is_flag=True, help="Keep printing as the log grows.")
@click.option("--stream", type=click.Choice(["all", "agent", "tool", "build"]), default="all")
@click.option("-w", "--workspace", help="Workspace: id, name or org/name.")
@command
async def logs(workspace: str | None, studio: str, following: bool, stream: str) -> None:
    """Print the log of a studio's latest run."""
    async with Client(read_login()) as api:
        where = await workspace_of(api, workspace)
        session_id = (await find_studio(api, where, studio))["sessionId"]
        offset = 0
        while True:
            chunk = await api.get(f"/studios/{session_id}/logs", workspaceId=where, offset=offset, stream=stream)
            click.echo(chunk["text"], nl=False)
            if chunk["nextOffset"] == offset and (chunk["ended"] or not following):
                return
            if chunk["nextOffset"] == offset:
                await asyncio.sleep(1)
            offset = chunk["nextOffset"]


@click.command()
@click.argument("studio")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("-w", "--workspace", help="Workspace: id, name or org/name.")
@command
async def delete(workspace: str | None, studio: str, yes: bool) -> None:
    """Delete a stopped studio with its checkpoints. Immediate and final."""
    async with Client(read_login()) as api:
        where = await workspace_of(api, workspace)
        found = await find_studio(api, where, studio)
        if not yes:
            typed = click.prompt(f"This deletes '{found['name']}' and its checkpoints for ever. Type its name")
            if typed != found["name"]:
                raise BadRequest("that is not its name; nothing was deleted")
        await api.delete(f"/studios/{found['sessionId']}", workspaceId=where)
    click.echo(f"Deleted {found['name']}.")


@click.command()
@click.argument("studio")
@common
@command
async def extend(workspace: str | None, output: str, studio: str) -> None:
    """Give the present run another lifespan from now on."""
    async with Client(read_login()) as api:
        where = await workspace_of(api, workspace)
        session_id = (await find_studio(api, where, studio))["sessionId"]
        found = await api.post(f"/studios/{session_id}/lifespan", workspaceId=where)
    show(found, output, lambda: _details(found))


COMMANDS = (list_, show_, add, start, stop, open_, logs, delete, extend)
