"""kill -9 of the gateway's own processes, one at a time: studios, open tabs and sign-ins outlive them."""

import asyncio
import os
import secrets
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from support.jupyter_rest import Jupyter
from support.portico import Portico, mounts_and_loops, running_portico
from support.pulse import Pulse
from support.studio_processes import (
    StudioProcesses,
    checkpoint,
    checkpoint_reasons,
    newest_run,
    nothing_left,
    until,
    watching,
)
from support.visitor import Visitor

pytestmark = [
    pytest.mark.root,
    pytest.mark.system,
    pytest.mark.timeout(300),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(os.geteuid() != 0 and "CI" not in os.environ, reason="needs root for namespaces and mounts"),
]
CONTROL, WORKER = "portico_gateway.control", "portico_gateway.worker"
TICKS = "import time\nfor n in range({count}):\n    print(n, flush=True)\n    time.sleep(0.2)\nprint('done')"
Property = Callable[[str, object], None]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def portico() -> AsyncIterator[Portico]:
    async with running_portico() as portico:
        yield portico


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def added(portico: Portico) -> str:
    """The one studio of these tests."""
    return str((await portico.add_studio("lives on"))["sessionId"])


@pytest_asyncio.fixture(loop_scope="module")
async def studio(portico: Portico, added: str) -> str:
    """It runs, whatever the test before has left."""
    if (await portico.describe(added))["statusInfo"]["status"] in ("stopped", "errored"):
        await portico.start(added)
    await portico.until(added, "running")
    return added


def hit(portico: Portico, module: str) -> int:
    """kill -9 of this Portico's own process that runs `module`. Returns its pid."""
    (pid,) = portico.pids(module)
    os.kill(pid, signal.SIGKILL)
    return pid


async def another(portico: Portico, module: str, old: int) -> float:
    """Seconds until a process in place of `old` is there."""
    return await until(lambda: portico.pids(module) not in ([], [old]), f"another {module}", 20)


async def test_a_killed_edge_worker_is_replaced_and_nobody_signs_in_again(
    portico: Portico, studio: str, record_property: Property
) -> None:
    sandbox = StudioProcesses.of(portico, studio)
    tool = sandbox.tool
    ada = Visitor(portico)
    await ada.take_first_link()
    where, status, _ = await ada.open(portico.studio_url(studio) + "/lab")
    assert (where, status) == (portico.studio_url(studio) + "/lab", 200)
    async with watching(portico, studio) as seen, Pulse.of(portico, studio) as pulse:
        began = time.monotonic()
        old = hit(portico, WORKER)
        queued = await asyncio.to_thread(knock, portico)  # while nobody accepts
        again = await another(portico, WORKER, old)
        good = await pulse.next_good()
        record_property("worker back after", again)
        record_property("requests served again after", again + good)
        assert b" 200 " in await asyncio.to_thread(answer, queued)
        record_property("a connection made meanwhile answered after", time.monotonic() - began)
        assert time.monotonic() - began < 10
    record_property("longest gap", pulse.longest_gap)
    assert await ada.fetch(portico.studio_url(studio) + "/api/status") == 200  # the studio's cookie
    assert (await ada.open(portico.base + "/account"))[:2] == (portico.base + "/account", 200)  # the sign-in
    assert seen == {"running"}
    assert sandbox.tool == tool
    assert (await checkpoint(portico, studio))["status"] == "finalized"


def knock(portico: Portico) -> socket.socket:
    """A connection into the listening queue, with a request on it."""
    made = socket.create_connection(("127.0.0.1", portico.port), 5)
    made.sendall(f"GET /healthz HTTP/1.1\r\nHost: {portico.host}\r\nConnection: close\r\n\r\n".encode())
    return made


def answer(waiting: socket.socket) -> bytes:
    with waiting:
        waiting.settimeout(20)
        return waiting.makefile("rb").readline()


async def test_a_killed_control_leaves_open_tabs_alone_and_adopts_the_run(
    portico: Portico, studio: str, record_property: Property
) -> None:
    sandbox = StudioProcesses.of(portico, studio)
    tool = sandbox.tool
    async with Jupyter.at(portico, studio) as jupyter:
        kernel = await jupyter.start_kernel()
        await kernel.run("pass")
        cell = await kernel.begin(TICKS.format(count=40))
        async with watching(portico, studio) as seen, Pulse.of(portico, studio) as pulse:
            old = hit(portico, CONTROL)
            record_property("control back after", await another(portico, CONTROL, old))
            began = time.monotonic()
            await portico.ready()
            record_property("ready again after", time.monotonic() - began)
            said = await kernel.output(cell)  # the WebSocket never broke
            assert said.split() == [*map(str, range(40)), "done"]
            await pulse.next_good()
        record_property("requests meanwhile", dict(pulse.answers))
        record_property("longest gap", pulse.longest_gap)
        assert set(pulse.answers) == {"200"}
        assert seen == {"running"}
        assert newest_run(portico.data, studio)[0] == sandbox.run_id
        assert sandbox.tool == tool
        await jupyter.write("after-control-died", "kept")
        await kernel.shut_down()
    await portico.stop(studio)
    assert "stop" in checkpoint_reasons(portico.data, sandbox.run_id).values()
    await nothing_left(portico, sandbox)
    await portico.start(studio)
    async with Jupyter.at(portico, studio) as jupyter:
        assert await jupyter.read("after-control-died") == "kept"


async def test_control_killed_twice_in_a_row_still_tells_the_truth_and_is_heard(
    portico: Portico, studio: str, record_property: Property
) -> None:
    sandbox = StudioProcesses.of(portico, studio)
    agent, tool = sandbox.agent, sandbox.tool
    async with watching(portico, studio) as seen, Pulse.of(portico, studio) as pulse:
        for _ in range(2):
            old = hit(portico, CONTROL)  # the second time before agent and broker have found each other again
            await another(portico, CONTROL, old)
        began = time.monotonic()
        await portico.ready()
        record_property("ready again after", time.monotonic() - began)
        assert (await portico.describe(studio))["statusInfo"]["status"] == "running"
        row = await checkpoint(portico, studio, seconds=30)
        assert row["status"] == "finalized"
        record_property("a command was obeyed after", time.monotonic() - began)
        await asyncio.sleep(3)  # a last will that came late would be told by now
    assert set(pulse.answers) == {"200"}
    assert seen == {"running"}
    assert (sandbox.agent, sandbox.tool) == (agent, tool)


async def test_a_killed_supervisor_takes_its_children_along_and_the_next_one_adopts_the_studio(
    portico: Portico, studio: str, record_property: Property
) -> None:
    sandbox = StudioProcesses.of(portico, studio)
    agent, tool = sandbox.agent, sandbox.tool
    async with Jupyter.at(portico, studio) as jupyter:
        name = f"before-{secrets.token_hex(4)}"
        await jupyter.write(name, "still here")
    began = time.monotonic()
    portico.process.kill()
    await asyncio.to_thread(portico.process.wait)
    await until(lambda: not portico.pids(CONTROL) and not portico.pids(WORKER), "the end of its children", 60)
    record_property("children ended after", time.monotonic() - began)
    assert (sandbox.agent, sandbox.tool) == (agent, tool)
    began = time.monotonic()
    await portico.up_again()
    record_property("a second portico up ready after", time.monotonic() - began)
    async with watching(portico, studio) as seen, Pulse.of(portico, studio) as pulse:
        await pulse.next_good()
        record_property("studio served again after", time.monotonic() - began)
        async with Jupyter.at(portico, studio) as jupyter:
            assert await jupyter.read(name) == "still here"
        assert (await checkpoint(portico, studio))["status"] == "finalized"
    assert seen == {"running"}
    assert newest_run(portico.data, studio)[0] == sandbox.run_id
    assert (sandbox.agent, sandbox.tool) == (agent, tool)

    began = time.monotonic()
    portico.process.send_signal(signal.SIGINT)
    assert await asyncio.to_thread(portico.process.wait, 60) == 0
    record_property("Ctrl-C took", time.monotonic() - began)
    assert "stop" in checkpoint_reasons(portico.data, sandbox.run_id).values()
    await nothing_left(portico, sandbox)
    assert not mounts_and_loops(portico.data)
    assert not portico.pids(CONTROL) and not portico.pids(WORKER)
