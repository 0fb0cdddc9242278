"""The one door for a task that outlives the function that starts it: named, referenced, its failure logged.

Everything else lives in an `asyncio.TaskGroup`. The event loop keeps only weak references to tasks, hence the set.
"""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

_running: set[asyncio.Task[Any]] = set()
_log = logging.getLogger(__name__)


def spawn(coro: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
    """Start `coro` as a task of its own. The caller may keep the task to cancel or await it."""
    task = asyncio.create_task(coro, name=name)  # noqa: TID251 - this is the one door
    _running.add(task)
    task.add_done_callback(_finished)
    return task


def _finished(task: asyncio.Task[Any]) -> None:
    _running.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("task %s failed", task.get_name(), exc_info=error)


def heed_cancellation() -> None:
    """Raise CancelledError if the current task was asked to end and nobody noticed.

    Before Python 3.12 `asyncio.wait_for` swallows a cancellation that comes in the same moment as its result. Call
    this after awaiting a library that uses it, wherever a loop would go on for ever otherwise.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
