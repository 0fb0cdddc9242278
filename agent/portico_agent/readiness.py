"""Whether a tool answers HTTP on its port."""

import asyncio
import contextlib
import socket

from portico_shared.clock import Clock

PROBE_SECONDS = 0.25
"""Between two probes while a tool starts: a tool that is up is noticed at once, and a refused connect costs nothing."""
ANSWER_SECONDS = 5.0


async def until_answering(port: int, path: str, clock: Clock) -> None:
    """Return when the tool answers anything below 500."""
    while not await answers(port, path):
        await clock.sleep(PROBE_SECONDS)


async def answers(port: int, path: str) -> bool:
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode()
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(request)
                status = (await reader.readline()).split(b" ", 2)
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError, ValueError):
        return False
    return len(status) > 1 and status[0].startswith(b"HTTP/1.") and status[1].isdigit() and int(status[1]) < 500


def free_port() -> int:
    """A port nobody listens on at the moment. The tool binds it a second later: in a network of its own nobody is
    there to take it, elsewhere the tool fails to start and says so."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
