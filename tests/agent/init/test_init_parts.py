"""The parts of portico-init that need no process."""

from pathlib import Path

import pytest

from portico_agent import launch
from portico_agent.init.boundedlog import BoundedLog
from portico_agent.init.channel import MAX_LINE, Lines, to_line
from portico_agent.init.configuration import agent_environment, configure
from portico_agent.init.tool import Ending, EndStage


def test_log_reads_back_across_its_two_files(tmp_path: Path):
    log = BoundedLog(tmp_path / "tool.log", limit=100)
    written = b"".join(b"%09d\n" % i for i in range(30))
    for at in range(0, len(written), 7):
        log.write(written[at : at + 7])
    first, data = log.read(0, 1000)
    assert 150 < first < 260
    while first + len(data) < len(written):
        _, more = log.read(first + len(data), 1000)
        data += more
    assert data == written[first:] and log.end == len(written)
    assert sum(f.stat().st_size for f in tmp_path.iterdir()) <= 100
    assert log.read(len(written) + 5, 10) == (len(written), b"")


def test_one_write_larger_than_the_log_keeps_its_end(tmp_path: Path):
    log = BoundedLog(tmp_path / "tool.log", limit=64)
    log.write(bytes(range(256)))
    first, data = log.read(0, 1000)
    assert data and data == bytes(range(256))[first : first + len(data)]


def test_log_survives_a_folder_that_is_gone(tmp_path: Path):
    folder = tmp_path / "state"
    folder.mkdir()
    log = BoundedLog(folder / "tool.log")
    folder.rmdir()
    log.write(b"lost")
    assert log.read(0, 10) == (0, b"")


def test_lines_come_whole_however_they_are_cut():
    sent = to_line({"id": 1, "do": "status"}) + to_line({"id": 2, "text": "ü\n"})
    for cut in range(len(sent)):
        lines = Lines()
        assert [m["id"] for m in lines.feed(sent[:cut]) + lines.feed(sent[cut:])] == [1, 2]


@pytest.mark.parametrize("bad", [b"[1]\n", b"nonsense\n", b"x" * (MAX_LINE + 1), b"\xff\xfe\n"])
def test_what_is_no_message_is_refused(bad: bytes):
    with pytest.raises(ValueError):
        Lines().feed(bad)


def test_ending_goes_from_asking_to_killing():
    ending = Ending(grace=30)
    ending.begin(100)
    assert ending.advance(100, tool_runs=True) is None
    assert ending.advance(129, tool_runs=True) is None
    assert ending.advance(130, tool_runs=True) is EndStage.KILL
    assert ending.advance(130.01, tool_runs=False) is None
    assert ending.advance(131, tool_runs=False) is EndStage.KILL


def test_ending_asks_the_rest_once_the_tool_is_gone():
    ending = Ending(grace=30)
    ending.begin(100)
    assert ending.advance(101, tool_runs=False) is EndStage.REST
    assert ending.advance(101.5, tool_runs=False) is None
    assert ending.advance(103.1, tool_runs=False) is EndStage.KILL


def test_agent_gets_no_credential_and_nothing_of_the_machine_s():
    given = {"PORTICO_RUN": "r1", "PORTICO_RUN_TOKEN": "secret", "AWS_SECRET_ACCESS_KEY": "secret", "LANG": "C.UTF-8"}
    found = agent_environment(given)
    assert found["PORTICO_RUN"] == "r1" and found["LANG"] == "C.UTF-8" and "secret" not in found.values()


def test_missing_or_strange_settings_are_told_in_words(tmp_path: Path):
    with pytest.raises(SystemExit, match="set PORTICO_STATE"):
        configure({}, ())
    with pytest.raises(SystemExit, match="are seconds"):
        configure({"PORTICO_STATE": str(tmp_path), "PORTICO_RUN_TOKEN": "t", "PORTICO_GRACE": "soon"}, ())
    configuration = configure({"PORTICO_STATE": str(tmp_path / "s"), "PORTICO_RUN_TOKEN": "tttt"}, ("agent",))
    assert "tttt" not in repr(configuration) and (tmp_path / "s").stat().st_mode & 0o777 == 0o700


def test_launcher_finds_the_packages_wherever_it_lies(tmp_path: Path):
    for package in ("portico_agent", "portico_shared"):
        (tmp_path / "src" / package).mkdir(parents=True)
        (tmp_path / "src" / package / "__init__.py").touch()
    (tmp_path / "src" / "platlib").mkdir()
    wanted = [str(tmp_path / "src"), str(tmp_path / "src/platlib"), str(tmp_path / "site")]
    assert launch.import_path(tmp_path) == wanted
    assert launch.import_path(tmp_path / "src/portico_agent") == wanted
    checkout = launch.import_path(Path(launch.__file__).parent)
    assert all(
        (Path(folder) / name).is_dir()
        for folder, name in zip(checkout, ("portico_agent", "portico_shared"), strict=True)
    )
