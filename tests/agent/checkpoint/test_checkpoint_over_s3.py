"""Whole jobs in their child process with S3 as the store: the agent speaks to S3 itself, by presigned URLs alone."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from portico_agent.checkpoint.engine import run_capture, run_restore
from portico_gateway.objects.s3 import S3Objects
from support.catalogue_world import catalogue_world
from support.checkpoint_store import Jobs, serve
from support.nasty_tree import differences, look
from support.s3_servers import ACCESS_KEY, SECRET_KEY, S3Server, moto_server, rclone_server

LINEAGE = "l" + "0" * 16


@pytest.fixture(params=["moto", "rclone"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[S3Server]:
    with moto_server() if request.param == "moto" else rclone_server(tmp_path) as running:
        yield running


async def test_checkpoint_goes_to_s3_and_comes_back(server: S3Server, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    upper = volume / "current" / "upper"
    upper.mkdir(parents=True)
    dice = random.Random(1)
    (upper / "large").write_bytes(dice.randbytes(20 * 2**20))
    for number in range(50):
        (upper / f"f{number}").write_bytes(dice.randbytes(number * 100))
    objects = S3Objects.from_settings(server.settings(f"data/{os.urandom(4).hex()}"))
    async with catalogue_world(tmp_path, objects) as world:
        run = await world.run(await world.studio("s", LINEAGE))
        async with serve(world, run) as address:
            jobs = Jobs(run, volume, address)
            first = await run_capture(jobs.capture())
            assert first.ok, first.error
            (upper / "new").write_text("x")
            second = await run_capture(jobs.capture())
            assert second.ok and second.uploaded_bytes < 10_000, second
            point = await world.catalogue.restore_point(run.session_id, None)
            assert point is not None and len(point.fallbacks) == 1
            restored = await run_restore(jobs.restore(point, target=str(tmp_path / "back")))
            assert restored.ok and not restored.notes, restored
        assert differences(look(upper), look(tmp_path / "back" / "upper")) == []
        for path in volume.rglob("checkpoint.*"):
            content = path.read_bytes()
            assert ACCESS_KEY.encode() not in content and SECRET_KEY.encode() not in content
        await world.end(run)
        await world.catalogue.forget(run.session_id)
        assert [found async for found in objects.list_objects(f"{LINEAGE}/")] == []
