"""The sample lab behind a real server, and people with browsers."""

from collections.abc import AsyncIterator

import aiohttp
import pytest

from support.plain_browser import Browser
from support.web_world import World, sample_world, serve


@pytest.fixture
def world() -> World:
    return sample_world()


@pytest.fixture
async def port(world: World) -> AsyncIterator[int]:
    async with serve(world) as bound:
        yield bound


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as made:
        yield made


@pytest.fixture
def stranger(port: int, session: aiohttp.ClientSession) -> Browser:
    return Browser(session, port)


def signed_in(world: World, stranger: Browser, name: str) -> Browser:
    user = next(u for u in world.users.values() if u.user_name == name)
    return Browser(stranger.session, stranger.port, world.cookie_of(user))


@pytest.fixture
def ana(world: World, stranger: Browser) -> Browser:
    """Owner of the lab."""
    return signed_in(world, stranger, "ana")


@pytest.fixture
def chi(world: World, stranger: Browser) -> Browser:
    """May connect."""
    return signed_in(world, stranger, "chi")


@pytest.fixture
def dora(world: World, stranger: Browser) -> Browser:
    """May look at the list."""
    return signed_in(world, stranger, "dora")


@pytest.fixture
def lab(world: World) -> int:
    return min(world.workspaces)
