"""A tree, folder by folder, depth first with names sorted as bytes; by descriptors, so that no link is ever followed.

Deeper than a path may be long works, for every step opens one name. Other file systems mounted inside are not entered.
"""

import contextlib
import os
import resource
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from portico_agent.checkpoint.exclusions import Exclusions
from portico_shared.checkpoint.entries import SELF
from portico_shared.checkpoint.limits import MAX_PATH

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
MAX_DEPTH = 4000
"""Folders open at once: one a level, so the limit of descriptors counts, too."""
SPARE = 300
"""Descriptors left for everything else."""


_counting = threading.Lock()


class Handle:
    """A descriptor that several threads use; the last one to release it closes it."""

    __slots__ = ("_users", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self._users = 1

    def hold(self) -> "Handle":
        with _counting:
            self._users += 1
        return self

    def release(self) -> None:
        with _counting:
            self._users -= 1
            last = self._users == 0
        if last:
            os.close(self.number)


@dataclass(slots=True)
class Listing:
    """One folder: names in order, each with its lstat. The layer's root names itself first (SELF)."""

    path: bytes
    handle: Handle
    names: list[bytes]
    stats: list[os.stat_result]


Note = Callable[[str, bytes], None]
"""Told why a path is left out that people would expect to be kept."""


class Walk:
    """Iterate over it once. A listing's handle is good until the next one is asked for; hold it for longer."""

    def __init__(self, root: int, exclusions: Exclusions, note: Note | None = None) -> None:
        self._root = root
        self._exclusions = exclusions
        self._device = os.fstat(root).st_dev
        self._note = note or _ignore
        self._depth = min(MAX_DEPTH, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE)

    def __iter__(self) -> Iterator[Listing]:
        stack: list[tuple[Handle, bytes, Iterator[bytes]]] = []
        try:
            handle, path = Handle(os.dup(self._root)), b""
            while True:
                listing = self._list(path, handle)
                stack.append((handle, path, iter(self._folders(listing))))
                yield listing
                following = self._next(stack)
                if following is None:
                    return
                handle, path = following
        finally:
            for handle, _, _ in stack:
                handle.release()

    def _next(self, stack: list[tuple[Handle, bytes, Iterator[bytes]]]) -> tuple[Handle, bytes] | None:
        """The next folder that can be opened, from the innermost outwards."""
        while stack:
            handle, path, names = stack[-1]
            for name in names:
                full = path + b"/" + name if path else name
                if len(stack) >= self._depth or len(full) > MAX_PATH - 256:
                    self._note("too deep", full)
                    continue
                try:
                    return Handle(os.open(name, _FOLDER, dir_fd=handle.number)), full
                except (FileNotFoundError, NotADirectoryError):
                    continue  # it changes while nobody holds it still
                except PermissionError:
                    self._note("it may not be read", full)
            stack.pop()
            handle.release()
        return None

    def _list(self, path: bytes, handle: Handle) -> Listing:
        if self._exclusions.empties(path):
            return Listing(path, handle, [], [])
        found: list[tuple[bytes, os.stat_result]] = []
        with os.scandir(handle.number) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    name = os.fsencode(entry.name)
                    if not (name.endswith(b".pid") and self._exclusions.drops(path, name)):
                        found.append((name, entry.stat(follow_symlinks=False)))
        found.sort(key=_by_name)
        if not path:
            found.insert(0, (SELF, os.fstat(handle.number)))
        return Listing(path, handle, [name for name, _ in found], [info for _, info in found])

    def _folders(self, listing: Listing) -> list[bytes]:
        folders = []
        for name, info in zip(listing.names, listing.stats, strict=True):
            if stat.S_ISDIR(info.st_mode) and name != SELF:
                if info.st_dev == self._device:
                    folders.append(name)
                else:
                    self._note("on another file system", listing.path + b"/" + name)
        return folders


def _ignore(why: str, path: bytes) -> None:
    pass


def _by_name(found: tuple[bytes, os.stat_result]) -> bytes:
    return found[0]
