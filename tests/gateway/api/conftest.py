"""The API's world, fresh for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.api_world import ApiWorld, api_world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[ApiWorld]:
    async with api_world(tmp_path) as made:
        yield made
