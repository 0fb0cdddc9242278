"""The whole product on loopback, as its user starts it: `async with running_portico() as portico`.

A real `portico up` in a process of its own, a data folder of its own, free ports; ended with SIGINT and checked for
what it left behind. `Portico.api` speaks REST with the bootstrap token.
"""

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

REPOSITORY = Path(__file__).resolve().parents[2]
TOOLS_CACHE = Path(os.environ.get("PORTICO_TEST_TOOLS", REPOSITORY / "build" / "test-tools"))
"""Installed tools are kept between test runs: the same folder a data folder's `tools` would be."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Portico:
    """A running Portico and how to talk to it."""

    port: int
    data: Path
    token: str
    process: subprocess.Popen[bytes]
    log: Path
    session: aiohttp.ClientSession | None = None
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def host(self) -> str:
        return f"portico.localhost:{self.port}"

    @property
    def base(self) -> str:
        return f"http://{self.host}"

    def studio_host(self, session_id: str) -> str:
        return f"a{session_id}.studio.localhost:{self.port}"

    def studio_url(self, session_id: str) -> str:
        return f"http://{self.studio_host(session_id)}"

    async def call(
        self, method: str, path: str, body: object = None, *, token: str | None = None, expect: int | None = None
    ) -> Any:
        """One REST call on the management host; asserts the status (any 2xx when `expect` is not given)."""
        assert self.session is not None
        headers = {"Host": self.host, "Authorization": f"Bearer {token or self.token}"}
        async with self.session.request(
            method, f"http://127.0.0.1:{self.port}/api{path}", json=body, headers=headers
        ) as response:
            text = await response.text()
            if expect is None:
                assert 200 <= response.status < 300, f"{method} {path}: {response.status} {text}"
            else:
                assert response.status == expect, f"{method} {path}: {response.status} {text}"
            return await response.json() if text else None

    async def studio_request(
        self, session_id: str, path: str, *, method: str = "GET", token: str | None = None, **options: Any
    ) -> tuple[int, str]:
        """A request to the studio's own host with a bearer."""
        assert self.session is not None
        headers = {
            "Host": self.studio_host(session_id),
            "Authorization": f"Bearer {token or self.token}",
            **options.pop("headers", {}),
        }
        async with self.session.request(
            method, f"http://127.0.0.1:{self.port}{path}", headers=headers, allow_redirects=False, **options
        ) as response:
            return response.status, await response.text()

    async def workspace(self) -> int:
        me = await self.call("GET", "/user-info")
        found = await self.call("GET", f"/user/{me['user']['id']}/workspaces")
        return int(next(w["workspaceId"] for w in found["orgsAndWorkspaces"] if w.get("workspaceId")))

    async def add_studio(self, name: str, *, start: bool = True, **configuration: Any) -> dict[str, Any]:
        workspace = await self.workspace()
        templates = await self.call("GET", f"/studios/templates?workspaceId={workspace}")
        environments = await self.call("GET", f"/compute-envs?status=AVAILABLE&workspaceId={workspace}")
        body = {
            "name": name,
            "dataStudioToolUrl": templates["templates"][0]["repository"],
            "computeEnvId": environments["computeEnvs"][0]["id"],
            "configuration": {"cpu": 1, "gpu": 0, "memory": 2048, "lifespanHours": 8, **configuration},
        }
        answer = await self.call("POST", f"/studios?workspaceId={workspace}&autoStart={str(start).lower()}", body)
        return dict(answer["studio"])

    async def describe(self, session_id: str) -> dict[str, Any]:
        return dict(await self.call("GET", f"/studios/{session_id}?workspaceId={await self.workspace()}"))

    async def until(self, session_id: str, wanted: str, *, seconds: float = 240) -> dict[str, Any]:
        """Wait until the studio's status is `wanted`; fails at once when it errs instead."""
        deadline = time.monotonic() + seconds
        while True:
            studio = await self.describe(session_id)
            status = studio["statusInfo"]["status"]
            if status == wanted:
                return studio
            if status in ("errored", "buildFailed") and status != wanted:
                raise AssertionError(f"{status}: {studio['statusInfo']['message']}\n{await self.logs(session_id)}")
            if time.monotonic() > deadline:
                log = (self.data / "portico.log").read_text(errors="replace")[-4000:]
                raise AssertionError(f"still {status} after {seconds} s\n{await self.logs(session_id)}\n{log}")
            await asyncio.sleep(0.3)

    async def until_errored(self, session_id: str, *, seconds: float = 60) -> dict[str, Any]:
        """Wait until the studio has ended in error."""
        deadline = time.monotonic() + seconds
        while True:
            studio = await self.describe(session_id)
            if studio["statusInfo"]["status"] == "errored":
                return studio
            assert time.monotonic() < deadline, f"still {studio['statusInfo']} after {seconds} s"
            await asyncio.sleep(0.1)

    async def start(self, session_id: str) -> dict[str, Any]:
        await self.call("PUT", f"/studios/{session_id}/start?workspaceId={await self.workspace()}", {})
        return await self.until(session_id, "running")

    async def stop(self, session_id: str) -> dict[str, Any]:
        await self.call("PUT", f"/studios/{session_id}/stop?workspaceId={await self.workspace()}")
        return await self.until(session_id, "stopped")

    async def checkpoints(self, session_id: str) -> list[dict[str, Any]]:
        workspace = await self.workspace()
        page = await self.call("GET", f"/studios/{session_id}/checkpoints?workspaceId={workspace}")
        return list(page["checkpoints"])

    async def logs(self, session_id: str) -> str:
        workspace = await self.workspace()
        chunk = await self.call("GET", f"/studios/{session_id}/logs?workspaceId={workspace}")
        return str(chunk["text"])[-6000:]

    async def ready(self) -> None:
        """Wait for `GET /readyz` to answer 200."""
        await until_ready(self)

    async def up_again(self) -> None:
        """A second `portico up` after the first has ended, on the same data folder and port; until it is ready."""
        assert self.process.poll() is not None
        self.process = launch(self.data, self.port, self.environment)
        await until_ready(self)

    def pids(self, module: str) -> list[int]:
        """Pids of our child that runs `module` (portico_gateway.control, say)."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                environment = (entry / "environ").read_bytes()
                if module.encode() in words and f"PORTICO_DATA={self.data}".encode() in environment.split(b"\0"):
                    found.append(int(entry.name))
        return found


@contextlib.asynccontextmanager
async def running_portico(
    environment: Mapping[str, str] | None = None, *, data: Path | None = None, port: int | None = None
) -> AsyncIterator[Portico]:
    """Start `portico up`, wait for /readyz, hand it over, end it with SIGINT (final checkpoints), check the remains."""
    with contextlib.ExitStack() as stack:
        folder = data or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ptc-")))
        TOOLS_CACHE.mkdir(parents=True, exist_ok=True)
        port = port or free_port()
        token = "pto_" + secrets.token_hex(24)
        settings = {
            "PORTICO_BOOTSTRAP_TOKEN": token,
            "PORTICO_TOOLS_DIR": str(TOOLS_CACHE),
            "PORTICO_LOG_LEVEL": "info",
            **(environment or {}),
        }
        token = settings["PORTICO_BOOTSTRAP_TOKEN"]
        process = launch(folder, port, settings)
        log = folder / "up.log"
        portico = Portico(port=port, data=folder, token=token, process=process, log=log, environment=settings)
        try:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=120)) as session:
                portico.session = session
                await until_ready(portico)
                yield portico
        finally:
            await asyncio.to_thread(end, portico.process)
        assert_nothing_left(folder)


def launch(data: Path, port: int, settings: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """`portico up` in a process of its own; what it says is added to `up.log` of its data folder."""
    with (data / "up.log").open("ab") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "portico_gateway", "up", "--listen", f"127.0.0.1:{port}", "--data", str(data)],
            env={**os.environ, **settings},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


async def until_ready(portico: Portico, seconds: float = 60) -> None:
    """Wait for `GET /readyz` to answer 200."""
    assert portico.session is not None
    deadline = time.monotonic() + seconds
    while True:
        assert portico.process.poll() is None, f"portico up ended: {portico.log.read_text()[-4000:]}"
        with contextlib.suppress(aiohttp.ClientError, OSError):
            async with portico.session.get(
                f"http://127.0.0.1:{portico.port}/readyz", headers={"Host": portico.host}
            ) as response:
                if response.status == 200:
                    return
        assert time.monotonic() < deadline, f"not ready after {seconds} s: {portico.log.read_text()[-4000:]}"
        await asyncio.sleep(0.1)


def end(process: subprocess.Popen[bytes], seconds: float = 120) -> None:
    """Ctrl-C, and a hard end when that does not work."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError("portico up did not end after SIGINT") from None


def mounts_and_loops(data: Path) -> list[str]:
    """Mounts in our own namespace and loop devices that belong to this data folder."""
    found = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(data) in line]
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            if str(data) in backing.read_text():
                found.append(str(backing))
    return found


def assert_nothing_left(data: Path) -> None:
    """No mount, loop device or process of this data folder remains. Namespaces end with their last process."""
    attached = mounts_and_loops(data)
    assert not attached, f"left attached: {attached}"
    left = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if f"PORTICO_DATA={data}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                    left.append((entry.name, (entry / "cmdline").read_bytes()))
    assert not left, f"left running: {left}"
