"""Portico over an S3 server on another host: everyday life, the server's absence, and no key of it near any studio."""

import asyncio
import os
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from portico_gateway.compute.local.processes import descendants
from support import s3_search
from support.jupyter_rest import Jupyter
from support.portico import Portico, running_portico
from support.s3_host import PREFIX, RemoteS3, remote_s3
from support.studio_processes import StudioProcesses

pytestmark = [
    pytest.mark.root,
    pytest.mark.system,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.geteuid() != 0 and "CI" not in os.environ, reason="needs root for namespaces and mounts"),
]
CHAIN = {
    "AWS_ACCESS_KEY_ID": "PTCCHAIN" + secrets.token_hex(6).upper(),
    "AWS_SECRET_ACCESS_KEY": "ptcchain" + secrets.token_hex(20),
}
"""Keys of the usual chain, which the shell that starts Portico may hold: nobody's business in a studio either."""


@pytest.fixture
def s3() -> Iterator[RemoteS3]:
    with remote_s3() as server:
        yield server


# --- life over S3 -----------------------------------------------------------------------------------------------------


async def test_studios_live_over_s3_and_never_hold_its_keys(s3: RemoteS3) -> None:
    async with running_portico({**s3.environment, **CHAIN}) as portico:
        session_id = (await portico.add_studio("over-s3"))["sessionId"]
        await portico.until(session_id, "running")
        async with Jupyter.at(portico, session_id) as jupyter:
            await jupyter.write("notes.txt", "kept in a bucket")
            made, seen = await checkpoint_watched(portico, session_id, keys_of(s3))
            assert seen == {"the checkpoint process, and no key in it"}
            await keys_are_nowhere(portico, session_id, jupyter, s3)

        await portico.stop(session_id)
        assert not (portico.data / "volumes" / session_id).exists(), "what comes back comes from the bucket"
        lineage = str(made["path"]).partition("/")[0]
        kinds = {kind: f"{re.escape(f'{PREFIX}/{lineage}/{kind}')}/[0-9a-f]{{64}}" for kind in ("packs", "heads")}
        keys = s3.keys()
        assert all(re.fullmatch("|".join(kinds.values()), key) for key in keys)
        assert all(any(re.fullmatch(pattern, key) for key in keys) for pattern in kinds.values())
        assert not list((portico.data / "objects").glob("**/packs/*")), "nothing went to the folder instead"

        await portico.start(session_id)
        assert await read(portico, session_id, "notes.txt") == "kept in a bucket"
        await write(portico, session_id, "notes.txt", "changed since")
        fork = await portico.call(
            "POST",
            f"/studios/{session_id}/fork",
            {"checkpointId": made["id"], "name": "from the checkpoint", "start": True},
        )
        copy = fork["studio"]["sessionId"]
        await portico.until(copy, "running")
        assert await read(portico, copy, "notes.txt") == "kept in a bucket"
        assert await read(portico, session_id, "notes.txt") == "changed since"


async def keys_are_nowhere(portico: Portico, session_id: str, jupyter: Jupyter, s3: RemoteS3) -> None:
    """The real keys, and one that a user of the studio left everywhere: the search finds that one alone, and finds the
    secret in control's memory, where it belongs."""
    studio = StudioProcesses.of(portico, session_id)
    mark = "ptcplanted" + secrets.token_hex(20)
    wanted = {**keys_of(s3), "the planted key": mark}
    hidden = {name: key for name, key in wanted.items() if name != "the access key"}  # that one is in every signed URL
    kernel = await jupyter.start_kernel()
    try:
        await jupyter.write("scratch.txt", f"key = {mark}")
        planted = f"import subprocess; subprocess.Popen(['sleep', '600'], env={{'KEY': {mark!r}}}); "
        planted += f"subprocess.Popen(['sh', '-c', 'sleep 600', {mark!r}]); print('left')"
        assert "left" in await kernel.run(planted)
        inside = [studio.init, *descendants(studio.init)]
        assert {studio.init, studio.agent, studio.tool} <= set(inside)
        data = [entry for entry in portico.data.iterdir() if entry.name != "volumes"]
        assert portico.data / "runs" in data
        found = [
            *s3_search.in_processes(inside, wanted),
            *s3_search.in_memory(inside, hidden),
            *s3_search.in_files([*s3_search.studio_places(studio.init, studio.tool), *data], wanted),
        ]
    finally:
        await kernel.shut_down()
    places = {line for line in found if line.startswith("the planted key")}
    assert set(found) == places, set(found) - places
    for kind in ("in environ of", "in cmdline of", "in the memory of", "/portico/volume/", "/workspace/scratch.txt"):
        assert any(kind in place for place in places), f"the search does not find what lies {kind}"
    control, edge = portico.pids("portico_gateway.control"), portico.pids("portico_gateway.worker")
    assert control and edge
    del hidden["the planted key"]  # what people do in a studio goes through the edge
    assert s3_search.in_processes(edge, wanted) + s3_search.in_memory(edge, hidden) == []
    assert f"the secret key in the memory of {control[0]}" in s3_search.in_memory(control, hidden)


async def checkpoint_watched(
    portico: Portico, session_id: str, keys: s3_search.Keys
) -> tuple[dict[str, Any], set[str]]:
    """A checkpoint, with the process that makes it searched while it is there."""
    studio, seen = StudioProcesses.of(portico, session_id), set[str]()
    making = asyncio.ensure_future(checkpoint(portico, session_id, "by hand"))
    while not making.done():
        for pid in descendants(studio.init):
            if b"portico_agent.checkpoint" in cmdline(pid):
                found = s3_search.in_processes([pid], keys)
                seen |= set(found) or {"the checkpoint process, and no key in it"}
        await asyncio.sleep(0.01)
    return making.result(), seen


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def keys_of(s3: RemoteS3) -> dict[str, str]:
    names = {"the access key of the chain": "AWS_ACCESS_KEY_ID", "the secret of the chain": "AWS_SECRET_ACCESS_KEY"}
    return {
        "the access key": s3.access_key,
        "the secret key": s3.secret_key,
        **{words: CHAIN[name] for words, name in names.items()},
    }


# --- S3 away ----------------------------------------------------------------------------------------------------------


async def test_absent_s3_costs_no_work_and_is_told(s3: RemoteS3) -> None:
    settings = {**s3.environment, "PORTICO_STORE_PATIENCE": "2"}
    async with running_portico(settings) as portico:
        session_id = (await portico.add_studio("patient"))["sessionId"]
        await portico.until(session_id, "running")
        await away_during_a_run(portico, session_id, s3)
        await away_at_the_stop(portico, session_id, s3)
        await away_at_the_start(portico, session_id, s3)


async def away_during_a_run(portico: Portico, session_id: str, s3: RemoteS3) -> None:
    """A checkpoint fails in words, people go on, what is saved shows its age; the next one after it works."""
    await write(portico, session_id, "work.txt", "before")
    before = await checkpoint(portico, session_id, "before")
    assert before["status"] == "finalized"
    saved = (await portico.describe(session_id))["lastCheckpoint"]
    s3.away()
    await write(portico, session_id, "work.txt", "while it is away")
    failed = await checkpoint(portico, session_id, "while away")
    assert failed["status"] == "invalid"
    studio = await portico.describe(session_id)
    assert studio["statusInfo"]["status"] == "running"
    assert "does not answer" in studio["statusInfo"]["message"], studio["statusInfo"]
    assert studio["lastCheckpoint"] == saved, "it does not look saved when it is not"
    assert await read(portico, session_id, "work.txt") == "while it is away"
    s3.back()
    assert (await checkpoint(portico, session_id, "back"))["status"] == "finalized"
    studio = await until_message(portico, session_id, "")
    assert studio["lastCheckpoint"] > saved


async def away_at_the_stop(portico: Portico, session_id: str, s3: RemoteS3) -> None:
    """What could not be saved stays on the disk, said so, and is saved at the next start."""
    await write(portico, session_id, "work.txt", "the last hour")
    s3.away()
    rows = {row["id"] for row in await portico.checkpoints(session_id)}
    await portico.call("PUT", f"/studios/{session_id}/stop?workspaceId={await portico.workspace()}")
    assert (await until_message(portico, session_id, "does not answer"))["statusInfo"]["status"] == "stopping"
    stopped = await portico.until(session_id, "stopped", seconds=60)
    assert "kept" in stopped["statusInfo"]["message"], stopped["statusInfo"]
    assert (portico.data / "volumes" / session_id).exists()
    s3.back()
    await portico.start(session_id)
    assert await read(portico, session_id, "work.txt") == "the last hour"
    salvaged = [row for row in await portico.checkpoints(session_id) if row["id"] not in rows]
    assert any(row["status"] in ("interim", "finalized") for row in salvaged), salvaged


async def away_at_the_start(portico: Portico, session_id: str, s3: RemoteS3) -> None:
    """A start that cannot fetch its checkpoint says so and costs nothing."""
    assert (await until_message(portico, session_id, ""))["statusInfo"]["status"] == "running"
    await portico.stop(session_id)
    s3.away()
    await portico.call("PUT", f"/studios/{session_id}/start?workspaceId={await portico.workspace()}", {})
    errored = await portico.until(session_id, "errored", seconds=60)
    assert "does not answer" in errored["statusInfo"]["message"], errored["statusInfo"]
    s3.back()
    await portico.start(session_id)
    assert await read(portico, session_id, "work.txt") == "the last hour"


async def until_message(portico: Portico, session_id: str, words: str, seconds: float = 20) -> dict[str, Any]:
    """The studio, once its status message has these words (is empty: '')."""
    deadline = time.monotonic() + seconds
    while True:
        studio = await portico.describe(session_id)
        message = studio["statusInfo"]["message"] or ""
        if words in message if words else not message:
            return studio
        assert time.monotonic() < deadline, f"its message is still {message!r}"
        await asyncio.sleep(0.1)


# --- small things -----------------------------------------------------------------------------------------------------


async def checkpoint(portico: Portico, session_id: str, name: str, *, seconds: float = 60) -> dict[str, Any]:
    """One made on request; returned once it is saved and sealed, or has failed."""
    path = f"/studios/{session_id}/checkpoints?workspaceId={await portico.workspace()}"
    made = await portico.call("POST", path, {"name": name})
    deadline = time.monotonic() + seconds
    while True:
        row = next(each for each in await portico.checkpoints(session_id) if each["id"] == made["id"])
        if row["status"] in ("finalized", "invalid"):
            return row
        assert time.monotonic() < deadline, f"checkpoint {name} is still {row}"
        await asyncio.sleep(0.2)


async def read(portico: Portico, session_id: str, name: str) -> str:
    async with Jupyter.at(portico, session_id) as jupyter:
        return await jupyter.read(name)


async def write(portico: Portico, session_id: str, name: str, text: str) -> None:
    async with Jupyter.at(portico, session_id) as jupyter:
        await jupyter.write(name, text)
