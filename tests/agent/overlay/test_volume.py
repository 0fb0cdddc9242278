"""The volume: made ready, personal, and a btrfs subvolume where that can be."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from portico_agent.errors import RootError
from portico_agent.overlay.places import ensure_file, ensure_folder
from portico_agent.overlay.root import RootSpec
from portico_agent.overlay.volume import fingerprint, personalise, prepare_volume, root_spec
from portico_agent.settings import AgentSettings, Secrets
from support.agent_gateway import HOST, RUN


def settings_of(folder: Path, root: str = "overlay") -> AgentSettings:
    (folder / "state").mkdir(exist_ok=True)
    return AgentSettings(
        run=RUN, gateway="unix:/nowhere", host=HOST, state=folder / "state", volume=folder, root=root,  # type: ignore[arg-type]
        tools=folder / "tools", lower=("/",), log_level="info", secrets=Secrets(run_token="t", seed=bytes(32)),
    )  # fmt: skip


def test_prepares_once_and_keeps_what_is_there(tmp_path: Path):
    volume = prepare_volume(settings_of(tmp_path))
    assert volume.upper.is_dir() and (volume.current / "work").is_dir() and not volume.subvolume
    assert (tmp_path / "tmp").stat().st_mode & 0o7777 == 0o1777
    (volume.upper / "file").write_text("kept")
    (tmp_path / "tmp" / "scratch").write_text("gone")
    prepare_volume(settings_of(tmp_path))
    assert (volume.upper / "file").read_text() == "kept" and not (tmp_path / "tmp" / "scratch").exists()
    (tmp_path / "tmp" / "scratch").write_text("in use")
    prepare_volume(settings_of(tmp_path), keep_tmp=True)
    assert (tmp_path / "tmp" / "scratch").exists()


def test_folders_have_a_private_home(tmp_path: Path):
    volume = prepare_volume(settings_of(tmp_path, "folders"))
    assert (volume.current / "home").stat().st_mode & 0o777 == 0o700
    assert (volume.current / "workspace").is_dir() and not volume.upper.exists()
    spec = root_spec(settings_of(tmp_path, "folders"), volume)
    assert spec.home == str(volume.current / "home") and "/run/portico" in spec.hide


def test_unusable_volume_is_told_in_words(tmp_path: Path):
    (tmp_path / "current").write_text("a file where a folder should be")
    with pytest.raises(RootError, match="disk full or read-only"):
        prepare_volume(settings_of(tmp_path))


def test_root_spec_survives_the_channel(tmp_path: Path):
    spec = root_spec(settings_of(tmp_path), prepare_volume(settings_of(tmp_path)))
    assert RootSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert {file.target for file in spec.files} >= {"/etc/hosts"}
    assert spec.lower == ("/",) and spec.work.endswith("current/work")


def test_first_start_makes_a_machine_id_and_a_fork_another(tmp_path: Path):
    volume = prepare_volume(settings_of(tmp_path))
    identity = volume.upper / "etc/machine-id"
    personalise(volume, forked=False)
    first = identity.read_text()
    assert len(first) == 33
    personalise(volume, forked=False)
    assert identity.read_text() == first
    keys = volume.upper / "etc/ssh"
    keys.mkdir()
    (keys / "ssh_host_ed25519_key").write_text("the parent's")
    (keys / "sshd_config").write_text("Port 22")
    personalise(volume, forked=True)
    assert identity.read_text() != first
    assert [p.name for p in keys.iterdir()] == ["sshd_config"]


def test_links_in_the_upper_are_not_followed_when_it_is_made_personal(tmp_path: Path):
    volume = prepare_volume(settings_of(tmp_path))
    outside = tmp_path / "outside"
    (outside / "ssh").mkdir(parents=True)
    (outside / "ssh" / "ssh_host_rsa_key").write_text("not ours")
    (volume.upper / "etc").symlink_to(outside)
    personalise(volume, forked=True)
    assert sorted(p.name for p in outside.iterdir()) == ["ssh"] and (outside / "ssh" / "ssh_host_rsa_key").exists()
    (volume.upper / "etc" / "ssh").symlink_to(outside / "ssh")
    (volume.upper / "etc" / "machine-id").unlink()
    (volume.upper / "etc" / "machine-id").symlink_to(outside / "machine-id")
    personalise(volume, forked=True)
    assert (outside / "ssh" / "ssh_host_rsa_key").exists() and not (outside / "machine-id").exists()


def test_fingerprint_is_the_same_twice():
    assert fingerprint() == fingerprint() and len(fingerprint()) == 16


def test_places_are_made_without_following_links(tmp_path: Path):
    outside = tmp_path / "outside"
    outside.mkdir()
    root = tmp_path / "root"
    root.mkdir()
    (root / "opt").symlink_to(outside)
    (root / "file").write_text("in the way")
    made = ensure_folder(root, "opt/portico/tools")
    assert made.is_dir() and not (root / "opt").is_symlink() and list(outside.iterdir()) == []
    assert ensure_folder(root, "file/below").is_dir()
    (root / "opt" / "names").symlink_to(outside / "names")
    assert ensure_file(root, "opt/names").is_file() and not (outside / "names").exists()
    kept = ensure_file(root, "opt/kept")
    kept.write_text("kept")
    assert ensure_file(root, "opt/kept").read_text() == "kept"
    with pytest.raises(ValueError):
        ensure_folder(root, "../outside/x")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a loop mount in a namespace of its own")
def test_current_is_a_subvolume_on_btrfs(tmp_path: Path):
    """In a process of its own: mount and loop device end with its namespace."""
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(160 * 2**20)
    subprocess.run(["mkfs.btrfs", "-q", str(image)], check=True)
    script = f"""
import subprocess, sys
from pathlib import Path
from portico_agent.overlay import syscalls
syscalls.unshare(syscalls.CLONE_NEWNS)
syscalls.mount("", "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
folder = Path({str(tmp_path)!r}, "volume")
folder.mkdir()
subprocess.run(["mount", "-o", "loop", {str(image)!r}, str(folder)], check=True)
sys.path.insert(0, {str(Path(__file__).parent)!r})
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from test_volume import settings_of
from portico_agent.overlay.volume import prepare_volume
volume = prepare_volume(settings_of(folder))
print(volume.subvolume, volume.upper.is_dir())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.split() == ["True", "True"], done.stderr
