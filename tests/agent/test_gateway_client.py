"""The agent's calls, against a gateway that checks every signature."""

import asyncio
from pathlib import Path

import pytest

from portico_agent.credential import Credential
from portico_agent.errors import GatewayAway, Refused, RunOver, StorageAway, StorageRefused
from portico_agent.gateway import GatewayClient
from portico_agent.settings import Secrets
from portico_shared.clock import JumpingClock
from portico_shared.messages import CommitCall, Grant, ObjectName
from support.agent_gateway import HOST, RUN, RUN_TOKEN, agent_gateway

SEED = bytes(range(32))


def credential(seed: bytes = SEED, run_token: str = RUN_TOKEN) -> Credential:
    return Credential(RUN, Secrets(run_token=run_token, seed=seed))


def client(address: str, **options: object) -> GatewayClient:
    return GatewayClient(address, HOST, options.pop("credential", credential()), **options)  # type: ignore[arg-type]


async def test_identifies_fetches_the_plan_and_may_do_so_again(tmp_path: Path):
    async with agent_gateway(tmp_path) as (server, address), client(address) as gateway:
        assert (await gateway.identify()).session_id == "3fa1b2c4"
        assert (await gateway.plan()).lineage == server.plan.lineage
        await gateway.identify()


async def test_second_key_or_wrong_run_token_means_the_run_is_not_ours(tmp_path: Path):
    async with agent_gateway(tmp_path) as (_, address):
        async with client(address) as first:
            await first.identify()
        async with client(address, credential=credential(seed=bytes(32))) as second:
            with pytest.raises(RunOver, match="another key"):
                await second.identify()
            assert second.over.is_set()
        async with client(address, credential=credential(run_token="guess")) as third:
            with pytest.raises(RunOver):
                await third.identify()


async def test_token_is_renewed_before_it_expires_by_one_call_for_all(tmp_path: Path):
    clock = JumpingClock()
    async with agent_gateway(tmp_path) as (server, address), client(address, clock=clock) as gateway:
        await gateway.identify()
        first = await gateway.token()
        await clock.jump(server.expires_in * 0.6)
        tokens = await asyncio.gather(*(gateway.token() for _ in range(20)))
        assert len(set(tokens)) == 1 and tokens[0] != first
        assert server.calls.count("token") == 1


async def test_old_token_serves_while_the_gateway_is_away(tmp_path: Path):
    clock = JumpingClock()
    async with agent_gateway(tmp_path) as (server, address), client(address, clock=clock) as gateway:
        await gateway.identify()
        token = await gateway.token()
        await clock.jump(server.expires_in * 0.6)
        server.failures = [503]
        assert await gateway.token() == token
        await clock.jump(server.expires_in)
        server.failures = [503]
        with pytest.raises(GatewayAway):
            await gateway.token()
        assert await gateway.token() != token


async def test_forgotten_token_is_replaced_at_once(tmp_path: Path):
    async with agent_gateway(tmp_path) as (server, address), client(address) as gateway:
        await gateway.identify()
        server.tokens.clear()
        assert await gateway.plan() == server.plan
        assert server.calls == ["identify", "plan", "challenge", "token", "plan"]


async def test_ended_run_is_told_from_a_refused_call(tmp_path: Path):
    async with agent_gateway(tmp_path) as (server, address), client(address) as gateway:
        await gateway.identify()
        server.failures = [409]
        with pytest.raises(Refused, match="409"):
            await gateway.plan()
        assert not gateway.over.is_set()
        server.over = True
        with pytest.raises(RunOver, match="over"):
            await gateway.plan()
        assert gateway.over.is_set()


async def test_calls_wait_for_a_gateway_that_comes_back_and_give_up_in_the_end(tmp_path: Path):
    clock = JumpingClock()
    async with agent_gateway(tmp_path) as (server, address), client(address, clock=clock) as gateway:
        await gateway.identify()
        server.failures = [502, 503, 429]
        asking = asyncio.ensure_future(gateway.plan())
        while not asking.done():
            server.called.clear()
            await server.called.wait()
            for _ in range(50):
                await asyncio.sleep(0)
            await clock.jump(20)
        assert (await asking).run == RUN
        server.failures = [503]
        with pytest.raises(GatewayAway):
            await gateway.post_log("tool", 0, b"x", patience=0)


async def test_gateway_that_is_not_there_is_away(tmp_path: Path):
    async with client(f"unix:{tmp_path / 'nobody.sock'}") as gateway:
        with pytest.raises(GatewayAway, match="does not answer"):
            await gateway.identify(patience=0)


async def test_log_pieces_go_on_from_where_the_gateway_is(tmp_path: Path):
    async with agent_gateway(tmp_path) as (server, address), client(address) as gateway:
        await gateway.identify()
        assert await gateway.post_log("tool", 0, b"hello ") == 6
        assert await gateway.post_log("tool", 0, b"") == 6
        assert await gateway.post_log("tool", 3, b"lo world") == 11
        assert server.logs["tool"] == b"hello world"


async def test_objects_go_up_and_come_back_in_parts(tmp_path: Path):
    name = ObjectName(kind="pack", hash="ab" * 32, size=10, crc32c="x")
    async with agent_gateway(tmp_path) as (server, address), client(address) as gateway:
        await gateway.identify()
        (grant,) = await gateway.grants((name,))
        await gateway.put(grant, b"0123456789")
        assert server.objects == {name.hash: b"0123456789"}
        assert (await gateway.grants((name,)))[0].exists
        (read,) = await gateway.reads((name,))
        assert await gateway.get(read) == b"0123456789"
        assert await gateway.get(read, start=2, length=3) == b"234"
        reply = await gateway.commit(CommitCall(head=name, packs=(name,), reason="start"))
        assert reply.checkpoint_id == 1 and server.commits[0].head == name


async def test_store_that_refuses_is_told_from_one_that_is_away(tmp_path: Path):
    missing = Grant(hash="0" * 64, method="GET", url=f"/objects/{'0' * 64}", headers={})
    async with agent_gateway(tmp_path) as (server, address), client(address) as gateway:
        with pytest.raises(StorageRefused, match="404"):
            await gateway.get(missing)
        server.failures = [503]
        with pytest.raises(StorageAway):
            await gateway.get(missing)
        nowhere = Grant(hash="0" * 64, method="GET", url="http://127.0.0.1:9/x", headers={})
        with pytest.raises(StorageAway):
            await gateway.get(nowhere)


async def test_credential_never_shows_its_secrets():
    assert SEED.hex() not in repr(credential()) and RUN_TOKEN not in repr(credential())
    assert RUN_TOKEN not in repr(Secrets(run_token=RUN_TOKEN, seed=SEED))
