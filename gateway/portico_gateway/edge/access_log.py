"""One JSON line a request in a file of its own, every field bounded. Lines are gathered and written at each sweep.

    {"time":1795231261.512,"method":"GET","host":"a00c0ffee.studio.localhost:8000","path":"/lab","status":200,
     "bytes":1234,"peer":"127.0.0.1","studio":"00c0ffee","user":7}

The query is left out: one-use codes pass there.
"""

import contextlib
from pathlib import Path

import msgspec

from portico_gateway.edge.head import Head
from portico_shared.clock import Clock

MAX_HOST = 100
MAX_PATH = 300
MAX_GATHERED = 2000
MAX_FILE = 32 * 1024 * 1024
"""Then the file becomes `….1`, and the one before it goes."""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    time: float
    method: str
    host: str
    path: str
    status: int
    bytes: int
    peer: str
    studio: str
    user: int


class AccessLog:
    """Lines beyond what the disk takes are lost: requests go on."""

    def __init__(self, file: Path | None, clock: Clock) -> None:
        self._file = file
        self._clock = clock
        self._lines: list[bytes] = []
        self._encode = msgspec.json.Encoder().encode

    def record(self, request: Head, status: int, sent: int, peer: str, studio: str, user: int) -> None:
        if self._file is None:
            return
        line = Line(
            time=self._clock.now(),
            method=request.method.decode(),
            host=request.host[:MAX_HOST].decode("ascii", "replace"),
            path=request.target.partition(b"?")[0][:MAX_PATH].decode(),
            status=status,
            bytes=sent,
            peer=peer,
            studio=studio,
            user=user,
        )
        self._lines.append(self._encode(line))
        if len(self._lines) >= MAX_GATHERED:
            self.flush()

    def flush(self) -> None:
        """Write what was gathered."""
        if self._file is None or not self._lines:
            return
        lines, self._lines = self._lines, []
        with contextlib.suppress(OSError):
            with self._file.open("ab") as out:
                out.write(b"\n".join(lines) + b"\n")
                size = out.tell()
            if size > MAX_FILE:
                self._file.replace(self._file.with_name(self._file.name + ".1"))
