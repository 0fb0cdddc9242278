"""Installing a tool: a small one, from a wheel made here, with real venv and pip."""

import asyncio
import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from portico_gateway.compute.local import python_home, tool_install
from portico_gateway.compute.local.tool_install import RECIPES, Recipe, ToolInstaller
from portico_gateway.errors import NotFound, Unavailable

WHEEL = "tinytool-1.0-py3-none-any.whl"


@pytest.fixture
def lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / WHEEL, "w") as wheel:
        wheel.writestr("tinytool.py", "import sys\nprint(sys.prefix, sys.base_prefix)\n")
        wheel.writestr("tinytool-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tinytool\nVersion: 1.0\n")
        wheel.writestr("tinytool-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("tinytool-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    digest = hashlib.sha256((wheels / WHEEL).read_bytes()).hexdigest()
    lock = tmp_path / "tiny.txt"
    lock.write_text(f"tinytool==1.0 --hash=sha256:{digest}\n")
    return lock


def installer(tmp_path: Path, lock: Path, *, moved: bool = False) -> ToolInstaller:
    return ToolInstaller(tmp_path / "tools", moved=moved, recipes={"tiny": Recipe("tiny", lock, "tinytool")})


async def test_two_at_once_install_once_and_both_find_it(tmp_path: Path, lock: Path) -> None:
    first, second = installer(tmp_path, lock), installer(tmp_path, lock)
    assert not first.installed("tiny")
    said: list[str] = []
    heard: list[str] = []
    await asyncio.gather(first.install("tiny", said.append), second.install("tiny", heard.append))
    assert first.installed("tiny")
    assert second.installed("tiny")
    assert sum("Successfully installed" in line for line in said + heard) == 1
    assert any("Waiting for another" in line for line in said + heard)
    assert [path.name for path in (tmp_path / "tools" / "tiny").iterdir() if path.is_dir()] == [
        first.tools_dir("tiny").name
    ]
    await first.install("tiny", said.append)
    assert sum("Successfully installed" in line for line in said + heard) == 1


async def test_a_moved_tool_looks_for_its_interpreter_where_studios_have_it(tmp_path: Path, lock: Path) -> None:
    found = installer(tmp_path, lock, moved=True)
    await found.install("tiny", lambda line: None)
    place = found.tools_dir("tiny")
    assert f"home = {python_home.INSIDE}/bin" in (place / "pyvenv.cfg").read_text()
    assert str((place / "bin" / "python").readlink()).startswith("python3.")
    assert str(Path(place / "bin" / (place / "bin" / "python").readlink()).readlink()).startswith(python_home.INSIDE)
    assert str(tmp_path) not in (place / "pyvenv.cfg").read_text()


async def test_an_unmoved_tool_runs_where_it_lies(tmp_path: Path, lock: Path) -> None:
    found = installer(tmp_path, lock)
    await found.install("tiny", lambda line: None)
    place = found.tools_dir("tiny")
    done = subprocess.run([place / "bin" / "python", "-m", "tinytool"], capture_output=True, text=True)  # noqa: ASYNC221
    assert done.stdout.split() == [str(place), sys.base_prefix]


async def test_a_wrong_hash_installs_nothing_and_says_so(tmp_path: Path, lock: Path) -> None:
    lock.write_text("tinytool==1.0 --hash=sha256:" + "0" * 64 + "\n")
    found = installer(tmp_path, lock)
    with pytest.raises(Unavailable, match="DO NOT MATCH"):
        await found.install("tiny", lambda line: None)
    assert not found.installed("tiny")
    assert [path.name for path in (tmp_path / "tools" / "tiny").iterdir()] == [".lock"]


async def test_a_cancelled_installation_leaves_nothing_and_may_be_repeated(tmp_path: Path, lock: Path) -> None:
    found = installer(tmp_path, lock)
    began = asyncio.Event()
    task = asyncio.ensure_future(found.install("tiny", lambda line: began.set()))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [path.name for path in (tmp_path / "tools" / "tiny").iterdir()] == [".lock"]
    await found.install("tiny", lambda line: None)
    assert found.installed("tiny")


async def test_a_killed_installers_leftovers_go_with_the_next(tmp_path: Path, lock: Path) -> None:
    found = installer(tmp_path, lock)
    left = found.tools_dir("tiny").parent / ".new-killed"
    left.mkdir(parents=True)
    await found.install("tiny", lambda line: None)
    assert not left.exists()


async def test_a_python_without_ensurepip_is_told_in_words(
    tmp_path: Path, lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool_install, "importable", lambda module: module != "ensurepip")
    with pytest.raises(Unavailable, match="apt-get install python3-venv"):
        await installer(tmp_path, lock).install("tiny", lambda line: None)


async def test_a_full_disk_is_told_before_anything_is_fetched(
    tmp_path: Path, lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool_install, "NEEDED_SPACE", 1 << 60)
    with pytest.raises(Unavailable, match="make room there"):
        await installer(tmp_path, lock).install("tiny", lambda line: None)


async def test_tools_that_need_nothing_are_there_and_unknown_ones_cannot_be_installed(tmp_path: Path) -> None:
    found = ToolInstaller(tmp_path)
    assert found.installed("custom")
    assert found.folder("custom") is None
    with pytest.raises(NotFound, match="there is no tool 'custom'"):
        await found.install("custom", lambda line: None)


def test_the_packaged_lock_pins_everything_by_hash_and_names_no_place() -> None:
    text = RECIPES["jupyter"].lock.read_text()
    pins = [line for line in text.splitlines() if line and not line.startswith((" ", "#", "-"))]
    assert {"jupyterlab", "jupyter-collaboration", "ipykernel"} <= {line.split("==")[0] for line in pins}
    assert all(line.endswith("\\") for line in pins)
    assert "://" not in text


def test_another_lock_is_another_folder(tmp_path: Path, lock: Path) -> None:
    found = installer(tmp_path, lock)
    before = found.tools_dir("tiny")
    lock.write_text(lock.read_text() + "\n")
    assert found.tools_dir("tiny") != before
    assert installer(tmp_path, lock, moved=True).tools_dir("tiny") != found.tools_dir("tiny")
