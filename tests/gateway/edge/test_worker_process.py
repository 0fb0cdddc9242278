"""The worker as a process: inherited sockets, readiness, the end on SIGTERM."""

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

from portico_gateway.settings import Settings, to_environment
from support.edge_world import read_response


async def start(settings: Settings, *listeners: socket.socket) -> asyncio.subprocess.Process:
    environment = {**os.environ, **to_environment(settings)}
    if listeners:
        environment["PORTICO_FDS"] = ",".join(str(listener.fileno()) for listener in listeners)
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "portico_gateway.worker",
        env=environment,
        pass_fds=[listener.fileno() for listener in listeners],
        stderr=asyncio.subprocess.DEVNULL,
    )


def prepared(tmp_path: Path, port: int) -> Settings:
    (tmp_path / "run").mkdir()
    return Settings(data=tmp_path, listen=f"127.0.0.1:{port}", log_level="warning")


REQUEST = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


async def test_worker_serves_inherited_sockets_and_ends_in_order(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as public, socket.socket(socket.AF_UNIX) as private:
        private.bind(str(tmp_path / "edge.sock"))
        private.listen()
        port = public.getsockname()[1]
        settings = prepared(tmp_path, port)
        for _ in range(2):  # the second incarnation finds the same sockets
            process = await start(settings, public, private)
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(REQUEST + REQUEST.replace(b"healthz", b"readyz"))
                assert (await read_response(reader)).status == 200
                assert (await read_response(reader)).status == 503  # there is no control
                unix_reader, unix_writer = await asyncio.open_unix_connection(str(tmp_path / "edge.sock"))
                unix_writer.write(REQUEST)
                assert (await read_response(unix_reader)).status == 200
                process.send_signal(signal.SIGINT)  # Ctrl-C is the supervisor's to hear
                process.send_signal(signal.SIGTERM)
                assert await reader.read() == b"" and await unix_reader.read() == b""
                async with asyncio.timeout(10):
                    assert await process.wait() == 0
                writer.close()
                unix_writer.close()
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()


async def test_worker_alone_opens_its_own_port(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = await start(prepared(tmp_path, port))
    try:
        answered = asyncio.Event()

        async def knock() -> None:
            while not answered.is_set():
                try:
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                except ConnectionRefusedError:
                    await asyncio.sleep(0.02)
                    continue
                writer.write(REQUEST)
                assert (await read_response(reader)).status == 200
                writer.close()
                answered.set()

        async with asyncio.timeout(20):
            await knock()
    finally:
        process.terminate()
        assert await process.wait() == 0


async def test_worker_with_nonsense_for_settings_says_so(tmp_path: Path):
    environment = {**os.environ, "PORTICO_DATA": str(tmp_path), "PORTICO_LISTEN": "nowhere"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "portico_gateway.worker", env=environment, stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    assert process.returncode == 1 and b"--listen 'nowhere' is not HOST:PORT" in said
