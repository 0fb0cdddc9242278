"""Folders and files below a root whose content someone else chose: made and opened without following a symlink.

A studio may have replaced `/opt/portico` by a link to anywhere; whoever mounts there as real root must not follow it.
"""

import contextlib
import os
import stat
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def ensure_folder(root: Path, path: str, mode: int = 0o755) -> Path:
    """The folder `path` below `root`, made where it is missing; what is no folder (a link, a file) gives way.

    Returns its full name, of which no component below `root` is a link. Raises OSError.
    """
    here = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in _components(path):
            there = _open_folder(here, name, mode)
            os.close(here)
            here = there
    finally:
        os.close(here)
    return root.joinpath(*_components(path))


def ensure_file(root: Path, path: str) -> Path:
    """A regular file `path` below `root` to mount upon; a link gives way, an existing file keeps its content."""
    *folders, name = _components(path)
    folder = ensure_folder(root, "/".join(folders))
    full = folder / name
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISREG(full.lstat().st_mode):
            return full
        if not stat.S_ISDIR(full.lstat().st_mode):
            full.unlink()
    os.close(os.open(full, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644))
    return full


def is_folder(root: Path, path: str) -> bool:
    """Whether `path` below `root` is a folder, with no link on the way."""
    full = root
    for name in _components(path):
        full = full / name
        try:
            if not stat.S_ISDIR(full.lstat().st_mode):
                return False
        except OSError:
            return False
    return True


def _components(path: str) -> list[str]:
    names = [name for name in path.split("/") if name]
    if ".." in names or "." in names:
        raise ValueError(f"not a plain path: {path}")
    return names


def _open_folder(parent: int, name: str, mode: int) -> int:
    try:
        return os.open(name, _FOLDER, dir_fd=parent)
    except FileNotFoundError:
        pass
    except NotADirectoryError:
        os.unlink(name, dir_fd=parent)  # O_NOFOLLOW|O_DIRECTORY reports a link this way, too
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, mode, dir_fd=parent)
    return os.open(name, _FOLDER, dir_fd=parent)
