"""kill -9 of what runs inside a studio, one at a time: what goes on, what is said, what is saved, what is left."""

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from portico_shared.tasks import spawn
from support.jupyter_rest import Jupyter
from support.portico import Portico, running_portico
from support.pulse import Pulse
from support.studio_processes import (
    StudioProcesses,
    checkpoint,
    checkpoint_reasons,
    newest_heads,
    newest_run,
    nothing_left,
    until,
    watching,
)

pytestmark = [
    pytest.mark.root,
    pytest.mark.system,
    pytest.mark.timeout(300),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(os.geteuid() != 0 and "CI" not in os.environ, reason="needs root for namespaces and mounts"),
]
MIB = 1024**2
QUOTA = 300 * MIB
TRUTH_SECONDS = 60.0
TICKS = """
import time
with open('/workspace/ticks', 'a', buffering=1) as file:
    for number in range({count}):
        file.write(f'{{time.time():.2f}}\\n')
        time.sleep(0.2)
print('ticked', {count})
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def portico() -> AsyncIterator[Portico]:
    async with running_portico({"PORTICO_STUDIO_QUOTA": str(QUOTA)}) as portico:
        yield portico


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def added(portico: Portico) -> str:
    """The one studio of these tests."""
    return str((await portico.add_studio("to be hit"))["sessionId"])


@pytest_asyncio.fixture(loop_scope="module")
async def studio(portico: Portico, added: str) -> str:
    """It runs and its first checkpoint is made, whatever the test before has left."""
    if (await portico.describe(added))["statusInfo"]["status"] in ("stopped", "errored"):
        await portico.start(added)
    else:
        await portico.until(added, "running")
    run, _ = newest_run(portico.data, added)
    await until(lambda: "start" in checkpoint_reasons(portico.data, run).values(), "the first checkpoint", 60)
    return added


async def test_a_killed_agent_comes_back_and_adopts_the_tool_while_a_cell_goes_on(
    portico: Portico, studio: str, record_property: Callable[[str, object], None]
) -> None:
    sandbox = StudioProcesses.of(portico, studio)
    agent, tool = sandbox.agent, sandbox.tool
    async with Jupyter.at(portico, studio) as jupyter:
        kernel = await jupyter.start_kernel()
        await kernel.run("pass")
        await kernel.begin(TICKS.format(count=40))
        await asyncio.sleep(1)
        async with watching(portico, studio) as seen, Pulse.of(portico, studio) as pulse:
            sandbox.kill(agent)
            back = await until(lambda: sandbox.agent not in (0, agent), "another agent", 10)
            serving = back + await pulse.next_good()
            assert sandbox.tool == tool
            saved = await checkpoint(portico, studio)
        record_property("agent back after", back)
        record_property("requests served again after", serving)
        assert serving < 5
        assert seen == {"running"}
        assert saved["status"] == "finalized"
        await kernel.connect()  # the tunnel of the old socket died with the agent
        assert "here" in await kernel.run("print('here')")  # queued behind the cell, which has ended now
        assert sandbox.tool == tool
        ticks = [float(line) for line in (await jupyter.read("ticks")).split()]
        gaps = [after - before for before, after in itertools.pairwise(ticks)]
        record_property("longest pause of the cell", max(gaps))
        assert len(ticks) == 40 and max(gaps) < 1.5
        await kernel.shut_down()


async def test_a_killed_tool_ends_the_studio_in_words_and_nothing_is_lost(
    portico: Portico, studio: str, record_property: Callable[[str, object], None]
) -> None:
    sandbox = StudioProcesses.of(portico, studio)
    async with Jupyter.at(portico, studio) as jupyter:
        await jupyter.write("before-the-tool-died", "still here")
    began = time.monotonic()
    sandbox.kill(sandbox.tool)
    ended = await portico.until_errored(studio, seconds=TRUTH_SECONDS)
    record_property("errored after", time.monotonic() - began)
    assert ended["statusInfo"]["message"].startswith("The tool ended (killed by SIGKILL")
    assert "stop" in checkpoint_reasons(portico.data, sandbox.run_id).values()
    await nothing_left(portico, sandbox)
    await portico.start(studio)
    async with Jupyter.at(portico, studio) as jupyter:
        assert await jupyter.read("before-the-tool-died") == "still here"


async def test_a_killed_init_ends_the_run_and_its_changes_are_salvaged_at_the_next_start(
    portico: Portico, studio: str, record_property: Callable[[str, object], None]
) -> None:
    sandbox = StudioProcesses.of(portico, studio)
    async with Jupyter.at(portico, studio) as jupyter:
        await checkpoint(portico, studio)
        await jupyter.write("after-the-last-checkpoint", "not lost")
    heads = newest_heads(portico.data, studio)
    began = time.monotonic()
    sandbox.kill(sandbox.init)
    ended = await portico.until_errored(studio, seconds=TRUTH_SECONDS)
    record_property("errored after", time.monotonic() - began)
    assert "unexpectedly" in ended["statusInfo"]["message"] and "kept" in ended["statusInfo"]["message"]
    await nothing_left(portico, sandbox)
    assert newest_heads(portico.data, studio) == heads  # nothing could be saved any more, so the volume was kept
    assert (portico.data / "volumes" / studio / "volume.img").exists()

    starting = spawn(portico.start(studio), name="start")
    run = ""

    def salvaged() -> bool:
        nonlocal run
        run, _ = newest_run(portico.data, studio)
        return run != sandbox.run_id and "salvage" in checkpoint_reasons(portico.data, run).values()

    record_property("salvaged after", await until(salvaged, "a salvage checkpoint", 60))
    await starting
    async with Jupyter.at(portico, studio) as jupyter:
        assert await jupyter.read("after-the-last-checkpoint") == "not lost"


async def test_a_full_disk_is_said_in_words_and_room_made_again_is_enough(
    portico: Portico, studio: str, record_property: Callable[[str, object], None]
) -> None:
    sandbox = StudioProcesses.of(portico, studio)
    fill = (
        "import os\n"
        "with open('/workspace/filler', 'wb', buffering=0) as file:\n"
        "    while True:\n"
        "        file.write(os.urandom(1 << 20))\n"
    )
    async with Jupyter.at(portico, studio) as jupyter, watching(portico, studio) as seen:
        kernel = await jupyter.start_kernel()
        assert "No space left on device" in await kernel.run(fill, seconds=120)
        status, text = await jupyter.try_write("one-more", "x" * (MIB - 1000))
        assert status >= 500 and "space" in text.lower()
        row = await checkpoint(portico, studio, seconds=120)
        record_property("a checkpoint of the full disk is", row["status"])
        assert row["status"] == "finalized"
        assert "disk is nearly full" in (await warning(portico, studio))
        assert "42" in await kernel.run("6 * 7")
        await kernel.shut_down()
    assert seen == {"running"}
    assert sandbox.tool
    await portico.stop(studio)  # still full: its last checkpoint, and the start from it, need no room either
    await nothing_left(portico, sandbox)
    await portico.start(studio)
    async with Jupyter.at(portico, studio) as jupyter:
        assert "filler" in await jupyter.names()
        await jupyter.call("DELETE", "/api/contents/filler")
        began = time.monotonic()
        while (await jupyter.try_write("one-more", "there is room"))[0] >= 300:
            assert time.monotonic() - began < 15
            await asyncio.sleep(0.1)
        record_property("room again after", time.monotonic() - began)
        assert await jupyter.read("one-more") == "there is room"
        assert (await checkpoint(portico, studio))["status"] == "finalized"


async def warning(portico: Portico, session_id: str, seconds: float = 40) -> str:
    """What is said beside the status of a running studio, as soon as something is."""
    deadline = time.monotonic() + seconds
    while not (words := str((await portico.describe(session_id))["statusInfo"]["message"] or "")):
        assert time.monotonic() < deadline, "nothing was said"
        await asyncio.sleep(0.2)
    return words
