"""`portico login`, `logout`, `whoami`."""

import click

from portico_gateway.cli.client import DEFAULT_URL, Client, Login, login_file, read_login, save_login
from portico_gateway.cli.output import command


@click.command()
@click.argument("url", default=DEFAULT_URL)
@click.option("--token", envvar="PORTICO_TOKEN", help="A personal access token; asked for when not given.")
@command
async def login(url: str, token: str | None) -> None:
    """Keep the address of a Portico and a personal access token for later commands."""
    url = url.rstrip("/")
    if not token:
        click.echo(f"Make a token at {url}/account/tokens and paste it here.")
        token = str(click.prompt("Token", hide_input=True)).strip()
    async with Client(Login(url, token)) as api:
        me = (await api.get("/user-info"))["user"]
    file = save_login(Login(url, token))
    click.echo(f"Signed in as {me['userName']} at {url} (kept in {file}).")


@click.command()
def logout() -> None:
    """Forget the kept token."""
    login_file().unlink(missing_ok=True)
    click.echo("Signed out. The token itself stays valid until you revoke it under Account, Tokens.")


@click.command()
@command
async def whoami() -> None:
    """Say who the token belongs to, and where."""
    kept = read_login()
    async with Client(kept) as api:
        me = (await api.get("/user-info"))["user"]
    click.echo(f"{me['userName']} <{me['email']}> at {kept.url}")


COMMANDS = (login, logout, whoami)
