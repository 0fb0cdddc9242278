"""Sandboxes on this machine, removed whatever a test did."""

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from portico_gateway.compute.environment import Placement, RunSpec
from portico_gateway.compute.local.abilities import Abilities, find_abilities
from portico_gateway.compute.local.confinement import Confinement, decide
from portico_gateway.compute.local.local_compute import LocalCompute
from portico_gateway.settings import Settings
from support.sandboxes import SLEEPER, run_spec

Start = Callable[..., Awaitable[tuple[RunSpec, Placement]]]


@pytest.fixture(scope="session")
def abilities() -> Abilities:
    return find_abilities()


@pytest.fixture
def confinement(abilities: Abilities) -> Confinement:
    """Runs as root with everything; a test that needs less or other says so."""
    if os.geteuid() != 0 or not abilities.confines_as_root or abilities.veth:
        pytest.skip("this machine gives a test no root with namespaces and links")
    return decide("root", abilities)


@pytest.fixture
def data(confinement: Confinement) -> Iterator[Path]:
    """A data folder below a folder that studios are shown: it must be hidden by name, not by luck."""
    folder = Path(tempfile.mkdtemp(prefix="portico-test-", dir="/opt"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
async def compute(data: Path, confinement: Confinement) -> AsyncIterator[LocalCompute]:
    found = LocalCompute(Settings(data=data), confinement, command=SLEEPER)
    yield found
    await found.sweep(set())


@pytest.fixture
def start(compute: LocalCompute) -> Start:
    async def begin(**changes: object) -> tuple[RunSpec, Placement]:
        spec = run_spec(**changes)
        return spec, await compute.start(spec)

    return begin
