"""An agent attached to a tool that runs already."""

import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from portico_gateway.compute.attach import AttachCompute
from portico_gateway.errors import Conflict, Unavailable
from portico_gateway.settings import Settings
from portico_shared import ids
from support.sandboxes import run_spec, until

CODE = "import os, json, time; print(json.dumps(dict(os.environ)), flush=True); time.sleep(99)"
TELLS_AND_WAITS = (sys.executable, "-c", CODE)


@pytest.fixture
async def compute(tmp_path: Path) -> AsyncIterator[AttachCompute]:
    found = AttachCompute(Settings(data=tmp_path, compute="attach", attach_port=8888), command=TELLS_AND_WAITS)
    yield found
    await found.sweep(set())


async def test_the_agent_is_told_its_run_and_to_launch_nothing(compute: AttachCompute, tmp_path: Path) -> None:
    spec = run_spec(gateway=f"unix:{tmp_path}/run/public/edge.sock")
    placement = await compute.start(spec)
    log = tmp_path / "runs" / spec.run_id / "agent.log"
    assert await until(lambda: log.read_text().endswith("\n"))
    told = json.loads(log.read_text())
    assert told["PORTICO_ROOT"] == "none"
    assert told["PORTICO_RUN"] == spec.run_id
    assert told["PORTICO_RUN_TOKEN"] == spec.run_token
    assert told["PORTICO_GATEWAY"] == spec.gateway
    assert Path(told["PORTICO_STATE"]).is_dir()
    assert (await compute.inspect(spec.run_id, placement)).alive
    assert spec.run_token not in json.dumps(placement)


async def test_kill_ends_the_agent_and_keeps_nothing_but_its_log(compute: AttachCompute, tmp_path: Path) -> None:
    spec = run_spec()
    placement = await compute.start(spec)
    for _ in range(2):
        await compute.kill(spec.run_id, placement)
        assert not (await compute.inspect(spec.run_id, placement)).alive
    assert [path.name for path in (tmp_path / "runs" / spec.run_id).iterdir()] == ["agent.log"]
    assert not compute.has_volume(spec.session_id)


async def test_one_agent_per_studio(compute: AttachCompute) -> None:
    spec = run_spec()
    await compute.start(spec)
    with pytest.raises(Conflict):
        await compute.start(spec)
    with pytest.raises(Conflict):
        await compute.start(run_spec(session_id=spec.session_id))
    with pytest.raises(Conflict):
        await compute.release(spec.session_id)


async def test_sweep_ends_agents_nobody_owns(compute: AttachCompute) -> None:
    kept, lost = run_spec(), run_spec()
    placements = {spec.run_id: await compute.start(spec) for spec in (kept, lost)}
    assert len(await compute.sweep({kept.run_id})) == 1
    assert (await compute.inspect(kept.run_id, placements[kept.run_id])).alive
    assert not (await compute.inspect(lost.run_id, placements[lost.run_id])).alive


async def test_foreign_placements_are_harmless(compute: AttachCompute) -> None:
    for placement in ({}, {"kind": "attach", "pid": 1}, {"kind": "local", "pid": 1, "started": 1, "boot": "x"}):
        assert not (await compute.inspect(ids.new_run_id(), placement)).alive
        await compute.kill(ids.new_run_id(), placement)
    assert psutil.pid_exists(1)


async def test_an_agent_that_cannot_be_started_is_said(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="could not be started"):
        await AttachCompute(Settings(data=tmp_path), command=("/no/such/agent",)).start(run_spec())


async def test_it_says_plainly_that_nothing_is_confined(compute: AttachCompute) -> None:
    assert compute.describe().isolation == "none"
    assert "nothing is confined" in compute.describe().isolation_note
