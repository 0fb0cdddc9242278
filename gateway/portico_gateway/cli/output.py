"""How the CLI speaks: tables for people, JSON for programs (`-o json`), one sentence for errors."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from portico_gateway.cli.client import ApiError
from portico_gateway.errors import PorticoError, Unauthenticated, Unavailable

P = ParamSpec("P")
T = TypeVar("T")
console = Console(highlight=False)
EXIT_FAILED, EXIT_USAGE, EXIT_UNAVAILABLE, EXIT_NOT_SIGNED_IN = 1, 2, 3, 4
COLOURS = {"running": "green", "starting": "yellow", "building": "yellow", "stopping": "yellow", "errored": "red"}


def command(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Run an async command; a PorticoError becomes one sentence on stderr and an exit status."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return asyncio.run(function(*args, **kwargs))
        except PorticoError as error:
            click.echo(f"portico: {error.message}", err=True)
            raise SystemExit(_status(error)) from None

    return run


def _status(error: PorticoError) -> int:
    if isinstance(error, Unavailable):
        return EXIT_UNAVAILABLE
    if isinstance(error, Unauthenticated):
        return EXIT_NOT_SIGNED_IN
    if isinstance(error, ApiError) and error.code == 400:
        return EXIT_USAGE
    return EXIT_FAILED


def show(value: object, output: str, table: Callable[[], Table | str]) -> None:
    """Print `value` as JSON, or the table made of it."""
    if output == "json":
        click.echo(json.dumps(value, indent=2, ensure_ascii=False))
    else:
        console.print(table())


def status_text(status: str) -> str:
    return f"[{COLOURS.get(status, 'dim')}]●[/] {status}"


def table_of(*columns: str) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    return table


async def with_progress(title: str, steps: Callable[[Callable[[str], None]], Awaitable[T]], quiet: bool) -> T:
    """Show a spinner with the latest step while `steps` runs; `steps` is given the function that sets the text."""
    if quiet or not console.is_terminal:
        return await steps(lambda text: None)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=20), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(title, total=None)
        return await steps(lambda text: progress.update(task, description=f"{title}: {text}"))
