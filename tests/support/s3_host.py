"""An S3 server on a host of its own: a network namespace behind a pair of interfaces, reached as any remote host is.

`with remote_s3() as s3:` gives a server that the gateway and studios can reach, and that can go `away` and come `back`.
Studios come there by forwarding and address translation, as they come to the world.
"""

import contextlib
import ipaddress
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import boto3

PORT = 9000
BUCKET = "portico-studios"
PREFIX = "team/checkpoints"


@dataclass
class RemoteS3:
    """The server, and the keys that Portico alone is to know."""

    address: str
    access_key: str
    secret_key: str
    program: subprocess.Popen[str]

    @property
    def endpoint(self) -> str:
        return f"http://{self.address}:{PORT}"

    @property
    def environment(self) -> dict[str, str]:
        """What points Portico at it."""
        return {
            "PORTICO_STORE": f"s3://{BUCKET}/{PREFIX}",
            "PORTICO_S3_ENDPOINT": self.endpoint,
            "PORTICO_S3_ACCESS_KEY": self.access_key,
            "PORTICO_S3_SECRET_KEY": self.secret_key,
            **{name: f"{os.environ.get(name, '')},{self.address}".strip(",") for name in ("no_proxy", "NO_PROXY")},
        }

    def away(self) -> None:
        """Its port refuses from now on."""
        self._tell("away")

    def back(self) -> None:
        self._tell("back")

    def keys(self) -> list[str]:
        """Every object of the bucket, whole keys."""
        client = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
        )
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        return [each["Key"] for page in pages for each in page.get("Contents", ())]

    def _tell(self, word: str) -> None:
        assert self.program.stdin is not None and self.program.stdout is not None
        self.program.stdin.write(word + "\n")
        self.program.stdin.flush()
        assert self.program.stdout.readline().strip() == word


@contextlib.contextmanager
def remote_s3() -> Iterator[RemoteS3]:
    """Needs root. Leaves neither namespace nor interface nor process."""
    with remote_namespace() as (namespace, address):
        argv = [sys.executable, str(Path(__file__).with_name("s3_moto.py")), address, str(PORT), BUCKET]
        program = subprocess.Popen(
            ["ip", "netns", "exec", namespace, *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={name: value for name, value in os.environ.items() if "proxy" not in name.lower()},
        )
        try:
            assert program.stdout is not None
            assert program.stdout.readline().strip() == "back", "the S3 server did not start"
            yield RemoteS3(
                address=address,
                access_key="PTCAK" + secrets.token_hex(8).upper(),
                secret_key="ptcsecret" + secrets.token_hex(20),
                program=program,
            )
        finally:
            program.kill()
            program.communicate()


@contextlib.contextmanager
def remote_namespace() -> Iterator[tuple[str, str]]:
    """A network namespace one hop away: its name and its address."""
    tag = secrets.token_hex(3)
    namespace, here, there = f"ptcs3-{tag}", f"s3h{tag}", f"s3n{tag}"
    ours, theirs = free_pair()
    ip("netns", "add", namespace)
    try:
        ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", namespace)
        ip("addr", "add", f"{ours}/30", "dev", here)
        ip("link", "set", here, "up")
        for words in (
            ("link", "set", "lo", "up"),
            ("addr", "add", f"{theirs}/30", "dev", there),
            ("link", "set", there, "up"),
            ("route", "add", "default", "via", ours),
        ):
            ip("-n", namespace, *words)
        yield namespace, theirs
    finally:
        subprocess.run(["ip", "link", "delete", here], capture_output=True)  # its peer goes with it
        ip("netns", "delete", namespace)


def free_pair() -> tuple[str, str]:
    """Two addresses of a /30 in 10.0.0.0/9 that no route of this machine leads to."""
    routes = json.loads(ip("-4", "-j", "route", "show", "table", "all") or "[]")
    taken = [ipaddress.ip_network(route["dst"], strict=False) for route in routes if route["dst"] != "default"]
    while True:
        network = ipaddress.ip_network((0x0A000000 | secrets.randbelow(2**21) << 2, 30))
        if not any(network.overlaps(other) for other in taken):
            return str(network[1]), str(network[2])


def ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"
    return done.stdout
