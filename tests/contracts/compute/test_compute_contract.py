"""What every compute environment promises, checked on each."""

import json
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pytest

from portico_gateway.compute.environment import ComputeEnvironment, Placement
from portico_gateway.compute.local.abilities import Abilities, find_abilities
from portico_gateway.compute.local.confinement import decide
from portico_gateway.compute.local.local_compute import LocalCompute
from portico_gateway.compute.memory import MemoryCompute, MemoryMachine
from portico_gateway.errors import BadRequest, Conflict
from portico_gateway.settings import Settings
from portico_shared import ids
from support.sandboxes import SLEEPER, run_spec, until


class Place(Protocol):
    """A kind of environment, and a hand that ends a run from outside."""

    def open(self) -> ComputeEnvironment:
        """Another instance on the same machine and data, as after the gateway's restart."""
        ...

    async def crash(self, run_id: str, placement: Placement) -> None: ...


class InMemory:
    def __init__(self) -> None:
        self.machine = MemoryMachine()

    def open(self) -> ComputeEnvironment:
        return MemoryCompute(self.machine)

    async def crash(self, run_id: str, placement: Placement) -> None:
        MemoryCompute(self.machine).die(run_id)


class OnThisMachine:
    def __init__(self, data: Path, mode: str, abilities: Abilities) -> None:
        self.settings = Settings(data=data)
        self.confinement = decide(mode, abilities)

    def open(self) -> ComputeEnvironment:
        return LocalCompute(self.settings, self.confinement, command=SLEEPER)

    async def crash(self, run_id: str, placement: Placement) -> None:
        os.kill(placement["pid"], signal.SIGKILL)
        env = self.open()
        for _ in range(1000):
            if not (await env.inspect(run_id, placement)).alive:
                return
        assert await until(lambda: not Path(f"/proc/{placement['pid']}").exists())


@pytest.fixture(scope="session")
def abilities() -> Abilities:
    return find_abilities()


@pytest.fixture(params=["memory", "root", "user", "none"])
async def place(request: pytest.FixtureRequest, tmp_path: Path, abilities: Abilities) -> AsyncIterator[Place]:
    if request.param == "memory":
        yield InMemory()
        return
    try:
        found = OnThisMachine(tmp_path, request.param, abilities)
    except BadRequest as error:
        pytest.skip(error.message)
    yield found
    await found.open().sweep(set())


async def test_a_started_run_lives_for_another_instance_too(place: Place) -> None:
    spec = run_spec()
    placement = await place.open().start(spec)
    stored = json.loads(json.dumps(placement))
    assert (await place.open().inspect(spec.run_id, stored)).alive
    assert "only-for-this-run" not in json.dumps(placement)


async def test_kill_ends_a_run_keeps_its_volume_and_may_be_repeated(place: Place) -> None:
    spec = run_spec()
    env = place.open()
    placement = await env.start(spec)
    for _ in range(3):
        await place.open().kill(spec.run_id, placement)
        state = await env.inspect(spec.run_id, placement)
        assert not state.alive
        assert state.reason
    assert env.has_volume(spec.session_id)


@pytest.mark.parametrize("placement", [{}, {"kind": "local"}, {"kind": 7, "pid": "x"}, {"kind": "local", "pid": 1}])
async def test_a_foreign_or_malformed_placement_is_not_alive_and_harmless(
    place: Place, placement: dict[str, Any]
) -> None:
    env = place.open()
    assert not (await env.inspect(ids.new_run_id(), placement)).alive
    await env.kill(ids.new_run_id(), placement)


async def test_a_placement_counts_for_its_own_run_alone(place: Place) -> None:
    spec = run_spec()
    env = place.open()
    placement = await env.start(spec)
    other = ids.new_run_id()
    assert not (await env.inspect(other, placement)).alive
    await env.kill(other, placement)
    assert (await env.inspect(spec.run_id, placement)).alive


async def test_a_studio_has_one_run_at_a_time(place: Place) -> None:
    spec = run_spec()
    env = place.open()
    placement = await env.start(spec)
    with pytest.raises(Conflict):
        await place.open().start(spec)
    with pytest.raises(Conflict):
        await place.open().start(replace(spec, run_id=ids.new_run_id()))
    assert (await env.inspect(spec.run_id, placement)).alive
    assert env.has_volume(spec.session_id)


async def test_release_waits_for_the_run_then_drops_the_volume_for_good(place: Place) -> None:
    spec = run_spec()
    env = place.open()
    assert not env.has_volume(spec.session_id)
    placement = await env.start(spec)
    with pytest.raises(Conflict):
        await place.open().release(spec.session_id)
    await env.kill(spec.run_id, placement)
    for _ in range(2):
        await env.release(spec.session_id)
        assert not place.open().has_volume(spec.session_id)


async def test_a_crashed_run_is_seen_and_its_studio_starts_again_on_the_same_volume(place: Place) -> None:
    spec = run_spec()
    env = place.open()
    placement = await env.start(spec)
    await place.crash(spec.run_id, placement)
    state = await env.inspect(spec.run_id, placement)
    assert not state.alive
    assert state.reason
    assert env.has_volume(spec.session_id)
    again = replace(spec, run_id=ids.new_run_id())
    assert (await env.inspect(again.run_id, await env.start(again))).alive


async def test_sweep_ends_what_nobody_owns_and_leaves_the_rest(place: Place) -> None:
    kept, lost = run_spec(), run_spec()
    env = place.open()
    kept_placement, lost_placement = await env.start(kept), await env.start(lost)
    said = await place.open().sweep({kept.run_id})
    assert any(lost.run_id in sentence for sentence in said)
    assert not any(kept.run_id in sentence for sentence in said)
    assert (await env.inspect(kept.run_id, kept_placement)).alive
    assert not (await env.inspect(lost.run_id, lost_placement)).alive
    assert await place.open().sweep({kept.run_id}) == []


async def test_describe_says_in_words_how_runs_are_confined(place: Place) -> None:
    described = place.open().describe()
    assert described.isolation in ("full", "user", "none")
    assert described.isolation_note.endswith(".")
    assert not (described.shared and described.isolation == "none")
