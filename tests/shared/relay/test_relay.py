"""The raw pipe between two transports, over real sockets."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from portico_shared.relay import Relay, join

Ends = tuple[socket.socket, socket.socket, Relay, asyncio.Event]


async def _pipe(early: bytes = b"") -> Ends:
    """Left socket, right socket, the pipe between them, and whether it was closed."""
    loop = asyncio.get_running_loop()
    left, inner_left = socket.socketpair()
    right, inner_right = socket.socketpair()
    for sock in (left, right):
        sock.setblocking(False)
    first, _ = await loop.create_connection(asyncio.Protocol, sock=inner_left)
    second, _ = await loop.create_connection(asyncio.Protocol, sock=inner_right)
    closed = asyncio.Event()
    relay = join(first, second, early=early, on_close=closed.set)
    return left, right, relay, closed


async def _read(sock: socket.socket, count: int) -> bytes:
    loop, data = asyncio.get_running_loop(), b""
    while len(data) < count:
        piece = await loop.sock_recv(sock, count - len(data))
        if not piece:
            break
        data += piece
    return data


@pytest.fixture
async def pipe() -> AsyncIterator[Ends]:
    left, right, relay, closed = await _pipe()
    yield left, right, relay, closed
    left.close()
    right.close()
    async with asyncio.timeout(5):
        await closed.wait()


async def test_bytes_pass_both_ways(pipe: Ends) -> None:
    left, right, _, _ = pipe
    left.send(b"there")
    right.send(b"back")
    assert await _read(right, 5) == b"there" and await _read(left, 4) == b"back"


async def test_early_bytes_come_first() -> None:
    left, right, relay, closed = await _pipe(early=b"first ")
    left.send(b"second")
    assert await _read(right, 12) == b"first second"
    relay.abort()
    assert closed.is_set()
    await asyncio.sleep(0)
    left.close()
    right.close()


async def test_a_half_close_passes_and_the_other_way_goes_on(pipe: Ends) -> None:
    left, right, _, closed = pipe
    left.send(b"question")
    left.shutdown(socket.SHUT_WR)
    assert await _read(right, 100) == b"question"
    right.send(b"answer")
    assert await _read(left, 6) == b"answer"
    assert not closed.is_set()
    right.shutdown(socket.SHUT_WR)
    assert await _read(left, 1) == b""
    assert closed.is_set()


async def test_a_side_that_is_gone_ends_the_other(pipe: Ends) -> None:
    left, right, _, _ = pipe
    left.send(b"last words")
    left.close()
    assert await _read(right, 100) == b"last words"


async def test_who_does_not_read_holds_the_other_back(pipe: Ends) -> None:
    left, right, _, _ = pipe
    loop = asyncio.get_running_loop()
    sent = 0
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            while True:
                await loop.sock_sendall(left, b"\0" * 65536)
                sent += 65536
    assert sent < 8 * 2**20
    received = 0
    while received < sent:
        received += len(await _read(right, 65536))
    assert received >= sent


async def test_joining_what_is_closed_already_closes_the_other() -> None:
    loop = asyncio.get_running_loop()
    left, inner_left = socket.socketpair()
    right, inner_right = socket.socketpair()
    right.setblocking(False)
    first, _ = await loop.create_connection(asyncio.Protocol, sock=inner_left)
    second, _ = await loop.create_connection(asyncio.Protocol, sock=inner_right)
    first.abort()
    closed = asyncio.Event()
    join(first, second, on_close=closed.set)
    assert closed.is_set() and await _read(right, 1) == b""
    left.close()
    right.close()
