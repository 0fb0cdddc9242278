"""The control process as a process: options, signals, exit status, and a machine that can place nothing."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from portico_gateway.auth.values import Actor
from portico_gateway.compute.absent import AbsentCompute
from portico_gateway.compute.choice import Compute
from portico_gateway.compute.local.tool_install import ToolInstaller
from portico_gateway.control import main
from portico_gateway.control_parts import assemble, find_compute, write_private
from portico_gateway.errors import Unavailable
from portico_gateway.settings import Settings
from portico_gateway.store.engine import Store
from portico_gateway.studios.values import Configuration, NewStudio, Status
from portico_shared.clock import JumpingClock
from portico_shared.messages import Answer, Command


class NoWay:
    async def command(self, run_id: str, command: Command, *, timeout: float) -> Answer:
        raise Unavailable("closed")

    async def forget(self, run_id: str) -> None:
        raise Unavailable("closed")


@contextlib.asynccontextmanager
async def control_process() -> AsyncIterator[tuple[asyncio.subprocess.Process, Path]]:
    with tempfile.TemporaryDirectory(prefix="ptc-") as folder:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "portico_gateway.control",
            "--data",
            folder,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "PORTICO_COMPUTE": "attach"},
        )
        try:
            yield process, Path(folder)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def opened(process: asyncio.subprocess.Process, path: Path) -> None:
    """Until the socket takes connections."""
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
                probe.connect(str(path))
                return
            assert process.returncode is None
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
async def test_each_signal_ends_it_in_order_and_it_says_nothing(number: signal.Signals) -> None:
    async with control_process() as (process, folder):
        await opened(process, folder / "run" / "control.sock")
        process.send_signal(number)
        output, _ = await asyncio.wait_for(process.communicate(), 20)
        assert process.returncode == 0
        assert output == b""
        assert {file.name for file in (folder / "run").iterdir()} == {"welcome.json"}


def test_settings_that_make_no_sense_end_it_with_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORTICO_COMPUTE", "cloud")
    assert main(["--data", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "portico control: compute is 'local' or 'attach'\n"


async def test_machine_that_can_place_nothing_serves_everything_else_and_says_why(tmp_path: Path) -> None:
    clock, reason = JumpingClock(), "this machine has no namespaces: run Portico as root"
    compute = Compute(AbsentCompute(reason), ToolInstaller(tmp_path, recipes={}))
    async with Store(f"sqlite+aiosqlite:///{tmp_path / 'portico.db'}") as store:
        control = await assemble(Settings(data=tmp_path), clock, store, NoWay(), compute)
        async with asyncio.TaskGroup() as group:
            life = group.create_task(control.lifecycle.run())
            await control.lifecycle.adopted.wait()
            user = (await control.rights.users([1]))[1]
            actor = Actor(user, "s1")
            new = NewStudio(
                name="one", template="portico/jupyterlab:4.6", compute_env_id="local", configuration=Configuration()
            )
            view = await control.studios.add(actor, 1, new, start=True)
            while view.status is not Status.ERRORED:
                view = await control.studios.describe(actor, view.session_id)
            assert reason in view.status_message
            life.cancel()
        assert "edge worker" in await control.missing() or "looked for" in await control.missing()
        control.auth.close()


def test_isolation_that_is_not_to_be_had_is_an_absent_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(settings: Settings) -> Compute:
        raise Unavailable("isolation 'root' needs root")

    monkeypatch.setattr("portico_gateway.control_parts.open_compute", refuse)
    found = find_compute(Settings(data=tmp_path))
    assert found.environment.describe().status == "INVALID"
    assert found.environment.describe().isolation_note == "isolation 'root' needs root"


def test_notes_are_replaced_whole_and_for_this_account_alone(tmp_path: Path) -> None:
    file = tmp_path / "note.json"
    write_private(file, {"a": 1})
    write_private(file, {"b": 2})
    assert file.read_text() == '{"b": 2}'
    assert file.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["note.json"]
