"""What is left out of every checkpoint: caches that fill themselves again, state of one run, secrets of one run.

Paths are matched inside the layer, component by component; `*` stands for one whole component. What is inside is left
out, the folder itself stays. In folders mode the same rules count below `home`.
"""

from collections.abc import Iterable
from typing import Literal

_ROOT = (
    "tmp", "run", "var/run", "var/lock", "proc", "sys", "dev", "opt/portico",
    "var/cache/apt", "var/lib/apt/lists", "var/cache/apk", "var/cache/dnf", "var/cache/yum",
)  # fmt: skip
_HOME = (
    ".cache/pip", ".cache/uv", ".cache/conda", ".cache/yarn", ".npm/_cacache",
    ".local/share/jupyter/runtime", ".portico",
)  # fmt: skip
HOMES = ("root", "home/*")
PID_FOLDERS = ("var",)
"""Below these, files named `*.pid` are left out: they would name a process of another run."""


def rules(root: Literal["overlay", "folders"]) -> tuple[str, ...]:
    """Folders whose content is left out, as people are told."""
    if root == "folders":
        return tuple(f"home/{path}" for path in _HOME)
    return _ROOT + tuple(f"{home}/{path}" for home in HOMES for path in _HOME)


class Exclusions:
    """Answers quickly for a walk that goes folder by folder."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._patterns = [tuple(part.encode() for part in pattern.split("/")) for pattern in patterns]
        self._longest = max((len(pattern) for pattern in self._patterns), default=0)

    def empties(self, path: bytes) -> bool:
        """Whether all inside this folder is left out."""
        if not path or path.count(b"/") >= self._longest:
            return False
        parts = tuple(path.split(b"/"))
        return any(_fits(pattern, parts) for pattern in self._patterns)

    def drops(self, folder: bytes, name: bytes) -> bool:
        """Whether this one name is left out."""
        return name.endswith(b".pid") and folder.split(b"/", 1)[0].decode("latin-1") in PID_FOLDERS


def _fits(pattern: tuple[bytes, ...], parts: tuple[bytes, ...]) -> bool:
    return len(pattern) == len(parts) and all(want in (b"*", have) for want, have in zip(pattern, parts, strict=True))
