"""The pages over the real accounts, rights and life of studios, in one database."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import argon2
import pytest

from portico_gateway.auth.links import OneUseLinks
from portico_gateway.auth.passwords import Passwords
from portico_gateway.auth.people import PeopleService
from portico_gateway.auth.revocations import Revocations
from portico_gateway.auth.rights import RightsService
from portico_gateway.auth.service import AuthService
from portico_gateway.auth.values import Role
from portico_gateway.link.messages import SESSION_COOKIE
from portico_gateway.store.tables import members
from portico_gateway.studios.service import StudioService
from portico_gateway.studios.values import Status
from portico_gateway.web.app import build_web
from support.plain_browser import Browser
from support.studio_world import OWNER, WORKSPACE, studio_world
from support.studio_world import World as Rooms
from support.web_world import World, serve

PASSWORD = "a long and simple sentence"
QUICK = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)


@dataclass
class Real:
    rooms: Rooms
    port: int
    first_link: str


@pytest.fixture
async def real(tmp_path: Path) -> AsyncIterator[Real]:
    async with studio_world(tmp_path) as rooms:
        settings, clock = rooms.parts.settings, rooms.clock
        rights, revocations = RightsService(rooms.store), Revocations(clock)
        links = OneUseLinks(clock, settings.base_url)
        auth = AuthService(
            rooms.store,
            clock,
            settings,
            rights=rights,
            revocations=revocations,
            links=links,
            passwords=Passwords(QUICK),
        )
        people = PeopleService(rooms.store, clock, rights, revocations, links)
        async with rooms.store.begin() as connection:
            row = {"workspace_id": WORKSPACE, "user_id": OWNER.user.id, "role": int(Role.OWNER), "since": 0.0}
            await connection.execute(members.insert().values(**row))
            url, _ = await links.make(connection, OWNER.user.id, "bootstrap")
        rooms.studios = StudioService(rooms.lifecycle, rights)
        app = build_web(rooms.studios, auth, people, settings, clock)
        async with serve(World(settings=settings), app=app) as port:
            yield Real(rooms, port, url.removeprefix(settings.base_url))
        auth.close()


async def come_in(browser: Browser, link: str, name: str) -> Browser:
    """Use a one-use link; the browser that comes of it is signed in."""
    assert (await browser.get(link)).status == 200
    answer = await browser.post(link, {"password": PASSWORD, "again": PASSWORD, "display_name": name})
    assert (answer.status, answer.location) == (303, "/")
    match = re.match(rf"{SESSION_COOKIE}=([^;]+)", answer.headers["Set-Cookie"])
    assert match is not None
    return Browser(browser.session, browser.port, match[1])


async def test_from_the_first_link_to_a_colleague_in_the_same_studio(real: Real, stranger: Browser) -> None:
    rooms, nobody = real.rooms, Browser(stranger.session, real.port)
    olga = await come_in(nobody, real.first_link, "Olga")
    assert (await nobody.get(real.first_link)).status == 404
    home = (await olga.get("/")).location
    assert "Add the first one" in (await olga.get(home)).text

    added = await olga.submit(f"{home}/add", f"{home}/add", name="first studio", compute="memory")
    assert added.status == 303, added.text
    session_id = added.location.split("/")[2]
    await rooms.placed(session_id)
    assert "Starting first studio" in (await olga.get(added.location)).text
    await rooms.agent(session_id).comes_up()
    await rooms.until(session_id, Status.RUNNING)
    opened = await olga.get(added.location)
    assert opened.location == rooms.parts.settings.studio_url(session_id) + "/"

    invited = await olga.submit(f"{home}/members", f"{home}/members", email="newt@example.org", role="connect")
    link = re.search(r"(/link/[\w-]+)", invited.text)
    assert link is not None
    newt = await come_in(nobody, link[1], "Newt")
    handed = await newt.get(f"/handover?studio={session_id}&next=/lab&nonce={'0a' * 32}")
    assert handed.location.startswith(f"{rooms.parts.settings.studio_url(session_id)}/_portico/handover?code=")
    page = await newt.get(f"/studios/{session_id}")
    assert f"/studios/{session_id}/stop" not in page.forms
    token = page.forms[f"/studios/{session_id}/extend"]["token"]
    refused = await newt.post(f"/studios/{session_id}/stop", {"token": token})
    assert refused.status == 403

    newt_id = re.search(rf"{home}/members/(\d+)/remove", (await olga.get(f"{home}/members")).text.split("newt@")[1])
    assert newt_id is not None
    removed = await olga.submit(f"{home}/members", f"{home}/members/{newt_id[1]}/remove")
    assert removed.status == 303
    assert (await newt.get(f"/studios/{session_id}")).status == 404
    assert (await newt.get(home)).status == 404


async def test_every_page_of_a_studio_is_rendered_from_the_real_rooms(real: Real, stranger: Browser) -> None:
    rooms = real.rooms
    olga = await come_in(Browser(stranger.session, real.port), real.first_link, "")
    studio = await rooms.add()
    await rooms.run(studio.session_id)
    for path in ("", "/checkpoints", "/logs", "/settings", "/copy", "/overview", "/logs/drawer", "/logs/text"):
        answer = await olga.get(f"/studios/{studio.session_id}{path}")
        assert answer.status == 200, path
    made = await olga.submit(f"/studios/{studio.session_id}", f"/studios/{studio.session_id}/checkpoint")
    assert made.status == 303
    assert (await olga.get(made.location)).status == 200
    for search in ("one", "status:running", "status:nonsense", 'author:olga "one', "env:memory"):
        assert (await olga.get(f"/w/{WORKSPACE}?search={search.replace(' ', '+')}")).status == 200
    await rooms.stop(studio.session_id)
    text = (await olga.get(f"/studios/{studio.session_id}/open")).text
    assert "is stopped" in text
    assert "comes back exactly as it was then" in text or "It begins" in text


async def test_the_account_page_works_on_real_accounts(real: Real, stranger: Browser) -> None:
    olga = await come_in(Browser(stranger.session, real.port), real.first_link, "")
    made = await olga.submit("/account", "/account/tokens", name="laptop", days="30")
    assert "Copy “laptop” now" in made.text
    assert (await olga.submit("/account", "/account/tokens", name="laptop", days="30")).status == 409
    wrong = {"old": "not this one at all", "password": "another sentence", "again": "another sentence"}
    answer = await olga.submit("/account", "/account/password", **wrong)
    assert answer.status in (401, 403)
    assert "password is wrong" in answer.text
    assert (await olga.submit("/account", "/account/password", **{**wrong, "old": PASSWORD})).status == 303
    assert (await olga.submit("/account", "/sign-out")).status == 303
    assert (await olga.get("/account")).status == 303
