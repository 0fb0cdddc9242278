"""The pages in a real Chromium: live, by keyboard, on a phone, in the dark, without scripts, for everyone."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import axe_playwright_python
import pytest
from playwright.async_api import Browser, BrowserContext, Page, expect

from portico_gateway.link.messages import SESSION_COOKIE
from portico_gateway.studios.values import ProgressStep, Status
from support import chromium
from support.portico import free_port
from support.web_world import PASSWORD, World, sample_world, serve

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(chromium.path() is None, reason="no Chromium on this machine"),
]

WIDE = {"width": 1280, "height": 860}
PHONE = {"width": 375, "height": 812}


@dataclass
class Scene:
    """A running sample lab and a browser to look at it."""

    world: World
    base: str
    browser: Browser

    async def context(self, name: str | None = "ana", **options: Any) -> BrowserContext:
        made = await self.browser.new_context(**{"viewport": WIDE, "base_url": self.base, **options})
        if name is not None:
            user = next(u for u in self.world.users.values() if u.user_name == name)
            cookie = {
                "name": SESSION_COOKIE,
                "value": self.world.cookie_of(user),
                "domain": "portico.localhost",
                "path": "/",
                "secure": True,
                "httpOnly": True,
                "sameSite": "Lax",
            }
            await made.add_cookies([cookie])  # type: ignore[list-item]
        return made

    async def page(self, name: str | None = "ana", **options: Any) -> Page:
        """A tab; anything its console complains of fails the test that looks at `troubles`."""
        page = await (await self.context(name, **options)).new_page()
        page.set_default_timeout(10_000)
        troubles: list[str] = []
        page.on("console", lambda m: troubles.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: troubles.append(str(e)))
        page.troubles = troubles  # type: ignore[attr-defined]
        return page

    @property
    def lab(self) -> int:
        return min(self.world.workspaces)

    @property
    def pages(self) -> dict[str, str]:
        return {
            "list": f"/w/{self.lab}",
            "empty list": f"/w/{max(self.world.workspaces)}",
            "nothing found": f"/w/{self.lab}?search=zzz",
            "add": f"/w/{self.lab}/add",
            "starting": "/studios/0badcafe/open",
            "stopped": "/studios/ca11ab1e/open",
            "errored": "/studios/deadbeef/open",
            "overview": "/studios/3fa1b2c4",
            "checkpoints": "/studios/3fa1b2c4/checkpoints",
            "logs": "/studios/3fa1b2c4/logs",
            "settings": "/studios/ca11ab1e/settings",
            "copy": "/studios/3fa1b2c4/copy",
            "members": f"/w/{self.lab}/members",
            "account": "/account",
            "not found": "/nothing",
        }


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    port = free_port()
    world = sample_world(port)
    async with serve(world, port), chromium.chromium() as browser:
        yield Scene(world, f"http://portico.localhost:{port}", browser)


@pytest.fixture(scope="session")
def axe() -> str:
    """The text of axe-core, as its Python package carries it."""
    return (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text()


async def violations(page: Page, axe: str) -> list[str]:
    await page.evaluate(axe)  # the policy allows no script of ours in the page; the debugger may
    found = await page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{v['impact']}: {v['id']}: {n['html'][:160]}: {n['failureSummary'][-200:]}"
        for v in found["violations"]
        if v["impact"] in ("serious", "critical")
        for n in v["nodes"][:3]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_no_page_shuts_anybody_out(scene: Scene, axe: str, scheme: str) -> None:
    page = await scene.page(color_scheme=scheme)
    found: dict[str, list[str]] = {}
    for name, path in scene.pages.items():
        await page.goto(path)
        found[name] = await violations(page, axe)
    await page.goto(f"/w/{scene.lab}")
    await page.locator("#menu-3fa1b2c4 summary").click()
    found["open menu"] = await violations(page, axe)
    stranger = await scene.page(None, color_scheme=scheme)
    await stranger.goto("/sign-in?next=/studios/3fa1b2c4/open")
    found["sign in"] = await violations(stranger, axe)
    await stranger.goto(scene.world.settings.studio_url("0badcafe") + "/lab")
    found["waiting"] = await violations(stranger, axe)
    await stranger.goto(scene.world.settings.studio_url("ca11ab1e") + "/lab")
    found["stopped there"] = await violations(stranger, axe)
    assert {name: v for name, v in found.items() if v} == {}


async def test_no_page_is_wider_than_a_phone_and_none_complains(scene: Scene) -> None:
    page = await scene.page(viewport=PHONE, has_touch=True, is_mobile=True)
    for name, path in scene.pages.items():
        await page.goto(path)
        await page.wait_for_load_state("load")
        assert await page.evaluate("document.documentElement.scrollWidth") <= 375, name
        if name != "not found":
            assert page.troubles == [], name  # type: ignore[attr-defined]
        page.troubles.clear()  # type: ignore[attr-defined]


async def test_signing_in_by_hand_ends_in_the_tool(scene: Scene) -> None:
    page = await scene.page(None)
    await page.goto("/studios/3fa1b2c4/open")
    await expect(page.get_by_text("a3fa1b2c4.studio.localhost")).to_be_visible()
    await page.keyboard.type("ana")
    await page.keyboard.press("Tab")
    await page.keyboard.type("wrong")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert")).to_contain_text("do not match an account")
    await page.keyboard.type(PASSWORD)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="the tool at /")).to_be_visible()
    assert page.url == scene.world.settings.studio_url("3fa1b2c4") + "/"


async def test_the_list_lives(scene: Scene) -> None:
    page = await scene.page()
    await page.goto(scene.pages["list"])
    row = page.locator("#studio-0badcafe")
    await expect(row.locator(".status")).to_have_text("Starting")
    await row.locator("summary").click()
    scene.world.change("0badcafe", status=Status.RUNNING)
    await expect(row.locator(".status")).to_have_text("Running")
    await expect(row.locator("details")).to_have_attribute("open", "")  # what was opened stays open
    await expect(row.get_by_role("button", name="Save and stop")).to_be_visible()
    creator = next(iter(scene.world.users.values()))
    made = scene.world.add(scene.world.workspaces[scene.lab], creator, "brand-new", Status.STOPPED)
    scene.world.tell(made.session_id, "added")
    await expect(page.locator(f"#studio-{made.session_id}")).to_be_visible()
    assert page.troubles == []  # type: ignore[attr-defined]


async def test_typing_in_the_search_narrows_the_list_and_stays_while_it_lives(scene: Scene) -> None:
    page = await scene.page()
    await page.goto(scene.pages["list"])
    await page.keyboard.press("/")
    await page.keyboard.type("seq")
    await expect(page.locator("tbody tr")).to_have_count(2)
    scene.world.change("51deca11", status=Status.STOPPING)
    scene.world.change("3fa1b2c4", status=Status.STOPPING)
    await expect(page.locator("#studio-3fa1b2c4 .status")).to_have_text("Stopping")
    await expect(page.locator("tbody tr")).to_have_count(2)
    await expect(page.locator("#search")).to_be_focused()
    await expect(page.locator("#search")).to_have_value("seq")
    assert page.url.endswith("?search=seq")


async def test_the_keyboard_alone_adds_a_studio(scene: Scene) -> None:
    page = await scene.page()
    await page.goto(scene.pages["list"])
    await page.keyboard.press("n")
    await expect(page.get_by_role("heading", name="Add a studio")).to_be_visible()
    await page.keyboard.press("Enter")  # from the first field, with every default
    await expect(page.get_by_role("heading", level=1)).to_contain_text("Starting studio-")
    assert scene.world.calls[-1][0] == "add"


async def test_escape_closes_a_menu_and_gives_the_focus_back(scene: Scene) -> None:
    page = await scene.page()
    await page.goto(scene.pages["list"])
    summary = page.locator("#menu-3fa1b2c4 summary")
    await summary.focus()
    await page.keyboard.press("Enter")
    await expect(page.locator("#menu-3fa1b2c4")).to_have_attribute("open", "")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Escape")
    await expect(page.locator("#menu-3fa1b2c4")).not_to_have_attribute("open", "")
    await expect(summary).to_be_focused()
    await summary.click()
    await page.locator("#menu-51deca11 summary").click()
    await expect(page.locator("details.menu[open]")).to_have_count(1)
    await page.locator("h1").click()
    await expect(page.locator("details.menu[open]")).to_have_count(0)


async def test_the_summary_follows_the_form(scene: Scene) -> None:
    page = await scene.page()
    await page.goto(scene.pages["add"])
    await page.get_by_label("Name", exact=True).fill("rna-seq-qc")
    summary = page.locator("#summary")
    await expect(summary).to_contain_text("exists already")
    await page.get_by_label("Name", exact=True).fill("fine-name")
    await page.get_by_label("CPUs").fill("64")
    await page.get_by_label("Private").check()
    await expect(summary).to_contain_text("This machine has 8 CPUs")
    await expect(summary).to_contain_text("you alone")
    await expect(summary).not_to_contain_text("exists already")
    assert page.troubles == []  # type: ignore[attr-defined]


async def test_the_start_page_goes_from_start_through_its_steps_to_the_tool(scene: Scene) -> None:
    world = scene.world
    page = await scene.page()
    await page.goto("/studios/ca11ab1e/open?next=/lab/tree/here.ipynb")
    await page.get_by_role("button", name="Start", exact=True).click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Starting figures for the paper")
    now = world.clock.now()
    world.change("ca11ab1e", "progress", progress=(ProgressStep(now, "provisioning", "started"),))
    await expect(page.locator(".step.now")).to_contain_text("Finding a machine")
    told = (ProgressStep(now, "provisioning", "done"), ProgressStep(now, "restoring", "started", "1 MB of 4 MB"))
    world.change("ca11ab1e", "progress", progress=told)
    await expect(page.get_by_role("progressbar")).to_have_attribute("value", "0.250")
    await page.locator(".drawer summary").click()
    world.write_log("ca11ab1e", "agent: <restoring>\n")
    await expect(page.locator("#log")).to_contain_text("agent: <restoring>")
    world.change("ca11ab1e", status=Status.RUNNING)
    await expect(page.get_by_role("heading", name="the tool at /lab/tree/here.ipynb")).to_be_visible()
    assert page.troubles == []  # type: ignore[attr-defined]


async def test_the_waiting_page_on_the_studios_own_host_turns_into_the_tool(scene: Scene) -> None:
    page = await scene.page(None)
    await page.goto(scene.world.settings.studio_url("0badcafe") + "/lab?x=1")
    await expect(page.get_by_role("heading", level=1)).to_have_text("Starting protein-folding")
    scene.world.change("0badcafe", status=Status.RUNNING)
    await expect(page.get_by_role("heading", name="the tool at /lab?x=1")).to_be_visible()
    assert page.troubles == []  # type: ignore[attr-defined]


async def test_a_start_that_fails_says_so_in_place(scene: Scene) -> None:
    page = await scene.page()
    await page.goto(scene.pages["starting"])
    scene.world.change("0badcafe", status=Status.ERRORED, status_message="no space is left on this machine's disk")
    await expect(page.get_by_role("heading", level=1)).to_have_text("protein-folding ran into an error")
    await expect(page.get_by_text("no space is left")).to_be_visible()
    await page.get_by_role("button", name="Retry").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Starting protein-folding")


async def test_the_log_follows_its_end_unless_its_reader_scrolled_up(scene: Scene) -> None:
    page = await scene.page()
    await page.goto(scene.pages["logs"])
    log = page.locator("#log")
    scene.world.write_log("3fa1b2c4", "".join(f"line {i}\n" for i in range(300)))
    await expect(log).to_contain_text("line 299")
    end = "log => log.scrollHeight - log.scrollTop - log.clientHeight"
    assert await log.evaluate(end) < 48
    await log.evaluate("log => { log.scrollTop = 0 }")
    scene.world.write_log("3fa1b2c4", "one more\n")
    await expect(log).to_contain_text("one more")
    assert await log.evaluate("log => log.scrollTop") == 0


async def test_a_page_says_that_portico_is_away_and_comes_back_by_itself() -> None:
    port = free_port()
    world = sample_world(port)
    async with chromium.chromium() as browser:
        scene = Scene(world, f"http://portico.localhost:{port}", browser)
        page = await scene.page()
        async with serve(world, port):
            await page.goto(scene.pages["list"])
            await expect(page.locator("#studio-0badcafe .status")).to_have_text("Starting")
        await expect(page.locator("#offline")).to_be_visible()
        world.change("0badcafe", status=Status.RUNNING)
        async with serve(world, port):
            await expect(page.locator("#offline")).to_be_hidden(timeout=30_000)
            await expect(page.locator("#studio-0badcafe .status")).to_have_text("Running")


async def test_losing_the_sign_in_leads_to_the_sign_in_page(scene: Scene) -> None:
    page = await scene.page()
    await page.goto(scene.pages["list"])
    await expect(page.locator("#studio-0badcafe")).to_be_visible()
    scene.world.cookies.clear()
    scene.world.change("0badcafe", status=Status.RUNNING)
    await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


async def test_everything_works_without_scripts(scene: Scene) -> None:
    page = await scene.page(java_script_enabled=False)
    await page.goto("/")
    await page.get_by_label("Search studios").fill("figures")
    await page.keyboard.press("Enter")
    await expect(page.locator("tbody tr")).to_have_count(1)
    await page.get_by_role("button", name="Start figures for the paper").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Starting figures for the paper")
    scene.world.change("ca11ab1e", status=Status.RUNNING)
    await expect(page.get_by_role("heading", name="the tool at /")).to_be_visible()  # the page asks again by itself
    await page.goto("/studios/3fa1b2c4")
    await expect(page.get_by_role("button", name="Copy link")).to_be_hidden()
    await page.get_by_role("button", name="Checkpoint now").click()
    await expect(page.locator(".timeline")).to_contain_text("Being saved")
    await page.get_by_role("link", name="Add as new").first.click()
    await page.get_by_label("Name", exact=True).fill("a copy")
    await page.get_by_role("button", name="Add only").click()
    await expect(page.locator("tbody")).to_contain_text("a copy")


async def test_a_studios_page_can_neither_frame_nor_read_nor_command_portico(scene: Scene) -> None:
    """The tool's origin is another one: what its scripts send as the visitor changes nothing."""
    page = await scene.page()
    await page.goto(scene.pages["list"])
    await page.goto(scene.world.settings.studio_url("3fa1b2c4") + "/")
    base = scene.base
    read = await page.evaluate(
        "base => fetch(base + '/account', {credentials: 'include'}).then(() => 'read', () => 'refused')", base
    )
    assert read == "refused"
    await page.evaluate(
        """base => fetch(base + '/studios/3fa1b2c4/stop', {method: 'POST', credentials: 'include', mode: 'no-cors',
           headers: {'Content-Type': 'application/x-www-form-urlencoded'}, body: 'token=x'}).catch(() => 0)""",
        base,
    )
    framed = await page.evaluate(
        """base => new Promise(done => { const f = document.createElement('iframe'); f.src = base + '/account';
           f.onload = () => { try { done(f.contentDocument ? f.contentDocument.body.innerText : 'closed') }
           catch { done('closed') } }; document.body.append(f) })""",
        base,
    )
    assert "Access tokens" not in framed
    assert scene.world.calls == []
    assert scene.world.rows["3fa1b2c4"].status is Status.RUNNING
