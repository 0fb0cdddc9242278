"""The sandbox of a plain user: a namespace of its own, the machine's programs, nothing of theirs."""

import contextlib
import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

import portico_gateway
from portico_gateway.compute.local.abilities import Abilities
from portico_gateway.compute.local.confinement import Confinement
from portico_gateway.compute.local.local_compute import LocalCompute
from portico_gateway.settings import Settings
from support.sandboxes import SLEEPER, Machine, look_at_machine, processes_of, reaches, run, run_spec


@pytest.fixture(params=["pasta", "slirp", "loopback"])
async def compute(request: pytest.FixtureRequest, abilities: Abilities, tmp_path: Path) -> AsyncIterator[LocalCompute]:
    if not abilities.confines_as_user or getattr(abilities, request.param, ""):
        pytest.skip(f"this machine lets a test start no sandbox of a plain user with {request.param}")
    confinement = Confinement("user", request.param, images=False)
    found = LocalCompute(Settings(data=tmp_path), confinement, command=SLEEPER)
    yield found
    await found.sweep(set())


def within(pid: int, script: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script as the sandbox's own user, with all rights in its namespaces."""
    return run("nsenter", "--target", str(pid), "--all", "--preserve-credentials", "--", "/bin/sh", "-c", script)


async def test_files_processes_and_ports_of_this_machine_are_not_there(compute: LocalCompute, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("for nobody")
    placement = await compute.start(run_spec())
    pid = placement["pid"]
    for hidden in (secret, Path(portico_gateway.__path__[0]), Path.home() / ".bashrc", Path("/var/log/dpkg.log")):
        if hidden.exists():
            assert within(pid, f"cat {hidden} || ls {hidden}").returncode != 0
    assert within(pid, "ls /root /home /workspace /tmp | grep -v :").stdout.split() == []
    assert "pytest" in run("/bin/sh", "-c", "cat /proc/[0-9]*/cmdline").stdout
    assert "pytest" not in within(pid, "cat /proc/[0-9]*/cmdline").stdout
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert reaches(None, "127.0.0.1", port)
        for address in ("127.0.0.1", "10.0.2.2", "169.254.1.53"):
            assert not reaches(pid, address, port), address


async def test_what_only_its_account_may_read_is_covered(compute: LocalCompute) -> None:
    with tempfile.TemporaryDirectory(dir="/opt", prefix="portico-test-") as folder:
        Path(folder).chmod(0o755)
        for name, mode in (("private", 0o600), ("public", 0o644)):
            Path(folder, name).write_text("words")
            Path(folder, name).chmod(mode)
        placement = await compute.start(run_spec())
        assert within(placement["pid"], f"cat {folder}/public").stdout == "words"
        assert within(placement["pid"], f"cat {folder}/private").stdout == ""
        assert within(placement["pid"], "cat /etc/shadow").stdout == ""


async def test_programs_are_read_only_and_the_volume_is_kept(compute: LocalCompute) -> None:
    spec = run_spec()
    placement = await compute.start(spec)
    for folder in ("/usr", "/etc", "/opt/portico/python", "/opt/portico/agent"):
        assert "Read-only" in within(placement["pid"], f"touch {folder}/portico-test").stderr
    assert within(placement["pid"], "echo kept > /portico/volume/file").returncode == 0
    assert within(placement["pid"], "/opt/portico/python/bin/python3 -I -c 'import ssl; print(6*7)'").stdout == "42\n"
    await compute.kill(spec.run_id, placement)
    again = run_spec(session_id=spec.session_id)
    placement = await compute.start(again)
    assert within(placement["pid"], "cat /portico/volume/file").stdout == "kept\n"


async def test_nothing_is_left_but_log_and_volume(compute: LocalCompute, tmp_path: Path) -> None:
    before = _look(tmp_path)
    spec = run_spec()
    placement = await compute.start(spec)
    await compute.kill(spec.run_id, placement)
    assert _look(tmp_path) == before
    helpers = [p.info["cmdline"] or () for p in psutil.process_iter(["cmdline"])]
    assert not [
        words for words in helpers if words[:1] in (["pasta"], ["slirp4netns"]) and str(placement["pid"]) in words
    ]
    assert sorted(path.name for path in (tmp_path / "runs" / spec.run_id).iterdir()) == ["agent.log"]


async def test_a_run_without_any_wall_is_an_ordinary_program_that_ends_with_all_below_it(
    abilities: Abilities, tmp_path: Path
) -> None:
    family = ("/bin/sh", "-c", "sleep 999.25 & setsid sleep 999.25 & wait")
    compute = LocalCompute(Settings(data=tmp_path), Confinement("none", "host", images=False), command=family)
    spec = run_spec(session_id="0a0b0c0d")
    placement = await compute.start(spec)
    with contextlib.suppress(psutil.Error):
        first = psutil.Process(placement["pid"])
        assert first.environ()["PORTICO_VOLUME"] == str(tmp_path / "volumes" / "0a0b0c0d" / "folder")
        assert first.environ()["PORTICO_GATEWAY"] == f"unix:{tmp_path}/run/public/edge.sock"
    await compute.kill(spec.run_id, placement)
    assert processes_of(spec.run_id) == []
    shutil.rmtree(tmp_path)


def _look(data: Path) -> Machine:
    return look_at_machine(data.name)
