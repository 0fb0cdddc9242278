"""The channel between portico-init and the agent: JSON objects, one a line, on a Unix socket.

    agent -> init   {"id": 7, "do": "<command>", …}         commands: see `supervisor.Init.COMMANDS`
    init -> agent   {"id": 7, "ok": true, …} or {"id": 7, "ok": false, "error": "…"}
    init -> agent   {"event": "exited", …}, {"event": "ended", …}, {"event": "stop", …}

Only the agent that init itself started may speak: the kernel says which process is at the other end.
"""

import contextlib
import json
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

MAX_LINE = 1024 * 1024
"""Bytes. The longest is a spawn with its environment; the kernel allows an environment of 2 MiB at most."""
MAX_BACKLOG = 4 * MAX_LINE
"""Unsent bytes at which an agent that does not read is cut off: it will come back and ask for the state."""

Message = dict[str, Any]


class Lines:
    """Bytes in, JSON objects out. Raises ValueError for anything else, or for a line that is too long."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Message]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_LINE:
            raise ValueError("line too long")
        found = [json.loads(line) for line in lines if line.strip()]
        if not all(isinstance(message, dict) for message in found):
            raise ValueError("not an object")
        return found


def to_line(message: Message) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


class Connection:
    """One agent's end, non-blocking. `receive` and `flush` raise OSError or ValueError when it is over."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self.socket = end
        self._lines = Lines()
        self._unsent = b""

    @property
    def peer(self) -> int:
        """Process id at the other end, from the kernel."""
        raw = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return int(struct.unpack("3i", raw)[0])

    @property
    def wants_to_write(self) -> bool:
        return bool(self._unsent)

    def receive(self) -> list[Message]:
        try:
            data = self.socket.recv(65536)
        except BlockingIOError:
            return []
        if not data:
            raise EOFError
        return self._lines.feed(data)

    def send(self, message: Message) -> None:
        self._unsent += to_line(message)
        if len(self._unsent) > MAX_BACKLOG:
            raise ValueError("the agent does not read")
        self.flush()

    def flush(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._unsent:
                self._unsent = self._unsent[self.socket.send(self._unsent) :]

    def close(self) -> None:
        self.socket.close()


def listen(path: Path) -> socket.socket:
    """A Unix socket that its owner alone may open."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    listener.listen(4)
    listener.setblocking(False)
    return listener


Handler = Callable[[Message], Message]
"""Answers one command's message with the fields of its reply. Raises ValueError, KeyError, TypeError or OSError."""
