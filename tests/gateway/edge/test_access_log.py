import json
from pathlib import Path

from portico_gateway.edge import access_log
from portico_gateway.edge.access_log import AccessLog
from portico_gateway.edge.head import parse
from portico_shared.clock import JumpingClock
from support.edge_world import edge_world
from support.roads import until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def lines(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


async def test_each_request_is_one_line_without_its_query():
    async with edge_world() as world:
        await world.saying(OK)
        file = world.settings.data / "logs" / "access.jsonl"
        await world.get("GET /lab?code=secret HTTP/1.1")
        await world.get("GET /api HTTP/1.1", cookie=False)
        await world.get("GET / HTTP/1.1", host="evil.test")
        await until(lambda: len(lines(file)) == 3)
        seen = [(line["path"], line["status"], line["studio"], line["user"]) for line in lines(file)]
        assert seen == [("/lab", 200, "00000001", 7), ("/api", 401, "00000001", 0), ("/", 421, "", 0)]
        assert "secret" not in file.read_text() and "portico-studio" not in file.read_text()


async def test_quiet_level_writes_nothing():
    async with edge_world(log_level="warning") as world:
        await world.saying(OK)
        await world.get()
        assert not (world.settings.data / "logs").exists()


def test_hostile_fields_are_bounded_and_harmless(tmp_path: Path):
    log = AccessLog(tmp_path / "access.jsonl", JumpingClock())
    request = parse(b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: \x9b31m" + b"h" * 500)
    log.record(request, 421, 0, "192.0.2.1", "", 0)
    log.flush()
    (line,) = lines(tmp_path / "access.jsonl")
    assert len(str(line["path"])) == 300 and len(str(line["host"])) == 100 and "\x9b" not in str(line["host"])


def test_full_file_makes_room(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(access_log, "MAX_FILE", 1000)
    log = AccessLog(tmp_path / "access.jsonl", JumpingClock())
    request = parse(b"GET / HTTP/1.1\r\nHost: a.test")
    for _ in range(42):
        log.record(request, 200, 2, "192.0.2.1", "", 0)
        log.flush()
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 2500
    assert {file.name for file in tmp_path.iterdir()} == {"access.jsonl", "access.jsonl.1"}


def test_disk_that_takes_nothing_stops_no_request(tmp_path: Path):
    log = AccessLog(tmp_path / "absent" / "access.jsonl", JumpingClock())
    log.record(parse(b"GET / HTTP/1.1\r\nHost: a.test"), 200, 2, "192.0.2.1", "", 0)
    log.flush()
