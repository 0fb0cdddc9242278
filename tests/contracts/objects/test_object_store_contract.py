"""What every object store promises, asked of each: in memory, in a folder, in S3.

A *refusal* counts only against a store that enforces it, so each store says which it does (`ENFORCED`); moto takes
unsigned requests and rclone overwrites, which no test here may hide.
"""

import datetime
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from portico_gateway.errors import BadRequest, Unavailable
from portico_gateway.objects.checksums import crc32c_base64
from portico_gateway.objects.local_folder import LocalFolder
from portico_gateway.objects.memory import MemoryObjects
from portico_gateway.objects.object_store import GRANT_SECONDS, ObjectStore, Presigned, object_key
from portico_gateway.objects.s3 import S3Objects
from portico_shared.checkpoint.digest import name_of
from portico_shared.clock import JumpingClock
from support.s3_servers import moto_server, rclone_server

LINEAGE = "l" + "0" * 16
Send = Callable[[Presigned, bytes], Awaitable[tuple[int, bytes]]]

SIGNED = frozenset({"unsigned", "tampered", "other key", "other method", "wrong length", "other checksum", "expired"})
ENFORCED = {
    "memory": SIGNED | {"overwrite", "wrong content", "wrong name"},
    "folder": SIGNED | {"overwrite", "wrong content", "wrong name"},
    "moto": frozenset({"overwrite"}),
    "rclone": SIGNED,
}


@dataclass
class World:
    kind: str
    store: ObjectStore
    send: Send
    old_grants: Callable[[bytes, str], Awaitable[tuple[Presigned, Presigned]]]
    """To put this content and to read this key, both older than grants count."""

    async def put(self, content: bytes) -> str:
        key = key_of(content)
        signed = await self.store.presign_put(key, size=len(content), crc32c=crc32c_base64(content))
        status, words = await self.send(signed, content)
        assert status in (200, 201), words
        return key


def key_of(content: bytes) -> str:
    return object_key(LINEAGE, "pack", name_of(content))


@pytest.fixture(scope="session")
def moto() -> Iterator[object]:
    with moto_server() as server:
        yield server


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    with rclone_server(tmp_path_factory.mktemp("rclone")) as server:
        yield server


@pytest.fixture(params=sorted(ENFORCED))
async def world(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    clock = JumpingClock()

    def aging(store: ObjectStore) -> Callable[[bytes, str], Awaitable[tuple[Presigned, Presigned]]]:
        async def old_grants(content: bytes, key: str) -> tuple[Presigned, Presigned]:
            grants = await put_grant(store, content), await store.presign_get(key)
            await clock.jump(GRANT_SECONDS)
            return grants

        return old_grants

    if request.param == "memory":
        memory = MemoryObjects(clock)

        async def send(signed: Presigned, body: bytes) -> tuple[int, bytes]:
            return memory.send(signed.method, signed.url, body, _span(signed))

        yield World("memory", memory, send, aging(memory))
        return
    async with aiohttp.ClientSession(auto_decompress=False) as http:
        if request.param == "folder":
            folder = LocalFolder(tmp_path / "objects", os.urandom(32), clock)
            async with _served(folder) as base:
                yield World("folder", folder, _sender(http, base), aging(folder))
            return
        server = request.getfixturevalue(request.param)
        objects = S3Objects.from_settings(server.settings(f"some/{os.urandom(4).hex()}"))

        async def old_grants(content: bytes, key: str) -> tuple[Presigned, Presigned]:
            """Signed as if long ago: the server's clock is not ours to move."""
            old = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=GRANT_SECONDS + 60)
            with monkeypatch.context() as patch:
                patch.setattr("botocore.auth.get_current_datetime", lambda remove_tzinfo=True: old.replace(tzinfo=None))
                return await put_grant(objects, content), await objects.presign_get(key)

        yield World(request.param, objects, _sender(http, ""), old_grants)


async def put_grant(store: ObjectStore, content: bytes) -> Presigned:
    return await store.presign_put(key_of(content), size=len(content), crc32c=crc32c_base64(content))


class _served:  # noqa: N801 - reads as a word
    def __init__(self, folder: LocalFolder) -> None:
        app = web.Application()
        app.add_routes(folder.routes())
        self._runner = web.AppRunner(app, access_log=None)

    async def __aenter__(self) -> str:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()


def _sender(http: aiohttp.ClientSession, base: str) -> Send:
    async def send(signed: Presigned, body: bytes) -> tuple[int, bytes]:
        url = URL(base + signed.url if signed.url.startswith("/") else signed.url, encoded=True)
        data = body if signed.method == "PUT" else None
        automatic = ("Content-Type", "User-Agent", "Accept-Encoding")
        async with http.request(
            signed.method, url, data=data, headers=signed.headers, skip_auto_headers=automatic
        ) as response:
            return response.status, await response.read()

    return send


def _span(signed: Presigned) -> tuple[int, int] | None:
    text = signed.headers.get("Range", "").removeprefix("bytes=")
    return (int(text.split("-")[0]), int(text.split("-")[1])) if text else None


# --- function ---------------------------------------------------------------------------------------------------------


async def test_object_is_read_back_whole_and_in_parts(world: World) -> None:
    content = os.urandom(300_000)
    key = await world.put(content)
    assert await world.store.size(key) == len(content)
    signed = await world.store.presign_get(key)
    assert await world.send(signed, b"") == (200, content)
    assert await world.send(signed, b"") == (200, content), "a grant to read may be used again"
    part = replace(signed, headers={**signed.headers, "Range": "bytes=1000-1999"})
    status, found = await world.send(part, b"")
    assert found == content[1000:2000]
    assert status == 206 or world.kind == "rclone"  # which sends the range and says 200


async def test_what_is_not_there_is_none_and_404(world: World) -> None:
    key = key_of(b"never put")
    assert await world.store.size(key) is None
    assert (await world.send(await world.store.presign_get(key), b""))[0] == 404


async def test_deleting_may_be_repeated(world: World) -> None:
    key = await world.put(b"content")
    await world.store.delete(key)
    await world.store.delete(key)
    assert await world.store.size(key) is None


async def test_listing_holds_to_the_prefix(world: World) -> None:
    mine = {await world.put(b"one"), await world.put(b"two")}
    other = object_key("l" + "1" * 16, "head", name_of(b"three"))
    signed = await world.store.presign_put(other, size=5, crc32c=crc32c_base64(b"three"))
    await world.send(signed, b"three")
    found = [each async for each in world.store.list_objects(f"{LINEAGE}/")]
    assert {each.key for each in found} == mine and {each.size for each in found} == {3}
    assert [each.key async for each in world.store.list_objects("l" + "2" * 16 + "/")] == []


async def test_deleted_object_may_be_put_again(world: World) -> None:
    key = await world.put(b"again")
    await world.store.delete(key)
    assert await world.put(b"again") == key


@pytest.mark.parametrize(
    "key", ["", "../../etc/passwd", f"{LINEAGE}/packs/../heads", f"{LINEAGE}/other/{'0' * 64}", f"x/packs/{'0' * 64}"]
)
async def test_keys_of_another_shape_are_refused(world: World, key: str) -> None:
    for call in (world.store.size(key), world.store.delete(key), world.store.presign_get(key)):
        with pytest.raises(BadRequest):
            await call
    with pytest.raises(BadRequest):
        await world.store.presign_put(key, size=1, crc32c="AAAAAA==")


async def test_impossible_sizes_and_checksums_get_no_grant(world: World) -> None:
    key = key_of(b"x")
    for size, crc32c in ((0, "AAAAAA=="), (-1, "AAAAAA=="), (1 << 40, "AAAAAA=="), (1, "short"), (1, "")):
        with pytest.raises(BadRequest):
            await world.store.presign_put(key, size=size, crc32c=crc32c)


async def test_healthy_store_passes_its_check(world: World) -> None:
    await world.store.check()


# --- refusals ---------------------------------------------------------------------------------------------------------


def against(refusal: str) -> pytest.MarkDecorator:
    """The test runs against the stores that enforce this."""
    enforcing = [kind for kind, refusals in sorted(ENFORCED.items()) if refusal in refusals]
    return pytest.mark.parametrize("world", enforcing, indirect=True)


async def require_refused(world: World, signed: Presigned, body: bytes, key: str) -> None:
    status, _ = await world.send(signed, body)
    assert 400 <= status < 500, f"answered {status}"
    assert await world.store.size(key) is None, "refused, and stored all the same"


@against("unsigned")
async def test_unsigned_put_is_refused(world: World) -> None:
    signed = await put_grant(world.store, b"content")
    bare = replace(signed, url=signed.url.partition("?")[0])
    await require_refused(world, bare, b"content", key_of(b"content"))


@against("tampered")
async def test_altered_signature_is_refused(world: World) -> None:
    signed = await put_grant(world.store, b"content")
    name = "Signature=" if "Signature=" in signed.url else "s="
    start = signed.url.index(name) + len(name)
    other = "0" if signed.url[start] != "0" else "1"
    altered = replace(signed, url=signed.url[:start] + other + signed.url[start + 1 :])
    await require_refused(world, altered, b"content", key_of(b"content"))


@against("other key")
async def test_grant_for_one_key_opens_no_other(world: World) -> None:
    signed = await put_grant(world.store, b"content")
    key = key_of(b"content").replace("packs", "heads")
    await require_refused(world, replace(signed, url=signed.url.replace("packs", "heads")), b"content", key)


@against("other key")
async def test_grant_for_one_lineage_opens_no_other(world: World) -> None:
    signed = await put_grant(world.store, b"content")
    other = "l" + "f" * 16
    moved = replace(signed, url=signed.url.replace(LINEAGE, other))
    await require_refused(world, moved, b"content", key_of(b"content").replace(LINEAGE, other))


@against("other method")
async def test_grant_to_read_does_not_write(world: World) -> None:
    signed = await world.store.presign_get(key_of(b"content"))
    put = replace(signed, method="PUT", headers={"Content-Length": "7"})
    await require_refused(world, put, b"content", key_of(b"content"))


@against("wrong length")
@pytest.mark.parametrize("body", [b"", b"conten", b"content and more"])
async def test_another_length_is_refused(world: World, body: bytes) -> None:
    signed = await put_grant(world.store, b"content")
    honest = replace(signed, headers={**signed.headers, "Content-Length": str(len(body))})
    await require_refused(world, honest, body, key_of(b"content"))


@against("other checksum")
async def test_another_checksum_than_the_granted_is_refused(world: World) -> None:
    """The one way to get other content past S3's own check: to change the checksum header, or leave it out."""
    signed = await put_grant(world.store, b"content")
    if "x-amz-checksum-crc32c" in signed.headers:
        without = {name: value for name, value in signed.headers.items() if name != "x-amz-checksum-crc32c"}
        await require_refused(world, replace(signed, headers=without), b"CONTENT", key_of(b"content"))
        changed = replace(signed, headers={**without, "x-amz-checksum-crc32c": crc32c_base64(b"CONTENT")})
    else:
        changed = replace(signed, url=signed.url.replace("c=", "c=A"))
    await require_refused(world, changed, b"CONTENT", key_of(b"content"))


@against("wrong content")
async def test_other_content_of_the_same_length_is_refused(world: World) -> None:
    signed = await put_grant(world.store, b"content")
    await require_refused(world, signed, b"CONTENT", key_of(b"content"))


@against("wrong name")
async def test_content_under_a_wrong_name_is_refused(world: World) -> None:
    key = object_key(LINEAGE, "pack", name_of(b"something else"))
    signed = await world.store.presign_put(key, size=7, crc32c=crc32c_base64(b"content"))
    await require_refused(world, signed, b"content", key)


@against("expired")
async def test_expired_grants_are_refused(world: World) -> None:
    key = await world.put(b"there")
    put, get = await world.old_grants(b"content", key)
    await require_refused(world, put, b"content", key_of(b"content"))
    assert 400 <= (await world.send(get, b""))[0] < 500


@against("overwrite")
async def test_object_is_never_overwritten(world: World) -> None:
    key = await world.put(b"first")
    signed = await world.store.presign_put(key, size=5, crc32c=crc32c_base64(b"first"))
    assert (await world.send(signed, b"first"))[0] in (409, 412)
    forged = await world.store.presign_put(key, size=6, crc32c=crc32c_base64(b"second"))
    assert (await world.send(forged, b"second"))[0] in (409, 412)
    assert await world.send(await world.store.presign_get(key), b"") == (200, b"first")


@against("unsigned")
async def test_unsigned_read_is_refused(world: World) -> None:
    signed = await world.store.presign_get(await world.put(b"secret"))
    status, content = await world.send(replace(signed, url=signed.url.partition("?")[0]), b"")
    assert 400 <= status < 500 and b"secret" not in content


async def test_s3_that_is_away_says_so_in_words() -> None:
    from portico_gateway.settings import Secret, Settings

    nowhere = Settings(
        store="s3://b", s3_endpoint="http://127.0.0.1:9", s3_access_key=Secret("a"), s3_secret_key=Secret("b")
    )
    with pytest.raises(Unavailable, match="cannot be used"):
        await S3Objects.from_settings(nowhere).check()


async def test_s3_without_its_bucket_says_so(moto: object) -> None:
    settings = moto.settings()  # type: ignore[attr-defined]
    with pytest.raises(Unavailable, match="404"):
        await S3Objects.from_settings(replace(settings, store="s3://not-there")).check()
