"""The agent API as an agent, honest or not, meets it."""

import base64
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from portico_gateway.agentapi.credentials import RunCredentials
from portico_gateway.agentapi.routes import AgentApi
from portico_gateway.agentapi.tokens import RunTokens, load_key
from portico_gateway.store.tables import events
from portico_gateway.studios.logs import MAX_FILE, MAX_PIECE
from portico_gateway.studios.values import Status
from portico_shared.messages import AGENT_API, CommitCall, IdentifyCall, ObjectName, TokenCall, proof_text
from support.studio_world import OWNER, World, studio_world


def text64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass
class Caller:
    """An agent at the API."""

    world: World
    client: TestClient[web.Request, web.Application]
    run: str
    run_token: str
    key: Ed25519PrivateKey
    token: str = ""

    def identify_call(self, **changes: Any) -> IdentifyCall:
        nonce = text64(bytes(range(16)))
        signature = self.key.sign(proof_text("identify", self.run, nonce, 7))
        call = IdentifyCall(
            run=self.run,
            run_token=self.run_token,
            public_key=text64(self.key.public_key().public_bytes_raw()),
            protocol=(1, 0),
            time=7,
            nonce=nonce,
            signature=text64(signature),
        )
        return msgspec.structs.replace(call, **changes)

    async def post(self, path: str, body: object, **headers: str) -> tuple[int, Any]:
        data = body if isinstance(body, bytes) else msgspec.json.encode(body)
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        async with self.client.post(f"{AGENT_API}/{path}", data=data, headers=headers) as response:
            return response.status, await response.json()

    async def get(self, path: str) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        async with self.client.get(f"{AGENT_API}/{path}", headers=headers) as response:
            return response.status, await response.json()

    async def identify(self) -> None:
        status, answer = await self.post("identify", self.identify_call())
        assert status == 200, answer
        self.token = answer["token"]

    async def challenge(self) -> str:
        status, answer = await self.get(f"challenge?run={self.run}")
        assert status == 200, answer
        return str(answer["nonce"])

    def token_call(self, nonce: str, key: Ed25519PrivateKey | None = None) -> TokenCall:
        signature = (key or self.key).sign(proof_text("token", self.run, nonce, 0))
        return TokenCall(run=self.run, nonce=nonce, signature=text64(signature))


@asynccontextmanager
async def calling(folder: Path) -> AsyncIterator[Caller]:
    """A studio that has been started, and its agent before its first call."""
    async with studio_world(folder) as world:
        studio = await world.add()
        await world.studios.start(OWNER, studio.session_id)
        await world.placed(studio.session_id)
        world.agent(studio.session_id)
        tokens = RunTokens(await load_key(world.store, world.clock), world.clock)
        api = AgentApi.make(RunCredentials(world.parts.records, tokens), world.lifecycle, world.clock)
        app = web.Application()
        app.add_routes(api.routes())
        spec = world.compute.started[-1]
        async with TestClient(TestServer(app)) as client:
            yield Caller(world, client, spec.run_id, spec.run_token, Ed25519PrivateKey.generate())


async def test_first_key_owns_the_run_and_may_come_again(tmp_path: Path) -> None:
    async with calling(tmp_path) as agent:
        await agent.identify()
        await agent.identify()
        assert (await agent.get("plan"))[0] == 200


async def test_second_key_is_refused_and_noted_though_it_knows_the_token(tmp_path: Path) -> None:
    async with calling(tmp_path) as agent:
        await agent.identify()
        thief = replace(agent, key=Ed25519PrivateKey.generate(), token="")
        status, answer = await thief.post("identify", thief.identify_call())
        assert (status, answer["message"]) == (409, "another key owns this run")
        async with agent.world.store.begin() as db:
            kinds = list((await db.execute(sa.select(events.c.kind))).scalars())
        assert "run-key-refused" in kinds


async def test_store_keeps_only_the_hash_of_the_run_token(tmp_path: Path) -> None:
    async with calling(tmp_path) as agent:
        run = await agent.world.parts.records.run(agent.run)
        assert run is not None
        assert run.run_token_hash == hashlib.sha256(agent.run_token.encode()).digest()
        assert agent.run_token.encode() not in (tmp_path / "portico.db").read_bytes()


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"run_token": "wrong"}, 401),
        ({"run": "r0000000000000000"}, 401),
        ({"run": "../../etc"}, 401),
        ({"signature": text64(b"x" * 64)}, 401),
        ({"signature": "not base64 at all!"}, 401),
        ({"public_key": text64(b"short")}, 401),
        ({"nonce": text64(b"short")}, 400),
        ({"protocol": (1, 9)}, 400),
        ({"protocol": (2, 0)}, 400),
        ({"time": 8}, 401),
    ],
)
async def test_false_proof_gets_nothing_and_claims_nothing(tmp_path: Path, change: dict[str, Any], status: int) -> None:
    async with calling(tmp_path) as agent:
        found, answer = await agent.post("identify", agent.identify_call(**change))
        assert found == status, answer
        assert "token" not in answer
        run = await agent.world.parts.records.run(agent.run)
        assert run is not None
        assert run.public_key is None


async def test_key_gets_new_short_tokens_by_challenge(tmp_path: Path) -> None:
    async with calling(tmp_path) as agent:
        await agent.identify()
        session_id = agent.world.compute.started[-1].session_id
        await agent.world.agent(session_id).comes_up()
        await agent.world.until(session_id, Status.RUNNING)
        await agent.world.passes(16 * 60, step=60)
        assert (await agent.get("plan"))[0] == 401
        call = agent.token_call(await agent.challenge())
        status, answer = await agent.post("token", call)
        assert status == 200
        agent.token = answer["token"]
        assert (await agent.get("plan"))[0] == 200


async def test_challenge_serves_once_and_for_a_minute(tmp_path: Path) -> None:
    async with calling(tmp_path) as agent:
        await agent.identify()
        call = agent.token_call(await agent.challenge())
        assert (await agent.post("token", call))[0] == 200
        assert (await agent.post("token", call))[0] == 401
        old = agent.token_call(await agent.challenge())
        await agent.world.passes(61, step=10)
        assert (await agent.post("token", old))[0] == 401


async def test_challenge_signed_by_another_key_gives_nothing(tmp_path: Path) -> None:
    async with calling(tmp_path) as agent:
        await agent.identify()
        call = agent.token_call(await agent.challenge(), Ed25519PrivateKey.generate())
        assert (await agent.post("token", call))[0] == 401
        forged = agent.token_call(text64(b"\0" * 40))
        assert (await agent.post("token", forged))[0] == 401


async def test_run_without_a_key_gets_no_token_by_challenge(tmp_path: Path) -> None:
    async with calling(tmp_path) as agent:
        assert (await agent.post("token", agent.token_call(await agent.challenge())))[0] == 401


async def test_run_that_is_over_is_told_so(tmp_path: Path) -> None:
    async with calling(tmp_path) as agent:
        await agent.identify()
        nonce = await agent.challenge()
        session_id = agent.world.compute.started[-1].session_id
        agent.world.compute.die(agent.run)
        await agent.world.until(session_id, Status.ERRORED)
        for status, _ in (
            await agent.get("plan"),
            await agent.get(f"challenge?run={agent.run}"),
            await agent.post("token", agent.token_call(nonce)),
            await agent.post("identify", agent.identify_call()),
            await agent.post("log?stream=tool&offset=0", b"x"),
        ):
            assert status == 410


async def test_older_run_is_fenced_off_by_a_newer_one(tmp_path: Path) -> None:
    async with calling(tmp_path) as agent:
        await agent.identify()
        session_id = agent.world.compute.started[-1].session_id
        await agent.world.parts.records.update_studio(session_id, run_id="r" + "1" * 16, generation=2)
        status, answer = await agent.get("plan")
        assert (status, answer["message"]) == (409, "a newer run of this studio has taken its place: stop")


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "x" * 5000])
async def test_nonsense_for_a_token_is_refused(tmp_path: Path, token: str) -> None:
    async with calling(tmp_path) as agent:
        agent.token = token
        assert (await agent.get("plan"))[0] == 401


async def test_plan_tells_what_the_run_is_to_do(tmp_path: Path) -> None:
    async with calling(tmp_path) as agent:
        await agent.identify()
        _, plan = await agent.get("plan")
        assert plan["run"] == agent.run
        assert plan["tool"] == "jupyter"
        assert plan["generation"] == 1
        assert plan["restore"] is None
        assert plan["salvage"] is False
        assert agent.run_token not in str(plan)


async def test_log_pieces_are_written_once_each(tmp_path: Path) -> None:
    async with calling(tmp_path) as agent:
        await agent.identify()
        assert await agent.post("log?stream=tool&offset=0", b"hello ") == (200, {"next_offset": 6})
        assert await agent.post("log?stream=tool&offset=0", b"hello ") == (200, {"next_offset": 6})
        assert await agent.post("log?stream=tool&offset=3", b"lo world") == (200, {"next_offset": 11})
        assert await agent.post("log?stream=tool&offset=0", b"") == (200, {"next_offset": 11})
        session_id = agent.world.compute.started[-1].session_id
        chunk = await agent.world.studios.logs(OWNER, session_id, stream="tool")
        assert (chunk.text, chunk.ended) == ("hello world", False)
        assert (await agent.world.studios.logs(OWNER, session_id)).text == "hello world"


@pytest.mark.parametrize(
    "query", ["stream=build&offset=0", "stream=../x&offset=0", "stream=tool", "stream=tool&offset=-1"]
)
async def test_log_of_a_wrong_kind_is_refused(tmp_path: Path, query: str) -> None:
    async with calling(tmp_path) as agent:
        await agent.identify()
        assert (await agent.post(f"log?{query}", b"x"))[0] == 400


async def test_bodies_over_their_limit_are_refused(tmp_path: Path) -> None:
    async with calling(tmp_path) as agent:
        await agent.identify()
        assert (await agent.post("log?stream=tool&offset=0", b"x" * (MAX_PIECE + 1)))[0] == 413
        assert (await agent.post("identify", b"x" * 9000))[0] == 413
        many = {"objects": [{"kind": "pack", "hash": "0" * 64}] * 4097}
        assert (await agent.post("grants", many))[0] == 413
        assert (await agent.post("reads", many))[0] == 413


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"objects": 3}', b"\xff\xfe", b"[" * 100_000])
async def test_body_that_makes_no_sense_is_a_plain_400(tmp_path: Path, body: bytes) -> None:
    async with calling(tmp_path) as agent:
        await agent.identify()
        for path in ("grants", "reads", "commit"):
            assert (await agent.post(path, body))[0] == 400


async def test_commit_goes_under_the_runs_own_row(tmp_path: Path) -> None:
    async with calling(tmp_path) as agent:
        await agent.identify()
        call = CommitCall(head=ObjectName(kind="head", hash="a" * 64), packs=(), reason="start")
        status, answer = await agent.post("commit", call)
        assert status == 200
        run = await agent.world.parts.records.run(agent.run)
        assert run is not None
        assert answer["checkpoint_id"] == run.checkpoint_id
        assert run.launched


async def test_agent_that_calls_without_end_is_slowed_down(tmp_path: Path) -> None:
    async with calling(tmp_path) as agent:
        found = [(await agent.get(f"challenge?run={agent.run}"))[0] for _ in range(60)]
        assert found.count(200) == 40
        assert found[-1] == 429
        await agent.world.passes(10)
        assert (await agent.get(f"challenge?run={agent.run}"))[0] == 200


def test_log_stops_at_its_cap_and_says_so(tmp_path: Path) -> None:
    from portico_gateway.studios.logs import RunLogs

    logs, run, offset = RunLogs(tmp_path), "r" + "0" * 16, 0
    while offset < MAX_FILE + 3 * MAX_PIECE:
        offset = logs.append(run, "tool", offset, b"x" * MAX_PIECE)
    assert logs.tail(run, "tool").endswith("[the log is full at 16 MiB: what follows is not kept]")
    kept = sum(file.stat().st_size for file in (tmp_path / run).iterdir())
    assert kept < 2 * MAX_FILE + 1000
