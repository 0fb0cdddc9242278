"""The dialer against gateways that behave badly, each a few lines of server."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from portico_agent.tunnel.address import GatewayAddress, parse_address
from portico_agent.tunnel.dialer import FLOOR, Dialer
from portico_shared.backoff import Backoff
from support.roads import GatewayStub, until

SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Gateway:
    """Counts connections; `say` is what it does with each after the request's head."""

    def __init__(self, say: Handler) -> None:
        self.say = say
        self.connections = 0
        self.open = 0
        self.heads: list[bytes] = []
        self.writers: list[asyncio.StreamWriter] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        self.writers.append(writer)
        try:
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            await self.say(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            writer.close()


@asynccontextmanager
async def dialling(path: Path, say: Handler) -> AsyncIterator[tuple[Gateway, Dialer, GatewayStub]]:
    gateway = Gateway(say)
    server = await asyncio.start_unix_server(gateway, str(path))
    stub = GatewayStub(f"unix:{path}")
    dialer = Dialer(stub, lambda port: True, backoff=Backoff(base=0.02, cap=0.04))
    async with server, asyncio.TaskGroup() as group:
        task = group.create_task(dialer.run())
        yield gateway, dialer, stub
        task.cancel()
    await until(lambda: gateway.open == 0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "g.sock"


async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(SWITCHED)
    await reader.read()


async def test_it_keeps_the_floor_of_spares_and_no_more(path: Path) -> None:
    async with dialling(path, hold) as (gateway, dialer, _):
        await until(lambda: dialer.statistics().spares == FLOOR)
        for _ in range(20):
            await asyncio.sleep(0)
        assert gateway.connections == FLOOR
        assert gateway.heads[0].startswith(b"GET /api/agent/v1/tunnel HTTP/1.1\r\nHost: portico.test\r\n")
        assert b"Authorization: Bearer short-token-1\r\n" in gateway.heads[0]


async def test_a_claim_that_wants_more_gets_more(path: Path) -> None:
    async with dialling(path, hold) as (gateway, dialer, _):
        await until(lambda: dialer.statistics().spares == FLOOR)
        gateway.writers[0].write(b"CLAIM 1 http 20\n")
        await until(lambda: dialer.statistics().spares == FLOOR - 1 + 20)


async def test_what_a_burst_wanted_is_not_replaced_when_it_is_let_go(path: Path) -> None:
    async with dialling(path, hold) as (gateway, dialer, _):
        await until(lambda: dialer.statistics().spares == FLOOR)
        gateway.writers[0].write(b"CLAIM 1 http 20\n")
        await until(lambda: dialer.statistics().spares == FLOOR - 1 + 20)
        for writer in gateway.writers:
            writer.close()
        await until(lambda: dialer.statistics().spares == FLOOR)
        for _ in range(50):
            await asyncio.sleep(0)
        assert dialer.statistics().spares == FLOOR


async def test_a_spare_the_gateway_closes_is_replaced(path: Path) -> None:
    async with dialling(path, hold) as (gateway, dialer, _):
        await until(lambda: dialer.statistics().spares == FLOOR)
        gateway.writers[3].close()
        await until(lambda: gateway.connections == FLOOR + 1 and dialer.statistics().spares == FLOOR)


async def test_a_gateway_that_accepts_and_hangs_up_is_not_dialled_in_a_tight_circle(path: Path) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(SWITCHED)

    async with dialling(path, hang_up) as (gateway, dialer, _):
        started = asyncio.get_running_loop().time()
        await until(lambda: gateway.connections > 4 * FLOOR, 20)
        assert asyncio.get_running_loop().time() - started > 0.02  # at least two waits lay between
        assert dialer.statistics().failures > FLOOR


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 409 Conflict\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        SWITCHED + b"nonsense that is no claim\n",
        SWITCHED + b"CLAIM 1 http 1\nGET / HTTP/1.1\r\n",
    ],
)
async def test_a_gateway_that_says_something_else_is_tried_again_patiently(path: Path, answer: bytes) -> None:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await reader.read()

    async with dialling(path, say) as (_, dialer, stub):
        await until(lambda: dialer.statistics().failures > FLOOR)
        assert dialer.statistics().spares == 0 and dialer.statistics().streams == 0 and stub.forgotten == []


async def test_only_a_401_forgets_the_token(path: Path) -> None:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")

    async with dialling(path, say) as (_, _, stub):
        await until(lambda: bool(stub.forgotten))
        assert set(stub.forgotten) == {"short-token-1"}


async def test_without_a_token_it_waits_and_goes_on(path: Path) -> None:
    async with dialling(path, hold) as (gateway, dialer, stub):
        await until(lambda: dialer.statistics().spares == FLOOR)
        stub.away = True
        for writer in gateway.writers:
            writer.close()
        await until(lambda: dialer.statistics().failures > FLOOR + 3)
        stub.away = False
        await until(lambda: dialer.statistics().spares == FLOOR)


async def test_cancelling_it_closes_every_connection(path: Path) -> None:
    async with dialling(path, hold) as (gateway, dialer, _):
        await until(lambda: dialer.statistics().spares == FLOOR)
    assert gateway.open == 0


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("unix:/run/a.sock", GatewayAddress(unix="/run/a.sock")),
        ("http://10.0.0.1:8000", GatewayAddress(host="10.0.0.1", port=8000)),
        ("http://portico.example", GatewayAddress(host="portico.example", port=80)),
        ("https://portico.example/", GatewayAddress(host="portico.example", port=443, tls=True)),
        ("https://[::1]:9443", GatewayAddress(host="::1", port=9443, tls=True)),
    ],
)
def test_an_address_is_read(text: str, address: GatewayAddress) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "unix:relative", "ftp://host", "http://", "host:80", "http://host/path"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no gateway"):
        parse_address(text)
