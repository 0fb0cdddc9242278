"""A person in front of JupyterLab, in a real Chromium: what they click and type, and what they see."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

from playwright.async_api import Browser, Locator, Page, async_playwright

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
LOADED = 90_000
"""Milliseconds JupyterLab may take on a slow machine until its launcher or notebook shows."""


@contextlib.asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A headless Chromium; each person gets a context of their own in it (`browser.new_context()`)."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield browser
        finally:
            await browser.close()


async def new_notebook(page: Page) -> str:
    """From the launcher: a new notebook with the default kernel. Returns its path."""
    card = page.locator('.jp-LauncherCard[data-category="Notebook"]').first
    await card.wait_for(timeout=LOADED)
    await card.click()
    await page.locator(".jp-Notebook .jp-CodeCell").first.wait_for(timeout=LOADED)
    await kernel_idle(page)
    title = await page.locator(".lm-TabBar-tab.jp-mod-current .lm-TabBar-tabLabel").first.inner_text()
    return title.strip()


async def kernel_idle(page: Page) -> None:
    """Wait until the notebook's kernel is there and idle."""
    await page.locator(
        '.jp-NotebookPanel:not(.lm-mod-hidden) .jp-Notebook-ExecutionIndicator[data-status="idle"]'
    ).first.wait_for(timeout=LOADED)


async def run_cell(page: Page, code: str, expect: str, seconds: float = 120) -> str:
    """Type `code` into the last cell, run it, and wait until its output contains `expect`. Returns the output."""
    cells = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Notebook .jp-CodeCell")
    await no_dialog(page)
    number = await _typed(page, cells, code)
    await _started(page, cells.nth(number))
    deadline = time.monotonic() + seconds
    text = ""
    while time.monotonic() < deadline:
        text = await cells.nth(number).locator(".jp-OutputArea").inner_text()
        if expect in text:
            return text
        await asyncio.sleep(0.2)
    await screenshot(page, "failed-cell")
    raise AssertionError(f"{code!r}: no {expect!r} in the output within {seconds} s, but: {text[-2000:]!r}")


async def no_dialog(page: Page) -> None:
    """Fails with its words when JupyterLab asks something that a person would have to answer first."""
    dialog = page.locator(".jp-Dialog")
    if await dialog.count():
        await screenshot(page, "unexpected-dialog")
        raise AssertionError(f"JupyterLab asks: {await dialog.first.inner_text()!r}")


async def _typed(page: Page, cells: Locator, code: str) -> int:
    """Type into the last cell, again if the shared document was still on its way and took the words with it."""
    for _ in range(5):
        number = await cells.count() - 1
        editor = cells.nth(number).locator(".cm-content")
        await editor.click()
        await page.keyboard.press("Control+a")
        await page.keyboard.insert_text(code)
        await asyncio.sleep(0.3)
        shown = "".join((await editor.inner_text()).split())
        if shown == "".join(code.split()):
            return number
    raise AssertionError(f"the cell does not keep what is typed: {code!r}, but {shown!r}")


async def _started(page: Page, cell: Locator) -> None:
    """Press Shift+Enter until the cell has run or is running."""
    for _ in range(5):
        await cell.locator(".cm-content").click()
        await page.keyboard.press("Shift+Enter")
        for _ in range(25):
            if (await cell.locator(".jp-InputPrompt").inner_text()).strip("[]: ") != "":
                return
            await asyncio.sleep(0.2)
    await screenshot(page, "failed-start")
    raise AssertionError("the cell does not start to run")


async def screenshot(page: Page, name: str) -> Path:
    """Keep a picture under build/screenshots, for eyes."""
    folder = Path(__file__).resolve().parents[2] / "build" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.png"
    await page.screenshot(path=str(file))
    return file
