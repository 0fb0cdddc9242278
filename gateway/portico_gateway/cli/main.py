"""`portico`: the group of commands, and those for who runs Portico (`up`, `doctor`)."""

import asyncio
import json
import os
from dataclasses import asdict
from pathlib import Path

import click

from portico_gateway import __version__
from portico_gateway.cli import account, checkpoints, studios
from portico_gateway.errors import PorticoError
from portico_gateway.settings import load


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="portico")
def main() -> None:
    """The front door to your team's studios."""


@main.command()
@click.option("--listen", metavar="HOST:PORT", help="Address of the one public port (default 127.0.0.1:8000).")
@click.option("--data", type=click.Path(path_type=Path), metavar="DIR", help="Where everything is kept.")
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="A TOML file with options.")
def up(listen: str | None, data: Path | None, config: Path | None) -> None:
    """Run Portico on this machine until Ctrl-C."""
    from portico_gateway.up import Supervisor  # here: users of the API need none of its imports

    try:
        settings = load({"listen": listen, "data": data}, os.environ, config)
        raise SystemExit(asyncio.run(Supervisor(settings, click.echo).run()))
    except PorticoError as error:
        click.echo(f"portico: {error.message}", err=True)
        raise SystemExit(2) from None


@main.command()
@click.option("--data", type=click.Path(path_type=Path), metavar="DIR")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
def doctor(data: Path | None, output: str) -> None:
    """Say what this machine can and cannot do, and how to get what is missing."""
    from portico_gateway.doctor import examine

    findings = examine(load({"data": data}, os.environ))
    if output == "json":
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
        return
    marks = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "missing": ("✗", "red")}
    for finding in findings:
        mark, colour = marks[finding.state]
        click.echo(f"{click.style(mark, fg=colour)} {finding.name}: {finding.meaning}")
        if finding.remedy:
            click.echo(f"    → {finding.remedy}")


for each in (*account.COMMANDS, *studios.COMMANDS, *checkpoints.COMMANDS):
    main.add_command(each)
