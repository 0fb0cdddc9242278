"""A run's log on disk: one file per stream, and one in the order of arrival.

    <data>/runs/<run id>/{build,agent,tool}.log    what each wrote, byte for byte, at most MAX_FILE
    <data>/runs/<run id>/all.log                   all of it as it came in
    <data>/runs/<run id>/gathered                  how much of agent.log stands in all.log already

On this machine the compute environment writes agent.log itself; `gather` takes over into all.log what is new there.

Pieces come with the offset they have in their stream, so a piece sent twice is written once.
"""

import shutil
from pathlib import Path
from typing import Literal, get_args

from portico_gateway.errors import BadRequest, TooLarge
from portico_gateway.studios.values import LogChunk
from portico_shared.ids import is_run_id

Stream = Literal["agent", "tool", "build"]
MAX_PIECE = 256 * 1024
MAX_FILE = 16 * 1024 * 1024
"""Bytes of one stream that are kept: days of a talkative tool; a run cannot fill the gateway's disk."""
FULL = f"\n[the log is full at {MAX_FILE // 1024 // 1024} MiB: what follows is not kept]\n".encode()


class RunLogs:
    """All methods are short synchronous file work: callers on the event loop use a thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def append(self, run_id: str, stream: str, offset: int, data: bytes) -> int:
        """Write a piece; the answer is the offset to go on from. Raises BadRequest or TooLarge."""
        if stream not in get_args(Stream):
            raise BadRequest(f"unknown log stream; known: {', '.join(get_args(Stream))}")
        if len(data) > MAX_PIECE:
            raise TooLarge(f"a piece of a log has at most {MAX_PIECE} bytes")
        if offset < 0 or offset > 1 << 62:
            raise BadRequest("a log's offset is 0 or more")
        file = self._file(run_id, stream)
        size = file.stat().st_size if file.exists() else 0
        if size >= MAX_FILE:
            return max(offset + len(data), MAX_FILE)
        fresh = data[max(0, size - offset) :]
        if offset > size:
            fresh = _gap(min(offset, MAX_FILE) - size) + fresh
        if fresh:
            fresh = fresh[: MAX_FILE - size]
            self._write(file, fresh + (FULL if size + len(fresh) >= MAX_FILE else b""))
            if stream != "agent":
                self._write_all(run_id, fresh)
        return max(offset + len(data), size)

    def gather(self, run_id: str) -> None:
        """Bring all.log up to date with an agent.log that somebody else writes. May be repeated."""
        file, mark = self._file(run_id, "agent"), self._run_folder(run_id) / "gathered"
        if not file.exists():
            return
        text = mark.read_text() if mark.exists() else "0"
        done = int(text) if text.isdigit() else file.stat().st_size
        with file.open("rb") as source:
            source.seek(done)
            fresh = source.read(MAX_FILE)
        if fresh:
            self._write_all(run_id, fresh)
            mark.write_text(str(done + len(fresh)))

    def say(self, run_id: str, stream: Stream, text: str) -> None:
        """Add a line of our own."""
        file = self._file(run_id, stream)
        data = text.rstrip("\n").encode(errors="replace")[: MAX_PIECE - 1] + b"\n"
        self.append(run_id, stream, file.stat().st_size if file.exists() else 0, data)

    def read(self, run_id: str, stream: str, offset: int, *, over: bool) -> LogChunk:
        """At most MAX_PIECE bytes from `offset` on, never half a character. `over`: nothing will be added."""
        if stream not in (*get_args(Stream), "all"):
            raise BadRequest(f"unknown log stream; known: all, {', '.join(get_args(Stream))}")
        if offset < 0 or offset > 1 << 62:
            raise BadRequest("a log's offset is 0 or more")
        file = self._file(run_id, stream)
        if not file.exists():
            return LogChunk("", 0, over)
        size = file.stat().st_size
        with file.open("rb") as source:
            source.seek(min(offset, size))
            data = source.read(MAX_PIECE)
        start = min(offset, size)
        at_end = start + len(data) >= size
        if not (at_end and over):
            data = data[: len(data) - _cut_character(data)]
        following = start + len(data)
        return LogChunk(data.decode(errors="replace"), following, over and following >= size)

    def tail(self, run_id: str, stream: Stream, lines: int = 12) -> str:
        """The last lines, at most 4 KiB."""
        file = self._file(run_id, stream)
        if not file.exists():
            return ""
        with file.open("rb") as source:
            source.seek(max(0, file.stat().st_size - 4096))
            text = source.read(4096).decode(errors="replace")
        return "\n".join(text.rstrip().splitlines()[-lines:])

    def forget(self, run_id: str) -> None:
        shutil.rmtree(self._run_folder(run_id), ignore_errors=True)

    def _write(self, file: Path, data: bytes) -> None:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with file.open("ab") as out:
            out.write(data)

    def _write_all(self, run_id: str, data: bytes) -> None:
        file = self._file(run_id, "all")
        size = file.stat().st_size if file.exists() else 0
        if size < MAX_FILE:
            self._write(file, data if size + len(data) < MAX_FILE else data[: MAX_FILE - size] + FULL)

    def _run_folder(self, run_id: str) -> Path:
        if not is_run_id(run_id):
            raise BadRequest("that is not a run's id")
        return self._folder / run_id

    def _file(self, run_id: str, stream: str) -> Path:
        return self._run_folder(run_id) / f"{stream}.log"


def _gap(length: int) -> bytes:
    """What stands for bytes that never came, so that offsets stay those of the stream."""
    return f"\n[{length} bytes of the log were lost]".encode()[: length - 1].ljust(length - 1) + b"\n"


def _cut_character(data: bytes) -> int:
    """How many bytes at the end are the beginning of a character (0..3)."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 == 0x80:
            continue
        needed = 2 if byte >> 5 == 0b110 else 3 if byte >> 4 == 0b1110 else 4 if byte >> 3 == 0b11110 else 1
        return back if needed > back else 0
    return 0
