"""The interpreter and the agent's files as a studio is shown them, wherever they lie on this machine."""

import importlib.util
import os
import sys
import sysconfig
from pathlib import Path

from portico_gateway.errors import Unavailable

INSIDE = "/opt/portico/python"
"""Where a studio finds our interpreter: tools' environments are made for this place."""
_ORIGIN = b"$ORIGIN/../lib"


def prefix() -> Path:
    """The folder of the interpreter that runs us, without any virtual environment."""
    return Path(sys.base_prefix)


def agent_files() -> dict[str, str]:
    """What lies below /opt/portico/agent: name -> path here. Raises Unavailable when the agent is not installed."""
    files = {"site": sysconfig.get_path("purelib")}
    if (platform := sysconfig.get_path("platlib")) != files["site"]:
        files["src/platlib"] = platform
    for package in ("portico_agent", "portico_shared"):
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise Unavailable(f"the package {package} is not installed beside the gateway: install it to start studios")
        files[f"src/{package}"] = str(Path(spec.submodule_search_locations[0]).resolve())
    files["launch.py"] = files["src/portico_agent"] + "/launch.py"
    return files


def source_folders() -> list[Path]:
    """Our own code and environment, which no studio needs to see."""
    found = [Path(sys.prefix)] if sys.prefix != sys.base_prefix else []
    spec = importlib.util.find_spec("portico_gateway")
    if spec is not None and spec.submodule_search_locations:
        package = Path(spec.submodule_search_locations[0]).resolve()
        checkout = package.parents[1]
        found.append(checkout if (checkout / "pyproject.toml").exists() else package)
    return found


def movable_binary(keep: Path) -> Path | None:
    """A copy of the interpreter that finds its shared library relative to itself; None when ours does already.

    Builds with a shared libpython (pyenv's) carry the absolute path of their own library folder; shown elsewhere they
    would not start. The string in the copy is replaced in place by a shorter one that means "beside me".
    """
    binary = (prefix() / "bin" / "python3").resolve()
    library = os.fsencode(sys.base_prefix) + b"/lib\0"
    if not sysconfig.get_config_var("Py_ENABLE_SHARED") or len(library) <= len(_ORIGIN):
        return None
    content = binary.read_bytes()
    if b"\0" + library not in content:
        return None
    found = binary.stat()
    copy = keep / f"{binary.name}-{found.st_mtime_ns:x}-{found.st_size:x}"
    if not copy.exists():
        keep.mkdir(parents=True, exist_ok=True)
        unfinished = keep / f"{copy.name}.{os.getpid()}"
        unfinished.write_bytes(content.replace(b"\0" + library, b"\0" + _ORIGIN.ljust(len(library), b"\0")))
        unfinished.chmod(0o755)
        unfinished.rename(copy)
    return copy


def own_interpreter() -> str:
    """The interpreter that runs us, with our own packages: what an unconfined run is started with."""
    return sys.executable
