"""Installs a tool once for all studios of this machine: an environment of its own below the data folder.

    tools/jupyterlab/<key>/     bin/ lib/ … made by venv and pip from the packaged lock, hashes checked
    tools/jupyterlab/.lock      held by who installs; everyone else waits and finds it done

The key stands for the lock, the interpreter and the place it will be seen at, so a new lock is a new folder and running
studios keep theirs. A folder appears under its name only when it is whole. Studios see it read-only at
/opt/portico/tools/jupyterlab with our interpreter at /opt/portico/python; its programs are started through
`bin/python -m …`, so that no script's first line matters.

pip is the user's: its configuration files and PIP_… variables count, for mirrors and certificates.
"""

import asyncio
import fcntl
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from portico_gateway.compute.local import python_home
from portico_gateway.errors import NotFound, Unavailable

LOCKS = Path(__file__).with_name("locks")
INSTALL_TIMEOUT = 1800.0  # seconds; JupyterLab takes 15 to 90, a slow line some minutes
LONGEST_LINE = 2000  # characters of one log line; pip's progress never needs them
LOCK_POLL = 0.25  # seconds; file locks tell nobody when they come free
KEPT_LINES = 15  # of the installer's last words, for the error
NEEDED_SPACE = 1024**3  # bytes; JupyterLab takes 250 MB and pip as much again while it works
_NO_VENV = (
    "this Python cannot make environments (ensurepip is missing): on Debian and Ubuntu run "
    "'sudo apt-get install python3-venv', then start the studio again"
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A tool's folder below tools/, its lock, and a module that proves that it is there."""

    folder: str
    lock: Path
    module: str


RECIPES = {"jupyter": Recipe("jupyterlab", LOCKS / "jupyterlab.txt", "jupyterlab")}


class ToolInstaller:
    """Tools below `tools`; `moved`: studios see tools and interpreter below /opt/portico, not where they lie."""

    def __init__(self, tools: Path, *, moved: bool = True, recipes: dict[str, Recipe] = RECIPES) -> None:
        self._tools = tools
        self._moved = moved
        self._recipes = recipes

    def installed(self, tool: str) -> bool:
        """True for a tool that needs nothing installed, too."""
        return tool not in self._recipes or self.tools_dir(tool).is_dir()

    def folder(self, tool: str) -> Path | None:
        """Where it lies once installed; None = the tool needs no folder."""
        return self.tools_dir(tool) if tool in self._recipes else None

    def tools_dir(self, tool: str) -> Path:
        """Raises NotFound for a tool that is not installed by us."""
        recipe = self._recipe(tool)
        return self._tools / recipe.folder / self._key(recipe)

    async def install(self, tool: str, log: Callable[[str], None]) -> None:
        """Install unless it is there; `log` gets the lines as they come. At any moment at most one process installs.
        Raises Unavailable with the installer's last words; nothing half is left."""
        recipe, place = self._recipe(tool), self.tools_dir(tool)
        place.parent.mkdir(parents=True, exist_ok=True)
        async with _exclusive(place.parent / ".lock", log):
            if place.is_dir():
                return
            self._check_space()
            unfinished = Path(tempfile.mkdtemp(prefix=".new-", dir=place.parent))
            try:
                async with asyncio.timeout(INSTALL_TIMEOUT):
                    await self._fill(recipe, unfinished, log)
                unfinished.chmod(0o755)
                unfinished.rename(place)
            except TimeoutError:
                raise Unavailable(
                    f"installing {recipe.folder} took longer than {INSTALL_TIMEOUT / 60:.0f} min"
                ) from None
            finally:
                await asyncio.to_thread(shutil.rmtree, unfinished, ignore_errors=True)
            self._drop_leftovers(place.parent)
        log(f"{recipe.folder} is installed.\n")

    def _recipe(self, tool: str) -> Recipe:
        if tool not in self._recipes:
            raise NotFound(f"there is no tool '{tool[:100]}' to install; there are: {', '.join(self._recipes)}")
        return self._recipes[tool]

    def _key(self, recipe: Recipe) -> str:
        seen_at = python_home.INSIDE if self._moved else sys.base_prefix
        stands_for = f"{platform.python_version()} {platform.machine()} {seen_at} 1\n".encode()
        return blake2b(stands_for + recipe.lock.read_bytes(), digest_size=8).hexdigest()

    def _check_space(self) -> None:
        free = shutil.disk_usage(self._tools).free
        if free < NEEDED_SPACE:
            raise Unavailable(
                f"{self._tools} has {free / 1024**3:.1f} GiB left, and installing takes "
                f"{NEEDED_SPACE / 1024**3:.0f} GiB: make room there"
            )

    async def _fill(self, recipe: Recipe, place: Path, log: Callable[[str], None]) -> None:
        log(f"Installing {recipe.folder} for the first time …\n")
        if importable("ensurepip") is False:
            raise Unavailable(_NO_VENV)
        await _run([str(base_interpreter()), "-I", "-m", "venv", str(place)], log)
        pip = [str(place / "bin" / "python"), "-m", "pip", "install", "--no-input", "--progress-bar", "off"]
        pip += [
            "--disable-pip-version-check",
            "--no-warn-script-location",
            "--only-binary",
            ":all:",
            "--require-hashes",
        ]
        await _run([*pip, "-r", str(recipe.lock)], log)
        await _run([str(place / "bin" / "python"), "-I", "-c", f"import {recipe.module}"], log)
        if self._moved:
            move_home(place, python_home.INSIDE)

    def _drop_leftovers(self, folder: Path) -> None:
        """What an installer that was killed left; we hold the lock, so nobody works in there."""
        for path in folder.glob(".new-*"):
            shutil.rmtree(path, ignore_errors=True)


def base_interpreter() -> Path:
    return Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"


def importable(module: str) -> bool:
    """Whether the interpreter that will make the environment has this module of the standard library."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return any(Path(sys.base_prefix, lib, version, module).is_dir() for lib in ("lib", "lib64"))


def move_home(place: Path, home: str) -> None:
    """Let the environment in `place` find its interpreter below `home`, wherever that is when it is started."""
    binary = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for name in ("python", "python3", binary):
        link = place / "bin" / name
        link.unlink(missing_ok=True)
        link.symlink_to(f"{home}/bin/{binary}" if name == binary else binary)
    config = place / "pyvenv.cfg"
    kept = [
        line for line in config.read_text().splitlines() if line.split("=")[0].strip() not in ("executable", "command")
    ]
    lines = [f"home = {home}/bin" if line.split("=")[0].strip() == "home" else line for line in kept]
    config.write_text("\n".join(lines) + "\n")


async def _run(command: list[str], log: Callable[[str], None]) -> None:
    """Run to the end with live lines. Raises Unavailable with the last of them; ends the program when cancelled."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PORTICO_", "PYTHON"))}
    program = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**environment, "PYTHONUNBUFFERED": "1", "PIP_REQUIRE_VIRTUALENV": "0"},
        start_new_session=True,
    )
    last: list[str] = []
    try:
        async for line in _lines(program):
            log(line)
            last = [*last[-KEPT_LINES + 1 :], line]
        code = await program.wait()
    finally:
        if program.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(program.pid, 9)
            await program.wait()
    if code != 0:
        raise Unavailable(f"{Path(command[0]).name} ended with {code}: {''.join(last).strip()[-1500:] or 'no word'}")


async def _lines(program: asyncio.subprocess.Process) -> AsyncIterator[str]:
    assert program.stdout is not None
    rest = b""
    while piece := await program.stdout.read(65536):
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace")[:LONGEST_LINE] + "\n"
        rest = rest[-LONGEST_LINE:]
    if rest:
        yield rest.decode(errors="replace") + "\n"


@asynccontextmanager
async def _exclusive(lock: Path, log: Callable[[str], None]) -> AsyncIterator[None]:
    """The lock goes away with the process that holds it, killed or not."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log("Waiting for another studio's installation of the same tool …\n")
            while True:
                if _try_lock(file.fileno()):
                    break
                await asyncio.sleep(LOCK_POLL)
        yield


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
