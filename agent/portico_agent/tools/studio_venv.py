"""Makes the studio's own Python environment: `python -I -c <this file> VENV LINKS PROFILE`, run by the tool's Python.

VENV    a virtual environment that belongs to the studio; made when missing, never emptied
LINKS   a folder of links to the kernel's own packages (ipykernel, pip and what they need) in the tool's environment.
        VENV has it last on its import path: kernels run at once, checkpoints carry no copy, and whatever is installed
        into VENV comes first. Outside VENV, so that pip replaces these packages by installing, not by deleting them.
PROFILE a file for login shells that puts VENV on PATH; '' = none

Standard library and what stands in the tool's environment (`packaging`) only; it runs inside the studio's root.
"""

import importlib.metadata as metadata
import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOTS = ("ipykernel", "pip")
KERNEL = {
    "display_name": "Python 3",
    "language": "python",
    "metadata": {"debugger": True},
}
QUIET = {
    "@jupyterlab/apputils-extension:notification": {
        "checkForUpdates": False,
        "fetchNews": "false",
        "doNotDisturbMode": False,
    }
}
PIP = """#!{python}
import sys
from pip._internal.cli.main import main
sys.argv[0] = "pip"
sys.exit(main())
"""
PROFILE_TEXT = 'case ":$PATH:" in *":{bin}:"*) ;; *) PATH="{bin}:$PATH"; export PATH ;; esac\n'


def main(venv_path: str, links: str, profile: str) -> None:
    target = Path(venv_path)
    keep_other_version_aside(target)
    if not (target / "bin" / "python").exists():
        make(target)
    link_packages(Path(links))
    site_packages(target).joinpath("portico-kernel.pth").write_text(f"{links}\n")
    write_pip(target)
    write_json(target / "share/jupyter/kernels/python3/kernel.json", {"argv": kernel_command(target), **KERNEL})
    write_json(target / "etc/jupyter/labconfig/default_setting_overrides.json", QUIET)
    if profile and not Path(profile).exists() and Path(profile).parent.is_dir():
        Path(profile).write_text(PROFILE_TEXT.format(bin=target / "bin"))


def make(target: Path) -> None:
    """A bare environment on the tool's base interpreter, which is shown at the same place in every run."""
    venv.EnvBuilder(symlinks=True, with_pip=False).create(target)


def site_packages(target: Path) -> Path:
    return target / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"


def keep_other_version_aside(target: Path) -> None:
    """An environment of another Python (the machine was upgraded) cannot run: keep it, with what was installed."""
    if not target.exists() or (site_packages(target).is_dir() and runs(target)):
        return
    if site_packages(target).is_dir():
        shutil.rmtree(target / "bin", ignore_errors=True)  # same version, moved interpreter: only the links are stale
        return
    aside = target.with_name(f"{target.name}-before-{sys.version_info[0]}.{sys.version_info[1]}")
    shutil.rmtree(aside, ignore_errors=True)
    target.rename(aside)
    sys.stdout.write(f"{target} was made for another Python and is kept as {aside}. Install your packages again.\n")


def runs(target: Path) -> bool:
    try:
        return subprocess.run([target / "bin/python", "-I", "-c", ""], capture_output=True).returncode == 0
    except OSError:
        return False


def link_packages(links: Path) -> None:
    """Links are made anew at each start: the tool's environment may be a newer one."""
    shutil.rmtree(links, ignore_errors=True)
    links.mkdir(parents=True)
    for distribution in closure(ROOTS):
        base = Path(str(distribution.locate_file("")))
        tops = {file.parts[0] for file in distribution.files or () if file.parts[0] not in ("..", "__pycache__")}
        for name in tops:
            if not (links / name).is_symlink():
                (links / name).symlink_to(base / name)
        libraries = base / f"{distribution.metadata['Name'].replace('-', '_')}.libs"
        if libraries.is_dir() and not (links / libraries.name).is_symlink():
            (links / libraries.name).symlink_to(libraries)


def closure(roots: tuple[str, ...]) -> list[metadata.Distribution]:
    """The distributions these need, themselves included, as installed beside this interpreter."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    found: dict[str, metadata.Distribution] = {}
    todo = list(roots)
    while todo:
        name = canonicalize_name(todo.pop())
        if name in found:
            continue
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        for text in found[name].requires or ():
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                todo.append(needed.name)
    return list(found.values())


def write_pip(target: Path) -> None:
    for name in ("pip", "pip3"):
        script = target / "bin" / name
        if not script.exists():
            script.write_text(PIP.format(python=target / "bin/python"))
            script.chmod(0o755)


def kernel_command(target: Path) -> list[str]:
    return [str(target / "bin/python"), "-Xfrozen_modules=off", "-m", "ipykernel_launcher", "-f", "{connection_file}"]


def write_json(file: Path, content: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


if __name__ == "__main__":
    os.umask(0o022)
    main(*sys.argv[1:4])
