"""How the control process is told to end.

SIGTERM            just end: studios live on, the next control adopts them
SIGUSR1, SIGINT    stop every studio first, each with its final checkpoint, then end
<run>/leave-studios, a file that appears meanwhile: end now all the same, studios live on
"""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path

from portico_shared.clock import Clock

LOOK_EVERY = 0.5


class Ending:
    """`asked` is set when the process is to end; `stop_studios` says whether studios are stopped before."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.abandon = asyncio.Event()
        self.stop_studios = False

    def just_end(self) -> None:
        self.abandon.set()
        self.asked.set()

    def stop_first(self) -> None:
        if not self.asked.is_set():
            self.stop_studios = True
            self.asked.set()


@contextlib.asynccontextmanager
async def signals(ending: Ending) -> AsyncIterator[None]:
    """Take the signals while the block lasts, and give them back."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, ending.just_end)
    for number in (signal.SIGUSR1, signal.SIGINT):
        loop.add_signal_handler(number, ending.stop_first)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            loop.remove_signal_handler(number)


async def watch_for_file(file: Path, ending: Ending, clock: Clock) -> None:
    """Abandon the stopping of studios when `file` appears; it is removed."""
    while True:
        if file.exists():
            file.unlink(missing_ok=True)
            ending.just_end()
            return
        await clock.sleep(LOOK_EVERY)
