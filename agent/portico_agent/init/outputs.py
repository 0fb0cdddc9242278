"""What the tool, its steps and the agent write: read by init itself into bounded logs, whoever else is alive."""

import contextlib
import os
import selectors
from pathlib import Path

from portico_agent.init.boundedlog import BoundedLog

PIECE = 64 * 1024
MOST_PIECES_AT_ONCE = 32
"""A program that writes for ever must not keep init from its other duties."""
STREAMS = ("tool", "agent")


class Outputs:
    """Owns the reading ends of all output pipes."""

    def __init__(self, state: Path, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._streams: dict[int, str] = {}
        self.logs = {name: BoundedLog(state / f"{name}.log") for name in STREAMS}

    def follow(self, read: int, stream: str) -> None:
        """Read this pipe to its end; it is closed then."""
        os.set_blocking(read, False)
        self._streams[read] = stream
        self._selector.register(read, selectors.EVENT_READ, lambda: self._move(read))

    def say(self, text: str) -> None:
        """A line of init's own, beside the agent's."""
        self._keep("agent", f"portico-init: {text}\n".encode())

    def drain(self) -> None:
        """So that what a process said last is in the log when its end is told."""
        for read in list(self._streams):
            for _ in range(MOST_PIECES_AT_ONCE):
                if not self._move(read):
                    break

    def _move(self, read: int) -> bool:
        """Move what is there into the log; False when nothing is."""
        stream = self._streams.get(read)
        if stream is None:
            return False  # drained and closed earlier in this turn
        try:
            data = os.read(read, PIECE)
        except BlockingIOError:
            return False
        if not data:
            self._selector.unregister(read)
            del self._streams[read]
            os.close(read)
            return False
        self._keep(stream, data)
        return True

    def _keep(self, stream: str, data: bytes) -> None:
        self.logs[stream].write(data)
        if stream == "agent":
            with contextlib.suppress(OSError):
                os.write(2, data)  # also where whoever started the sandbox looks
