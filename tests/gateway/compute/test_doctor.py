"""What the doctor says of machines that lack something."""

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from portico_gateway import doctor
from portico_gateway.compute.local.abilities import Abilities, find_abilities
from portico_gateway.doctor import Finding, examine
from portico_gateway.settings import Settings

EVERYTHING = Abilities(
    root_namespaces="", overlay="", user_namespaces="", btrfs="", veth="", pasta="", slirp="", foreign_firewall=""
)


def look(monkeypatch: pytest.MonkeyPatch, data: Path, **lacks: str) -> dict[str, Finding]:
    monkeypatch.setattr(doctor, "find_abilities", lambda: replace(EVERYTHING, **lacks))  # type: ignore[arg-type]
    return {finding.name: finding for finding in examine(Settings(data=data))}


def test_a_machine_with_everything_needs_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = look(monkeypatch, tmp_path)
    for name in ("Isolation", "Overlay", "Snapshots", "Network"):
        assert found[name].state == "ok"
        assert found[name].remedy == ""


def test_each_thing_missing_is_named_with_a_way_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor.shutil, "which", lambda program: None)
    monkeypatch.setattr(doctor, "importable", lambda module: False)
    lacks = ("root_namespaces", "overlay", "user_namespaces", "btrfs", "veth", "pasta", "slirp")
    found = look(monkeypatch, tmp_path, **{name: f"no {name}" for name in lacks})
    assert found["Python"].remedy.endswith("apt-get install python3-venv")
    assert found["Isolation"].state == "warn"
    assert "only the account that started Portico" in found["Isolation"].meaning
    assert found["Overlay"].state == "warn"
    assert found["Snapshots"].remedy.endswith("apt-get install btrfs-progs")
    assert found["Network"].state == "missing"
    assert all(found[name].remedy for name in ("Isolation", "Overlay", "Network"))


def test_somebody_elses_firewall_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = look(monkeypatch, tmp_path, foreign_firewall="table 'ip filter' drops forwarded packets")
    assert "table 'ip filter' drops" in found["Network"].meaning
    assert "pasta" in found["Network"].meaning


def test_a_port_in_use_is_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "find_abilities", lambda: EVERYTHING)
    with socket.create_server(("127.0.0.1", 0)) as server:
        listen = f"127.0.0.1:{server.getsockname()[1]}"
        found = {finding.name: finding for finding in examine(Settings(data=tmp_path, listen=listen))}
    assert found[f"Port {listen}"].state == "warn"


def test_a_data_folder_that_is_not_there_yet_is_looked_at_through_its_parent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert "GiB free" in look(monkeypatch, tmp_path / "not" / "yet")["Disk"].meaning
    assert not (tmp_path / "not").exists(), "looking changes nothing"


def test_a_small_disk_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "DISK_FLOOR", 1 << 60)
    assert look(monkeypatch, tmp_path)["Disk"].state == "missing"


def test_trials_on_this_machine_end_and_leave_nothing() -> None:
    before = Path("/proc/self/mountinfo").read_text()
    first, second = find_abilities(), find_abilities()
    assert first == second
    assert Path("/proc/self/mountinfo").read_text() == before
    assert not list(Path("/tmp").glob("portico-trial-*"))
