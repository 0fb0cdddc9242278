"""A person in front of JupyterLab, in a real Chromium: what they click and type, and what they see."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

from playwright.async_api import Browser, Page, async_playwright

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
    editor = cells.last.locator(".cm-content")
    await editor.click()
    await page.keyboard.insert_text(code)
    before = await cells.count()
    await page.keyboard.press("Shift+Enter")
    deadline = time.monotonic() + seconds
    text = ""
    while time.monotonic() < deadline:
        text = await cells.nth(before - 1).locator(".jp-OutputArea").inner_text() if before else ""
        if expect in text:
            return text
        await asyncio.sleep(0.2)
    raise AssertionError(f"{code!r}: no {expect!r} in the output within {seconds} s, but: {text[-2000:]!r}")


async def screenshot(page: Page, name: str) -> Path:
    """Keep a picture under build/screenshots, for eyes."""
    folder = Path(__file__).resolve().parents[2] / "build" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.png"
    await page.screenshot(path=str(file))
    return file
