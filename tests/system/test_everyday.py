"""A team's days with one studio, in real Chromium, with real JupyterLab, pip and apt-get."""

import asyncio
import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from playwright.async_api import Browser, BrowserContext, Page, expect

from support.jupyter import LOADED, chromium, kernel_idle, new_notebook, run_cell, screenshot
from support.outside import studio_environment
from support.portico import REPOSITORY, Portico, free_port, running_portico

pytestmark = [
    pytest.mark.root,
    pytest.mark.browser,
    pytest.mark.system,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.geteuid() != 0 and "CI" not in os.environ, reason="needs root for namespaces and mounts"),
]
PASSWORD = "a quiet place to work"
PACKAGE, DEBIAN = "tabulate", "hello"


async def first_sign_in(browser: Browser, link: str, name: str) -> tuple[BrowserContext, Page]:
    """Somebody follows a one-use link in a browser of their own and chooses a password."""
    context = await browser.new_context(viewport={"width": 1280, "height": 800})
    page = await context.new_page()
    await page.goto(link)
    await page.fill("input[name=display_name]", name)
    await page.fill("input[name=password]", PASSWORD)
    await page.fill("input[name=again]", PASSWORD)
    await page.click("main form button.primary")
    await page.wait_for_url(re.compile(r"/w/\d+"))
    return context, page


async def invited(portico: Portico, browser: Browser, email: str, role: str, name: str) -> tuple[BrowserContext, Page]:
    workspace = await portico.workspace()
    made = await portico.call("POST", f"/workspaces/{workspace}/members", {"email": email, "role": role})
    return await first_sign_in(browser, made["url"], name)


async def add_by_hand(page: Page, name: str) -> str:
    """Add and start through the pages, and stay until the start page has turned into JupyterLab. Returns the id."""
    await page.get_by_role("link", name="Add a studio").first.click()
    await page.fill("input[name=name]", name)
    await page.click("summary:has-text('Environment variables')")
    pairs = "\n".join(f"{key}={value}" for key, value in studio_environment().items())
    await page.fill("textarea[name=environment]", pairs)
    await page.click("button[name=then][value=start]")
    await page.wait_for_url(re.compile(r"/studios/[0-9a-f]{8}/open"))
    await screenshot(page, "start-page")
    await page.wait_for_url(re.compile(r"//a[0-9a-f]{8}\.studio\.localhost"), timeout=240_000)
    found = re.search(r"//a([0-9a-f]{8})\.", page.url)
    assert found is not None
    return found[1]


async def shell(page: Page, command: str, expect_text: str, seconds: float = 180) -> str:
    """Run a shell command in the notebook's next cell."""
    return await run_cell(page, f"!{command}", expect_text, seconds)


async def see_each_other_type(ours: Page, theirs: Page) -> None:
    """What one person types appears at the other's, both ways."""
    for typist, reader, words in ((ours, theirs, "# from ada"), (theirs, ours, "# from ben")):
        editor = typist.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-CodeCell .cm-content").last
        await editor.click()
        await typist.keyboard.insert_text(words + "\n")
        await expect(reader.locator(".jp-Notebook").first).to_contain_text(words, timeout=20_000)
    editor = ours.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-CodeCell .cm-content").last
    await editor.click()
    await ours.keyboard.press("Control+a")
    await ours.keyboard.press("Delete")


async def walls_hold(page: Page, portico: Portico, neighbour: str) -> None:
    """From inside: the host's secrets, the gateway's data and ports, and another studio's tool, one by one.

    Each is first reached from here, so that the check could fail."""
    secret = portico.data / "portico.db"
    assert secret.exists()
    hidden = [secret, portico.data / "run" / "control.sock", REPOSITORY / "README.md", Path("/etc/shadow")]
    assert all(path.exists() for path in hidden)
    shadow = Path("/etc/shadow").read_text()
    root_hash = shadow.splitlines()[0].split(":")[1]
    for path in hidden[:3]:
        await run_cell(page, f"import os; print('seen', os.path.exists({str(path)!r}))", "seen False")
    inside = await run_cell(
        page,
        "print(open('/etc/shadow').read() + '.end') if os.path.exists('/etc/shadow') else print('no .end')",
        ".end",
    )
    assert len(root_hash) < 4 or root_hash not in inside
    ports = [portico.port, *broker_ports(portico), free_port()]
    listener = await asyncio.start_server(lambda r, w: w.close(), "0.0.0.0", ports[-1])
    connect = (
        "import socket\n"
        "def reach(host, port):\n"
        "    try:\n        socket.create_connection((host, port), 3).close(); return 'open'\n"
        "    except OSError as e:\n        return 'closed'\n"
        "rows = [line.split() for line in open('/proc/net/route').read().splitlines()[1:]]\n"
        "gates = [row[2] for row in rows if row[1] == '00000000']\n"
        "hosts = ['127.0.0.1', *('.'.join(str(int(g[i:i+2], 16)) for i in (6, 4, 2, 0)) for g in gates)]\n"
        "print('tried', len(hosts), 'hosts')"
    )
    await run_cell(page, connect, "tried 2 hosts")
    async with listener:
        for port in ports:
            _, writer = await asyncio.open_connection("127.0.0.1", port)  # from here it is open
            writer.close()
            await run_cell(page, f"print('reach', {{reach(h, {port}) for h in hosts}})", "reach {'closed'}")
    peer, tool_port, pid = neighbour_address(portico, neighbour)
    own = f"import socket; socket.create_connection(('127.0.0.1', {tool_port}), 3)"  # its own studio reaches it
    await asyncio.to_thread(subprocess.run, ["nsenter", "-t", pid, "-n", sys.executable, "-c", own], check=True)
    await run_cell(page, f"print('reach', reach({peer!r}, {tool_port}))", "reach closed")
    await run_cell(page, "print('reach', reach('169.254.169.254', 80))", "reach closed")


def broker_ports(portico: Portico) -> list[int]:
    return [int(json.loads((portico.data / "run" / "broker.json").read_text())["port"])]


def neighbour_address(portico: Portico, session_id: str) -> tuple[str, int, str]:
    """The other studio's own address, its tool's port, and a process in its network."""
    with sqlite3.connect(portico.data / "portico.db") as database:
        row = database.execute(
            "select placement, tool_port from runs where session_id = ? order by started desc", (session_id,)
        ).fetchone()
    pid = str(json.loads(row[0])["pid"])
    shown = subprocess.run(
        ["nsenter", "-t", pid, "-n", "ip", "-4", "-o", "addr", "show", "dev", "eth0"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = re.search(r"inet ([0-9.]+)/", shown)
    assert found is not None, shown
    return found[1], int(row[1]), pid


async def day(portico: Portico, page: Page, session_id: str, number: int) -> None:
    """The studio is started again: packages and files are there; something new is left for the next day."""
    await portico.start(session_id)
    await page.goto(portico.studio_url(session_id) + "/lab/tree/diary.ipynb?reset")
    await page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-CodeCell").first.wait_for(timeout=LOADED)
    await kernel_idle(page)
    await run_cell(page, f"import {PACKAGE}, glob, os; print('{PACKAGE} is there')", f"{PACKAGE} is there")
    await shell(page, DEBIAN, "Hello, world!")
    await run_cell(page, "print(open('/workspace/notes.txt').read())", "kept since day 0")
    days = await run_cell(page, "print(len(glob.glob('/workspace/day-*')), 'days')", "days")
    assert f"{number - 1} days" in days, days
    await run_cell(page, f"open('/workspace/day-{number}', 'w').write('x'); print('left', {number})", f"left {number}")
    await page.keyboard.press("Control+s")
    await asyncio.sleep(1)


async def test_a_team_works_in_one_studio_day_after_day() -> None:
    async with running_portico() as portico, chromium() as browser:
        welcome = (portico.data / "run" / "welcome.json").read_text()
        link = re.search(r'"(http[^"]+)"', welcome)
        assert link is not None
        _, ada = await first_sign_in(browser, link[1], "Ada")
        began = time.monotonic()
        session_id = await add_by_hand(ada, "rna seq qc")
        print(f"from 'Add and start' to JupyterLab: {time.monotonic() - began:.1f} s")

        name = await new_notebook(ada)
        await run_cell(ada, "1+1", "2")
        await shell(ada, f"pip install {PACKAGE} 2>&1 | tail -n 3", f"Successfully installed {PACKAGE}")
        await shell(
            ada, f"(apt-get update && apt-get install -y {DEBIAN}) 2>&1 | tail -n 3; {DEBIAN}", "Hello, world!", 300
        )
        await run_cell(ada, "open('/workspace/notes.txt', 'w').write('kept since day 0'); print('noted')", "noted")
        await screenshot(ada, "jupyterlab")

        # a colleague gets the address, signs in, and lands in the same notebook
        address = f"{portico.studio_url(session_id)}/lab/tree/{name}"
        workspace = await portico.workspace()
        made = await portico.call(
            "POST", f"/workspaces/{workspace}/members", {"email": "ben@example.org", "role": "connect"}
        )
        ben_context, _ = await first_sign_in(browser, made["url"], "Ben")
        await ben_context.clear_cookies()
        ben = await ben_context.new_page()
        await ben.goto(address)
        await expect(ben).to_have_url(re.compile(r"/sign-in"))
        await ben.fill("input[name=login]", "ben@example.org")
        await ben.fill("input[name=password]", PASSWORD)
        await ben.click("main form button.primary")
        await ben.wait_for_url(re.compile(re.escape(f"a{session_id}.studio.localhost")))
        assert ben.url.split("?")[0] == address
        await ben.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-CodeCell").first.wait_for(timeout=LOADED)
        await expect(ben.locator(".jp-Notebook").first).to_contain_text("kept since day 0", timeout=20_000)
        await see_each_other_type(ada, ben)

        # somebody with View gets no further than the list; a stranger sees the sign-in page and nothing else
        vera_context, vera = await invited(portico, browser, "vera@example.org", "view", "Vera")
        await expect(vera.locator("main")).to_contain_text("rna seq qc")
        response = await vera.goto(address)
        assert response is not None and response.status in (403, 404)
        assert "jp-" not in await vera.content()
        stranger = await (await browser.new_context()).new_page()
        await stranger.goto(address)
        await expect(stranger).to_have_url(re.compile(r"/sign-in"))
        assert "rna seq qc" not in await stranger.content()
        await vera_context.close()

        neighbour = (await portico.add_studio("neighbour"))["sessionId"]
        await portico.until(neighbour, "running")
        await walls_hold(ada, portico, neighbour)

        # three nights
        await ada.evaluate("document.title")
        await run_cell(
            ada,
            "import shutil; shutil.copy('/workspace/" + name + "', '/workspace/diary.ipynb'); print('copied')",
            "copied",
        )
        for number in range(1, 4):
            await portico.stop(session_id)
            await day(portico, ada, session_id, number)
        await ben_context.close()

        # copies: from the second checkpoint, and from the running studio; apart both ways
        rows = sorted(await portico.checkpoints(session_id), key=lambda row: row["id"])
        second = await portico.call(
            "POST",
            f"/studios/{session_id}/fork",
            {"checkpointId": rows[1]["id"], "name": "from-the-second", "start": True},
        )
        running = await portico.call("POST", f"/studios/{session_id}/fork", {"name": "from-now", "start": True})
        ids = [second["studio"]["sessionId"], running["studio"]["sessionId"]]
        for copy in ids:
            await portico.until(copy, "running")
        for copy, wanted in zip(ids, ("1 days", "3 days"), strict=True):
            await ada.goto(portico.studio_url(copy) + "/lab/tree/diary.ipynb?reset")
            await ada.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-CodeCell").first.wait_for(timeout=LOADED)
            await kernel_idle(ada)
            await run_cell(ada, "import glob; print(len(glob.glob('/workspace/day-*')), 'days')", wanted)
            await run_cell(ada, f"open('/workspace/only-{copy}', 'w').write('x'); print('mine')", "mine")
        await ada.goto(portico.studio_url(session_id) + "/lab/tree/diary.ipynb?reset")
        await ada.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-CodeCell").first.wait_for(timeout=LOADED)
        await kernel_idle(ada)
        await run_cell(ada, "import glob; print('strange', glob.glob('/workspace/only-*'))", "strange []")
