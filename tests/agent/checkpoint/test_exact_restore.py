"""A nasty tree, captured and restored, is the same tree: by snapshot and without, whole and after changes."""

import os
import random
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from portico_agent.checkpoint.jobs import CaptureResult, Progress, RestoreResult
from portico_agent.checkpoint.loading import load
from portico_agent.checkpoint.saving import save
from support.btrfs_volume import btrfs_volume
from support.catalogue_world import CatalogueWorld, catalogue_world
from support.checkpoint_store import DirectGateway, Jobs
from support.nasty_tree import add_what_is_left_out, build_nasty, differences, look, remove_deep

LINEAGE = "l" + "0" * 16
pytestmark = pytest.mark.root


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[CatalogueWorld]:
    async with catalogue_world(tmp_path) as made:
        yield made


@pytest.fixture(params=["btrfs", "plain folder"])
def volume(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("owners and devices take root")
    if request.param == "btrfs":
        with btrfs_volume(tmp_path) as point:
            (point / "current" / "upper").mkdir()
            yield point
    else:
        (tmp_path / "folder" / "current" / "upper").mkdir(parents=True)
        yield tmp_path / "folder"
        remove_deep(tmp_path / "folder")


def quiet(_: Progress) -> None:
    pass


async def captured(world: CatalogueWorld, gateway: DirectGateway, jobs: Jobs, **changes: object) -> CaptureResult:
    result = await save(jobs.capture(**changes), gateway, quiet)  # type: ignore[arg-type]
    assert result.ok, result.error
    return result


async def restored(world: CatalogueWorld, gateway: DirectGateway, jobs: Jobs) -> RestoreResult:
    point = await world.catalogue.restore_point(gateway.run.session_id, None)
    assert point is not None
    result = await load(jobs.restore(point), gateway, quiet)
    assert result.ok, result.error
    assert not result.notes
    return result


async def begun(world: CatalogueWorld) -> DirectGateway:
    return DirectGateway(world, await world.run(await world.studio("s", LINEAGE)))


async def test_nasty_tree_comes_back_exactly(world: CatalogueWorld, volume: Path) -> None:
    upper = volume / "current" / "upper"
    build_nasty(upper)
    original = look(upper)
    add_what_is_left_out(upper)
    gateway = await begun(world)
    jobs = Jobs(gateway.run, volume)
    result = await captured(world, gateway, jobs)
    assert result.changed and result.head
    assert [path.name for path in volume.iterdir() if path.name.startswith(("snap-", "restore-"))] == []
    await restored(world, gateway, jobs)
    kept = look(upper)
    for path in [path for path in kept if path.split(b"/")[0] in (b"tmp", b"run", b"var", b"root", b"home")]:
        assert kept[path]["kind"] == stat.S_IFDIR, path
        del kept[path]
    del original[b"."]["mtime_ns"], kept[b"."]["mtime_ns"]  # folders were added to it meanwhile
    assert differences(original, kept) == []
    assert result.entries == len(look(upper))


async def test_unchanged_tree_sends_nothing_and_its_restored_copy_neither(world: CatalogueWorld, volume: Path) -> None:
    build_nasty(volume / "current" / "upper")
    gateway = await begun(world)
    jobs = Jobs(gateway.run, volume)
    first = await captured(world, gateway, jobs)
    sent = len(gateway.puts)
    second = await captured(world, gateway, jobs)
    assert (second.changed, second.head, second.uploaded_bytes) == (False, first.head, 0)
    assert len(gateway.puts) == sent and len(gateway.commits) == 1
    await restored(world, gateway, jobs)
    again = await captured(world, gateway, jobs, reason="start")
    assert (again.head, again.uploaded_bytes) == (first.head, 0)
    assert again.changed, "the index is new, so this row's head is committed once more"
    assert not (await captured(world, gateway, jobs)).changed


async def test_request_of_an_unchanged_tree_commits_the_same_head_to_its_row(
    world: CatalogueWorld, volume: Path
) -> None:
    (volume / "current" / "upper" / "file").write_text("x")
    gateway = await begun(world)
    jobs, run = Jobs(gateway.run, volume), gateway.run
    first = await captured(world, gateway, jobs)
    row = await world.catalogue.open_row(
        run.session_id, run_id=run.run_id, lineage=LINEAGE, generation=1, author_id=None, reason="request", name="mine"
    )
    asked = await captured(world, gateway, jobs, reason="request", row=row)
    assert (asked.changed, asked.name, asked.head, asked.uploaded_bytes) == (True, "mine", first.head, 0)


def edit_file(upper: Path) -> None:
    (upper / "plain").write_bytes(b"edited")


def append(upper: Path) -> None:
    with (upper / "large").open("ab") as file:
        file.write(b"more")


def edit_in_place_with_old_times(upper: Path) -> None:
    """Same size, same mtime: only the ctime tells."""
    info = (upper / "large").stat()
    with (upper / "large").open("r+b") as file:
        file.seek(2**20 + 3)
        file.write(b"EDIT")
    os.utime(upper / "large", ns=(info.st_atime_ns, info.st_mtime_ns))


def delete(upper: Path) -> None:
    (upper / "folder" / "inner" / "f010").unlink()
    (upper / "empty").unlink()


def rename_folder(upper: Path) -> None:
    (upper / "folder" / "inner").rename(upper / "moved")


def change_rights(upper: Path) -> None:
    for path in (upper / "folder" / "inner").iterdir():
        path.chmod(0o600)


def break_link(upper: Path) -> None:
    """The first name of two goes: the other one must get the content."""
    (upper / "a large one").unlink()


def add_earlier_link(upper: Path) -> None:
    os.link(upper / "plain", upper / "AAA first now")


def move_linked_folder(upper: Path) -> None:
    """A folder with later names moves in front of the first name, untouched itself."""
    (upper / "folder").rename(upper / "AAAA")


def replace_by_other_kinds(upper: Path) -> None:
    (upper / "plain").unlink()
    (upper / "plain").mkdir()
    (upper / "empty folder").rmdir()
    (upper / "empty folder").symlink_to("x")
    (upper / "fifo").unlink()
    (upper / "fifo").write_text("file now")


def change_attributes(upper: Path) -> None:
    os.setxattr(upper / "plain", b"user.long", b"short")
    os.removexattr(upper / "opaque", b"trusted.overlay.opaque")


def punch_holes(upper: Path) -> None:
    with (upper / "sparse").open("r+b") as file:
        file.seek(20 * 2**20)
        file.write(bytes(6000))
        file.seek(40 * 2**20)
        file.write(b"new island")


CHANGES = [
    edit_file, append, edit_in_place_with_old_times, delete, rename_folder, change_rights, break_link, add_earlier_link,
    move_linked_folder, replace_by_other_kinds, change_attributes, punch_holes,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
async def test_change_after_a_checkpoint_is_in_the_next(
    world: CatalogueWorld, volume: Path, change: Callable[[Path], None]
) -> None:
    upper = volume / "current" / "upper"
    build_nasty(upper)
    gateway = await begun(world)
    jobs = Jobs(gateway.run, volume)
    first = await captured(world, gateway, jobs)
    change(upper)
    changed = look(upper)
    second = await captured(world, gateway, jobs)
    assert second.changed and second.head != first.head
    await restored(world, gateway, jobs)
    assert differences(changed, look(upper)) == []


async def test_small_change_sends_little(world: CatalogueWorld, volume: Path) -> None:
    upper = volume / "current" / "upper"
    upper.joinpath("big").write_bytes(random.Random(7).randbytes(20 * 2**20))
    build_nasty(upper)
    gateway = await begun(world)
    jobs = Jobs(gateway.run, volume)
    await captured(world, gateway, jobs)
    with upper.joinpath("big").open("r+b") as file:
        file.seek(7 * 2**20 + 100)
        file.write(b"one block changes")
    second = await captured(world, gateway, jobs)
    assert 2**20 < second.uploaded_bytes < 1.3 * 2**20
    change_rights(upper)
    third = await captured(world, gateway, jobs)
    assert third.changed and third.uploaded_bytes < 60_000, "contents that are the same are not sent for new rights"


async def test_random_walks_of_changes_come_back(world: CatalogueWorld, volume: Path) -> None:
    """Many checkpoints in a row, each built on the one before: any of them is the tree of its moment."""
    upper, dice = volume / "current" / "upper", random.Random(11)
    gateway = await begun(world)
    jobs = Jobs(gateway.run, volume)
    for _ in range(8):
        for _ in range(dice.randrange(1, 12)):
            mutate(upper, dice)
        seen = look(upper)
        await captured(world, gateway, jobs)
        if dice.random() < 0.5:
            await restored(world, gateway, jobs)
            assert differences(seen, look(upper)) == []
    await restored(world, gateway, jobs)
    assert differences(seen, look(upper)) == []


def mutate(upper: Path, dice: random.Random) -> None:
    folders = [upper, *(path for path in upper.rglob("*") if path.is_dir() and not path.is_symlink())]
    files = [path for path in upper.rglob("*") if path.is_file() and not path.is_symlink()]
    folder, name = dice.choice(folders), f"n{dice.randrange(40)}"
    match dice.randrange(7):
        case 0 | 1 if not (folder / name).exists():
            (folder / name).write_bytes(dice.randbytes(dice.choice([0, 10, 5000, 300_000, 1_500_000])))
        case 2 if not (folder / name).exists():
            (folder / name).mkdir()
        case 3 if files:
            dice.choice(files).unlink()
        case 4 if files and not (folder / name).exists():
            os.link(dice.choice(files), folder / name)
        case 5 if files:
            with dice.choice(files).open("r+b") as file:
                file.seek(dice.randrange(1000))
                file.write(dice.randbytes(100))
        case 6 if len(folders) > 2 and not (upper / name).exists():
            dice.choice(folders[1:]).rename(upper / name)


DEFECTS: list[Callable[[Path], object]] = [
    lambda root: (root / "plain").write_bytes(b"other"),
    lambda root: (root / "plain").chmod(0o600),
    lambda root: os.chown(root / "plain", 1, 0),
    lambda root: os.utime(root / "plain", ns=(1, 1)),
    lambda root: os.setxattr(root / "plain", b"user.planted", b"1"),
    lambda root: os.removexattr(root / "owned", b"system.posix_acl_access"),
    lambda root: os.removexattr(root / "capable", b"security.capability"),
    lambda root: (root / "absolute").unlink(),
    lambda root: (root / "planted").touch(),
    lambda root: (
        (root / "folder" / "plain again").unlink(),
        (root / "folder" / "plain again").write_bytes(b"plain" * 3),
    ),
    lambda root: os.chown(root / "dangling", 1, 1, follow_symlinks=False),
    lambda root: os.truncate(root / "sparse", 50 * 2**20 + 1),
    lambda root: ((root / "whiteout").unlink(), (root / "whiteout").touch()),
    lambda root: os.removexattr(root / "opaque", b"trusted.overlay.opaque"),
]


@pytest.mark.parametrize("defect", range(len(DEFECTS)))
def test_comparer_sees_a_planted_difference(tmp_path: Path, defect: int) -> None:
    if os.geteuid() != 0:
        pytest.skip("owners and devices take root")
    root = tmp_path / "tree"
    root.mkdir()
    build_nasty(root)
    before = look(root)
    assert differences(before, look(root)) == []
    DEFECTS[defect](root)
    assert differences(before, look(root)) != []
    remove_deep(root)
