"""The folder behind signed URLs: what arrives half, late, twice or on a full disk."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from portico_gateway.errors import BadRequest, Forbidden, Unavailable
from portico_gateway.objects.checksums import crc32c_base64
from portico_gateway.objects.grants import Grants, ObjectGrant
from portico_gateway.objects.incoming import Incoming
from portico_gateway.objects.local_folder import LocalFolder
from portico_gateway.objects.memory import MemoryObjects
from portico_gateway.objects.object_store import GRANT_SECONDS, Presigned, object_key
from portico_gateway.objects.opening import open_store
from portico_gateway.objects.s3 import Bucket, S3Objects
from portico_gateway.settings import Secret, Settings
from portico_shared.checkpoint.digest import name_of
from portico_shared.clock import JumpingClock

LINEAGE = "l" + "0" * 16
CONTENT = os.urandom(3_000_000)
KEY = object_key(LINEAGE, "pack", name_of(CONTENT))


class World:
    def __init__(self, store: LocalFolder, folder: Path, base: str, http: aiohttp.ClientSession) -> None:
        self.store, self.folder, self.base, self.http = store, folder, base, http

    async def grant(self, content: bytes = CONTENT) -> Presigned:
        key = object_key(LINEAGE, "pack", name_of(content))
        return await self.store.presign_put(key, size=len(content), crc32c=crc32c_base64(content))

    async def put(self, signed: Presigned, data: object, **headers: str) -> tuple[int, str]:
        url = URL(self.base + signed.url, encoded=True)
        async with self.http.put(url, data=data, headers={**signed.headers, **headers}) as response:
            return response.status, await response.text()

    def left(self) -> list[str]:
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file())


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    folder = tmp_path / "objects"
    store = LocalFolder(folder, bytes(32), JumpingClock())
    app = web.Application()
    app.add_routes(store.routes())
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession() as http:
        yield World(store, folder, f"http://127.0.0.1:{runner.addresses[0][1]}", http)
    await runner.cleanup()


def pieces(content: bytes) -> AsyncIterator[bytes]:
    async def give() -> AsyncIterator[bytes]:
        for start in range(0, len(content), 100_000):
            yield content[start : start + 100_000]

    return give()


async def test_object_is_stored_under_its_name_readable_by_nobody_else(world: World) -> None:
    assert (await world.put(await world.grant(), pieces(CONTENT)))[0] == 201
    file = world.folder / KEY
    assert file.read_bytes() == CONTENT
    assert file.stat().st_mode & 0o077 == 0 and world.folder.stat().st_mode & 0o077 == 0
    assert world.left() == [KEY]


async def test_cut_upload_leaves_nothing(world: World) -> None:
    async def half() -> AsyncIterator[bytes]:
        yield CONTENT[:1_500_000]
        raise ConnectionResetError

    with pytest.raises((aiohttp.ClientError, ConnectionResetError)):
        await world.put(await world.grant(), half())
    while world.left():  # noqa: ASYNC110 - the server notices the broken connection a moment later
        await asyncio.sleep(0)
    assert await world.store.size(KEY) is None
    assert (await world.put(await world.grant(), pieces(CONTENT)))[0] == 201


async def test_two_at_once_are_one_object(world: World) -> None:
    signed = await world.grant()
    answers = await asyncio.gather(*(world.put(signed, pieces(CONTENT)) for _ in range(4)))
    assert sorted(status for status, _ in answers) == [201, 409, 409, 409]
    assert world.left() == [KEY]


async def test_length_has_to_be_said(world: World) -> None:
    signed = await world.grant()
    url = URL(world.base + signed.url, encoded=True)
    async with world.http.put(url, data=pieces(CONTENT)) as response:
        assert response.status == 400 and "Content-Length" in await response.text()
    assert world.left() == []


async def test_full_disk_is_said_in_words_and_leaves_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Incoming, piece: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Incoming, "write", full)
        status, words = await world.put(await world.grant(), pieces(CONTENT))
    assert status == 507 and "disk that holds the checkpoints is full" in words
    assert world.left() == []
    assert (await world.put(await world.grant(), pieces(CONTENT)))[0] == 201


async def test_full_disk_fails_the_check(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.store.check()
    monkeypatch.setattr("portico_gateway.objects.local_folder.MIN_FREE", 2**62)
    with pytest.raises(Unavailable, match="is full"):
        await world.store.check()


async def test_what_an_earlier_process_left_half_written_goes(world: World, tmp_path: Path) -> None:
    await world.put(await world.grant(), pieces(CONTENT))
    (world.folder / "incoming" / "left").write_bytes(b"half")
    again = LocalFolder(world.folder, bytes(32), JumpingClock())
    await again.check()
    assert world.left() == [KEY]
    assert await again.size(KEY) == len(CONTENT)


async def test_grants_outlive_a_restart_and_another_installation_does_not_know_them(world: World) -> None:
    signed = await world.grant()
    query = dict(URL(signed.url, encoded=True).query)
    assert Grants(bytes(32), JumpingClock()).check("PUT", KEY, query).size == len(CONTENT)
    with pytest.raises(Forbidden):
        Grants(b"1" * 32, JumpingClock()).check("PUT", KEY, query)


async def test_ranges_and_the_end_of_an_object(world: World) -> None:
    await world.put(await world.grant(), pieces(CONTENT))
    url = URL(world.base + (await world.store.presign_get(KEY)).url, encoded=True)
    for asked, status, content in (
        ("bytes=0-9", 206, CONTENT[:10]),
        ("bytes=2999990-4000000", 206, CONTENT[-10:]),
        ("bytes=-5", 206, CONTENT[-5:]),
        ("bytes=9999999-", 416, None),
    ):
        async with world.http.get(url, headers={"Range": asked}) as response:
            assert response.status == status
            assert content is None or await response.read() == content


async def test_other_methods_are_not_answered(world: World) -> None:
    await world.put(await world.grant(), pieces(CONTENT))
    signed = await world.store.presign_get(KEY)
    for method in ("DELETE", "POST", "HEAD"):
        async with world.http.request(method, URL(world.base + signed.url, encoded=True)) as response:
            assert response.status == 405
    assert world.left() == [KEY]


async def test_paths_that_lead_away_are_not_keys(world: World) -> None:
    (world.folder.parent / "secret").write_text("what nobody may read")
    grants = Grants(bytes(32), JumpingClock())
    for path in ("..%2F..%2Fsecret/packs/x", f"{LINEAGE}/..%2F../secret", f"{LINEAGE}/packs/..%2F..%2F..%2Fsecret"):
        query = grants.query(ObjectGrant("GET", KEY))
        url = URL(f"{world.base}/api/agent/v1/objects/{path}?{query}", encoded=True)
        async with world.http.get(url) as response:
            assert response.status in (400, 403, 404) and "nobody may read" not in await response.text()


async def test_broken_grants_are_refused_not_crashed_on() -> None:
    clock = JumpingClock()
    grants = Grants(bytes(32), clock)
    good = dict(URL("?" + grants.query(ObjectGrant("PUT", KEY, 5, "AAAAAA==")), encoded=True).query)
    assert grants.check("PUT", KEY, good) == ObjectGrant("PUT", KEY, 5, "AAAAAA==")
    for change in ({"e": "x"}, {"e": "9" * 30}, {"n": "6"}, {"n": ""}, {"c": "BBBBBB=="}, {"s": ""}, {"s": "é"}):
        with pytest.raises(Forbidden):
            grants.check("PUT", KEY, {**good, **change})
    for name in good:
        with pytest.raises(Forbidden):
            grants.check("PUT", KEY, {key: value for key, value in good.items() if key != name})
    for method in ("GET", "DELETE"):
        with pytest.raises(Forbidden):
            grants.check(method, KEY, good)
    clock.set_wall(clock.now() + GRANT_SECONDS)
    with pytest.raises(Forbidden, match="expired"):
        grants.check("PUT", KEY, good)
    with pytest.raises(ValueError, match="32 bytes"):
        Grants(b"short", clock)


def test_settings_name_the_store(tmp_path: Path) -> None:
    clock = JumpingClock()
    assert isinstance(open_store(Settings(data=tmp_path), bytes(32), clock), LocalFolder)
    keys = {"s3_access_key": Secret("a"), "s3_secret_key": Secret("b"), "s3_endpoint": "http://127.0.0.1:1"}
    assert isinstance(open_store(Settings(store="s3://bucket", **keys), bytes(32), clock), S3Objects)  # type: ignore[arg-type]
    for wrong in ("gs://bucket", "/some/folder", "s3://", "s3:///x"):
        with pytest.raises(BadRequest):
            open_store(Settings(store=wrong, **keys), bytes(32), clock)  # type: ignore[arg-type]
    assert Bucket.parse("s3://b/some/prefix/") == Bucket("b", "some/prefix/")
    assert MemoryObjects(clock).objects == {}
