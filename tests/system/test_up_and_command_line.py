"""`portico up` and the commands, as processes, with a tool that already runs (compute 'attach')."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from support.portico import Portico, free_port, running_portico

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]


@contextlib.asynccontextmanager
async def small_tool() -> AsyncIterator[int]:
    """A tool that says hello."""

    async def hello(request: web.Request) -> web.Response:
        return web.Response(text=f"hello from {request.path}")

    app = web.Application()
    app.router.add_get("/{path:.*}", hello)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield port
    finally:
        await runner.cleanup()


async def portico(*words: str, home: Path, at: Portico | None = None, typed: str = "") -> tuple[int, str, str]:
    """Run a command; returns status, output and errors."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PORTICO_")} | {"HOME": str(home)}
    environment.pop("XDG_CONFIG_HOME", None)
    if at is not None:
        environment |= {"PORTICO_URL": at.base, "PORTICO_TOKEN": at.token}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "portico_gateway", *words,
        env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(typed.encode()), 120)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_a_studio_lives_its_life_by_commands_alone(tmp_path: Path) -> None:
    async with small_tool() as port:
        attached = {"PORTICO_COMPUTE": "attach", "PORTICO_ATTACH_PORT": str(port)}
        async with running_portico(attached) as up:
            status, out, err = await portico("list", home=tmp_path, at=up)
            assert (status, err) == (0, "") and "portico add" in out

            status, out, err = await portico("add", "rna", "-o", "json", home=tmp_path, at=up)
            assert status == 0, err
            made = json.loads(out)
            assert made["statusInfo"]["status"] == "running"
            session_id = made["sessionId"]
            assert (await up.studio_request(session_id, "/x"))[1] == "hello from /x"

            status, out, _ = await portico("open", "rna", "--print", home=tmp_path, at=up)
            assert out.strip() == up.studio_url(session_id)
            status, out, _ = await portico("list", home=tmp_path, at=up)
            assert "rna" in out and "running" in out and session_id in out
            status, out, _ = await portico("extend", session_id, "-o", "json", home=tmp_path, at=up)
            assert json.loads(out)["sessionId"] == session_id
            status, _, err = await portico("delete", "rna", "--yes", home=tmp_path, at=up)
            assert status != 0 and "stop" in err.lower()
            status, _, err = await portico("add", "rna", home=tmp_path, at=up)
            assert status != 0 and "rna" in err
            status, _, err = await portico("show", "no-such-studio", home=tmp_path, at=up)
            assert status != 0 and "portico list" in err

            status, out, err = await portico("stop", "a" + session_id, home=tmp_path, at=up)
            assert status == 0 and "stopped" in out, err
            status, out, err = await portico("start", "rna", "-o", "json", home=tmp_path, at=up)
            assert status == 0 and json.loads(out)["statusInfo"]["status"] == "running", err
            status, out, _ = await portico("checkpoints", "rna", home=tmp_path, at=up)
            assert status == 0
            await portico("stop", "rna", home=tmp_path, at=up)
            status, _, err = await portico("delete", "rna", home=tmp_path, at=up, typed="something else\n")
            assert status != 0 and "nothing was deleted" in err
            status, out, _ = await portico("delete", "rna", "--yes", home=tmp_path, at=up)
            assert status == 0 and "Deleted rna" in out


async def test_login_keeps_a_token_for_later_and_says_what_to_do_without_one(tmp_path: Path) -> None:
    status, _, err = await portico("list", home=tmp_path)
    assert status == 4 and "portico login" in err
    async with running_portico({"PORTICO_COMPUTE": "attach", "PORTICO_ATTACH_PORT": str(free_port())}) as up:
        status, _, err = await portico("login", up.base, "--token", "pto_wrong", home=tmp_path)
        assert (status == 4 and "portico login" in err) or "token" in err
        status, out, err = await portico("login", up.base, "--token", up.token, home=tmp_path)
        assert status == 0 and "Signed in as admin" in out, err
        kept = tmp_path / ".config" / "portico" / "login.json"
        assert kept.stat().st_mode & 0o777 == 0o600
        status, out, _ = await portico("whoami", home=tmp_path)
        assert status == 0 and "admin" in out
        base = up.base
    status, _, err = await portico("list", home=tmp_path)
    assert status == 3 and base in err and "portico up" in err


async def test_a_second_start_finds_everything(tmp_path: Path) -> None:
    async with small_tool() as port:
        attached = {"PORTICO_COMPUTE": "attach", "PORTICO_ATTACH_PORT": str(port), "PORTICO_BOOTSTRAP_TOKEN": "b" * 40}
        async with running_portico(attached, data=tmp_path) as up:
            made = await up.add_studio("kept", start=False)
        async with running_portico(attached, data=tmp_path) as up:
            assert (await up.describe(made["sessionId"]))["name"] == "kept"


async def test_what_cannot_work_is_refused_in_words(tmp_path: Path) -> None:
    data = tmp_path / "d"
    data.mkdir()
    async with running_portico({"PORTICO_COMPUTE": "attach", "PORTICO_ATTACH_PORT": "9"}, data=data) as up:
        status, _, err = await portico("up", "--data", str(data), "--listen", f"127.0.0.1:{free_port()}", home=tmp_path)
        assert status == 2 and "another Portico" in err
        other = str(tmp_path / "e")
        status, _, err = await portico("up", "--data", other, "--listen", f"127.0.0.1:{up.port}", home=tmp_path)
        assert status == 2 and "--listen" in err
    (data / "portico.toml").write_text("nonsense = 1\n")
    status, _, err = await portico("up", "--data", str(data), home=tmp_path)
    assert status == 2 and "nonsense" in err
    status, _, err = await portico("up", "--data", "/proc/nowhere", home=tmp_path)
    assert status == 2 and "--data" in err
    status, _, err = await portico("up", "--data", str(tmp_path / ("x" * 120)), home=tmp_path)
    assert status == 2 and "shorter" in err


async def test_doctor_says_what_this_machine_can_do(tmp_path: Path) -> None:
    status, out, err = await portico("doctor", "--data", str(tmp_path), "-o", "json", home=tmp_path)
    assert status == 0, err
    found = {each["name"]: each for each in json.loads(out)}
    assert any("Isolation" in name for name in found)
    assert all(each["state"] in ("ok", "warn", "missing") and each["meaning"] for each in found.values())
    assert all(each["remedy"] for each in found.values() if each["state"] == "missing")
    status, out, _ = await portico("doctor", "--data", str(tmp_path), home=tmp_path)
    assert status == 0 and "Isolation" in out
