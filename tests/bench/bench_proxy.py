"""The proxy beside what anyone would pick instead: nginx and configurable-http-proxy, in the same run.

Ours is the whole product: gateway's edge worker, tunnel and the Python agent, signed in with a personal access token
on every request. The tool behind is nginx serving files, for all alike. The proxy under test has core 0; load, tool
and agent share core 1 (with one core, nothing is pinned). Rounds interleave the proxies; ratios are per round.
"""

import asyncio
import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from rows import Row, compare
from support.portico import Portico, free_port, running_portico

BARS = {"configurable-http-proxy": 8.0, "nginx": 0.5}
"""For GET 1 KiB with 32 keep-alive connections: where prototypes of this design stood, less a margin."""
BULK_BARS = {"configurable-http-proxy": 3.0, "nginx": 1.0}
SECONDS = 3
CORES = sorted(os.sched_getaffinity(0))


def rows(rounds: int) -> list[Row]:
    return asyncio.run(_rows(rounds))


async def _rows(rounds: int) -> list[Row]:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ptb-")))
        tool = stack.enter_context(_nginx(folder / "tool", _tool_config(folder / "tool")))
        peers = {
            "nginx": stack.enter_context(_nginx(folder / "peer", _proxy_config(folder / "peer", tool), core=0)),
            "configurable-http-proxy": stack.enter_context(_chp(folder / "chp", tool)),
        }
        async with _ours(tool) as (portico, session_id):
            headers = [f"Host: {portico.studio_host(session_id)}", f"Authorization: Bearer {portico.token}"]
            urls = {"portico": (f"http://127.0.0.1:{portico.port}", headers)}
            urls |= {name: (f"http://127.0.0.1:{port}", ["Host: localhost"]) for name, port in peers.items()}
            small = await _rounds(urls, "/1k", 32, rounds)
            bulk = await _rounds(urls, "/32m", 4, rounds)
    found = []
    for peer in peers:
        found.append(
            compare("proxy", "GET 1 KiB x32", peer, small["portico"], small[peer], bar=BARS[peer], unit="req/s")
        )
        found.append(
            compare("proxy", "download 32 MiB x4", peer, bulk["portico"], bulk[peer], bar=BULK_BARS[peer], unit="req/s")
        )
    return found


async def _rounds(
    urls: dict[str, tuple[str, list[str]]], path: str, connections: int, rounds: int
) -> dict[str, list[float]]:
    rates: dict[str, list[float]] = {name: [] for name in urls}
    for number in range(rounds + 1):
        for name, (url, headers) in urls.items():
            rate = await asyncio.to_thread(_wrk, url + path, connections, headers)
            if number:  # the first round warms up
                rates[name].append(rate)
    return rates


def _wrk(url: str, connections: int, headers: list[str]) -> float:
    argv = ["wrk", "-t1", f"-c{connections}", f"-d{SECONDS}s"]
    for header in headers:
        argv += ["-H", header]
    done = subprocess.run(_pinned(1, [*argv, url]), capture_output=True, text=True, check=True)
    assert "Non-2xx" not in done.stdout, done.stdout
    match = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    assert match is not None, done.stdout
    return float(match[1])


def _pinned(core: int, argv: list[str]) -> list[str]:
    return ["taskset", "-c", str(CORES[core]), *argv] if len(CORES) > 1 else argv


def _pin(pid: int, core: int) -> None:
    if len(CORES) > 1:
        os.sched_setaffinity(pid, {CORES[core]})


@contextlib.asynccontextmanager
async def _ours(tool_port: int) -> AsyncIterator[tuple[Portico, str]]:
    environment = {"PORTICO_COMPUTE": "attach", "PORTICO_ATTACH_PORT": str(tool_port), "PORTICO_LOG_LEVEL": "warning"}
    async with running_portico(environment) as portico:
        studio = await portico.add_studio("bench")
        await portico.until(studio["sessionId"], "running")
        for pid in portico.pids("portico_gateway.worker"):
            _pin(pid, 0)
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                if b"portico_agent" in (entry / "cmdline").read_bytes():
                    _pin(int(entry.name), 1)
        yield portico, studio["sessionId"]


def _tool_config(folder: Path) -> str:
    folder.mkdir()
    (folder / "1k").write_bytes(b"x" * 1024)
    (folder / "32m").write_bytes(os.urandom(1024) * 32768)
    return f"root {folder}; location / {{ }}"


def _proxy_config(folder: Path, upstream: int) -> str:
    folder.mkdir()
    return (
        f"location / {{ proxy_pass http://tool; proxy_http_version 1.1; proxy_set_header Connection ''; }} }}\n"
        f"upstream tool {{ server 127.0.0.1:{upstream}; keepalive 64;"
    )


@contextlib.contextmanager
def _nginx(folder: Path, server: str, core: int = 1) -> Iterator[int]:
    port = free_port()
    (folder / "nginx.conf").write_text(
        f"daemon off; pid {folder}/pid; worker_processes 1; error_log stderr error; user root;\n"
        "events { worker_connections 1024; }\n"
        f"http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000; "
        f"client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f; "
        f"uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n"
        f"server {{ listen 127.0.0.1:{port}; {server} }} }}\n"
    )
    argv = _pinned(core, ["nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder)])
    with _process(argv, port):
        yield port


@contextlib.contextmanager
def _chp(folder: Path, upstream: int) -> Iterator[int]:
    folder.mkdir()
    npm = shutil.which("npm") or "npm"
    subprocess.run(
        [npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), "configurable-http-proxy"],
        check=True,
        capture_output=True,
    )
    port, api = free_port(), free_port()
    binary = folder / "node_modules" / ".bin" / "configurable-http-proxy"
    argv = ["--ip", "127.0.0.1", "--port", str(port), "--api-port", str(api), "--log-level", "error"]
    target = ["--default-target", f"http://127.0.0.1:{upstream}"]
    with _process(_pinned(0, [str(binary), *argv, *target]), port):
        yield port


@contextlib.contextmanager
def _process(argv: list[str], port: int) -> Iterator[None]:
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _until_listening(port, process)
        yield
    finally:
        process.terminate()
        process.wait(10)


def _until_listening(port: int, process: subprocess.Popen[bytes]) -> None:
    import socket

    deadline = time.monotonic() + 15
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        assert process.poll() is None and time.monotonic() < deadline, f"nothing listens on {port}"
        time.sleep(0.05)
