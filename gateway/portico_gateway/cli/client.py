"""The CLI's side of the REST API: where Portico is, who asks, and one method per HTTP verb."""

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from portico_gateway.errors import BadRequest, PorticoError, Unauthenticated, Unavailable

DEFAULT_URL = "http://portico.localhost:8000"
LIMIT = 8 * 1024 * 1024
"""Largest answer read, bytes."""


class ApiError(PorticoError):
    """The API said no; `code` is its HTTP status."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Login:
    """Which Portico, and the personal access token for it."""

    url: str
    token: str


def login_file() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "portico" / "login.json"


def save_login(login: Login) -> Path:
    """Keep the login for later commands, readable by this account alone."""
    file = login_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as out:
        json.dump({"url": login.url, "token": login.token}, out)
    return file


def read_login() -> Login:
    """PORTICO_URL and PORTICO_TOKEN, else what `portico login` kept. Raises Unauthenticated that says what to do."""
    url, token = os.environ.get("PORTICO_URL"), os.environ.get("PORTICO_TOKEN")
    if not token:
        try:
            kept = json.loads(login_file().read_text())
            url, token = url or kept["url"], kept["token"]
        except (OSError, ValueError, KeyError):
            raise Unauthenticated(
                "not signed in: run `portico login`, or set PORTICO_URL and PORTICO_TOKEN "
                "(make a token under Account, Tokens in the web page)"
            ) from None
    return Login((url or DEFAULT_URL).rstrip("/"), str(token))


class _LocalhostResolver(AbstractResolver):
    """*.localhost is this machine (RFC 6761); browsers and curl know, the C library's resolver often does not."""

    def __init__(self) -> None:
        self._real = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        if host.endswith(".localhost"):
            host_ip = "127.0.0.1"
            return [
                ResolveResult(
                    hostname=host, host=host_ip, port=port, family=socket.AF_INET, proto=0, flags=socket.AI_NUMERICHOST
                )
            ]
        return await self._real.resolve(host, port, family)

    async def close(self) -> None:
        await self._real.close()


class Client:
    """An API session; use as `async with Client(login) as api`."""

    def __init__(self, login: Login) -> None:
        self.login = login
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=_LocalhostResolver()),
            headers={"Authorization": f"Bearer {self.login.token}", "Accept": "application/json"},
            timeout=aiohttp.ClientTimeout(total=None, connect=10, sock_read=120),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, path: str, **query: object) -> Any:
        return await self._call("GET", path, query)

    async def post(self, path: str, body: object = None, **query: object) -> Any:
        return await self._call("POST", path, query, body)

    async def put(self, path: str, body: object = None, **query: object) -> Any:
        return await self._call("PUT", path, query, body)

    async def delete(self, path: str, **query: object) -> Any:
        return await self._call("DELETE", path, query)

    async def _call(self, method: str, path: str, query: dict[str, object], body: object = None) -> Any:
        assert self._session is not None
        params = {key: str(value) for key, value in query.items() if value is not None}
        try:
            async with self._session.request(
                method, f"{self.login.url}/api{path}", params=params, json=body if body is not None else None
            ) as response:
                raw = await response.content.read(LIMIT + 1)
                while len(raw) <= LIMIT and (more := await response.content.read(LIMIT + 1 - len(raw))):
                    raw += more
                return _answer(response.status, raw)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(f"cannot reach Portico at {self.login.url}: {error}; is `portico up` running?") from error


def _answer(status: int, raw: bytes) -> Any:
    try:
        value = json.loads(raw) if raw else None
    except ValueError:
        value = None
    if status < 400:
        return value
    message = value.get("message") if isinstance(value, dict) else None
    if status == 401:
        raise Unauthenticated(message or "the token is not valid any more: run `portico login`")
    raise ApiError(status, message or f"the API answered {status}")


async def workspace_of(api: Client, wanted: str | None) -> int:
    """The workspace to work in: by id, by name, or the only or first one. Raises BadRequest that lists the choices."""
    wanted = wanted or os.environ.get("PORTICO_WORKSPACE")
    me = await api.get("/user-info")
    answer = await api.get(f"/user/{me['user']['id']}/workspaces")
    found = [w for w in answer["orgsAndWorkspaces"] if w.get("workspaceId")]
    if not found:
        raise BadRequest("you are in no workspace yet: ask an administrator for an invitation")
    if wanted is None:
        return int(found[0]["workspaceId"])
    for each in found:
        if wanted in (str(each["workspaceId"]), each["workspaceName"], f"{each['orgName']}/{each['workspaceName']}"):
            return int(each["workspaceId"])
    names = ", ".join(f"{w['orgName']}/{w['workspaceName']} ({w['workspaceId']})" for w in found)
    raise BadRequest(f"no workspace '{wanted}'; yours: {names}")


async def find_studio(api: Client, workspace: int, wanted: str) -> dict[str, Any]:
    """A studio by its session id (with or without the leading 'a') or by its exact name."""
    session_id = wanted[1:] if len(wanted) == 9 and wanted.startswith("a") else wanted
    if len(session_id) == 8 and all(c in "0123456789abcdef" for c in session_id):
        try:
            return dict(await api.get(f"/studios/{session_id}", workspaceId=workspace))
        except ApiError as error:
            if error.code not in (403, 404):
                raise
    page = await api.get("/studios", workspaceId=workspace, search=wanted, max=100)
    exact = [s for s in page["studios"] if s["name"] == wanted]
    if not exact:
        raise BadRequest(f"no studio '{wanted}' in this workspace; `portico list` shows them")
    return dict(await api.get(f"/studios/{exact[0]['sessionId']}", workspaceId=workspace))


async def follow(api: Client, workspace: int, session_id: str, interval: float = 0.7) -> AsyncIterator[dict[str, Any]]:
    """Describe the studio again and again, until the caller stops."""
    while True:
        yield dict(await api.get(f"/studios/{session_id}", workspaceId=workspace))
        await asyncio.sleep(interval)
