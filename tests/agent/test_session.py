"""A whole agent's life: real init, real tool, signatures checked; roads and engine written down."""

import asyncio
import os
import signal

from portico_agent.readiness import answers
from portico_shared.messages import CheckpointDone, MakeCheckpoint, RestorePoint, Step, Stop, Warning_
from support.agent_session import TOOL, home_of, plan, stage
from support.studio_init import alive

POINT = RestorePoint(head="ab" * 32, checkpoint_id=7, name="before lunch", size=1000)


def steps(control) -> list[tuple[str, str]]:
    return [(r.name, r.state) for r in control.reports if isinstance(r, Step)]


async def test_starts_a_tool_saves_it_and_leaves_when_told_to():
    async with stage() as on:
        await on.agent()
        status = await on.until_up()
        assert await answers(status.tool_port, "/")
        assert on.session.allowed(status.tool_port) and not on.session.allowed(status.tool_port + 1)
        await on.until(lambda c: [r for r in c.reports if isinstance(r, CheckpointDone) and r.reason == "start"])
        on.control.command(Stop(id="c1", reason="USER", grace=10))
        assert await on.ended() == 0
        assert on.control.answers[0].ok and on.control.answers[0].head == "head-2"
        assert list(dict.fromkeys(s.phase for s in on.control.statuses))[-2:] == ["stopping", "left"]
        reason, _, found = on.engine.captures[-1]
        assert reason == "stop" and "home/saved" in found, "the tool saves before the last checkpoint is taken"
        assert b"listening" in on.server.logs["tool"] and b"bye" in on.server.logs["tool"]
        assert await on.init.exit_code() == 0


async def test_steps_are_told_in_order():
    async with stage(plan(command=TOOL, restore=POINT)) as on:
        await on.agent()
        await on.until_up()
        told = [(name, state) for name in ("preparing", "restoring", "launching") for state in ("started", "done")]
        assert steps(on.control) == told
        phases = list(dict.fromkeys(s.phase for s in on.control.statuses))
        assert phases[-3:] == ["restoring", "launching", "running"]
        assert any(s.total == 1000 for s in on.control.statuses)
        assert (home_of(on) / "restored").read_text() == "before lunch"


async def test_what_a_dead_run_left_is_saved_and_kept_instead_of_restored():
    async with stage(plan(command=TOOL, restore=POINT, salvage=True)) as on:
        (on.settings.current / "home").mkdir(parents=True)
        (home_of(on) / "unsaved").write_text("work")
        await on.agent()
        await on.until_up()
        assert on.engine.captures[0][0] == "salvage" and "home/unsaved" in on.engine.captures[0][2]
        assert on.engine.restored == []
        assert (home_of(on) / "unsaved").read_text() == "work"


async def test_killed_agent_is_followed_by_one_that_adopts_the_tool():
    async with stage(plan(command=TOOL, restore=POINT)) as on:
        puppet = await on.agent()
        first = await on.until_up()
        tool = on.session.tool_pid
        os.kill(puppet.pid, signal.SIGKILL)
        await asyncio.gather(on.running, return_exceptions=True)
        (home_of(on) / "later").write_text("typed meanwhile")
        await on.agent()
        second = await on.until_up()
        assert second.agent == 2 and second.tool_port == first.tool_port and on.session.tool_pid == tool
        assert alive(tool) and len(on.engine.restored) == 1, "nothing is restored below a running tool"
        assert (home_of(on) / "later").exists()
        on.control.command(Stop(id="c1", reason="USER", grace=10))
        assert await on.ended() == 0 and not alive(tool)


async def test_tool_that_ends_by_itself_is_told_with_its_last_lines_and_the_run_waits():
    crash = (TOOL[0], "-c", "print('no such notebook', flush=True); raise SystemExit(3)")
    async with stage(plan(command=crash)) as on:
        await on.agent()
        status = await on.until(lambda c: next((s for s in c.statuses if s.tool == "exited"), None))
        assert status.exit_code == 3 and "no such notebook" in status.detail and status.phase == "running"
        on.control.command(Stop(id="c1", reason="USER"))
        assert await on.ended() == 0
        assert on.control.answers[0].ok


async def test_sigterm_saves_with_its_own_reason():
    async with stage() as on:
        await on.agent()
        await on.until_up()
        on.init.send(signal.SIGTERM)
        assert await on.ended() == 0
        assert on.engine.captures[-1][0] == "signal" and "home/saved" in on.engine.captures[-1][2]
        assert await on.init.exit_code() == 0


async def test_failed_last_checkpoint_is_answered_in_words_and_the_volume_stays():
    async with stage() as on:
        await on.agent()
        await on.until_up()
        await on.until(lambda c: [r for r in c.reports if isinstance(r, CheckpointDone)])
        on.engine.failures = 100
        on.session.clock.sleep = _at_once  # type: ignore[method-assign]
        on.control.command(Stop(id="c1", reason="USER", grace=10))
        assert await on.ended() == 1
        answer = on.control.answers[0]
        assert not answer.ok and "on fire" in answer.detail and "next start" in answer.detail
        assert on.control.statuses[-1].phase == "left" and on.control.statuses[-1].checkpoint_lag > 0
        assert (home_of(on) / "saved").exists()


async def _at_once(_: float) -> None:
    await asyncio.sleep(0)


async def test_stop_while_restoring_saves_nothing_half():
    async with stage(plan(command=TOOL, restore=POINT)) as on:
        on.engine.holds = asyncio.Event()
        await on.agent()
        await on.engine.begun.wait()
        on.control.command(Stop(id="c1", reason="USER"))
        assert await on.ended() == 0
        assert on.engine.captures == [] and on.control.answers[0].ok
        assert on.control.statuses[-1].phase == "left"


async def test_stop_waits_for_a_checkpoint_under_way():
    async with stage() as on:
        on.engine.holds = asyncio.Event()
        await on.agent()
        await on.until_up()
        await on.engine.begun.wait()
        on.control.command(Stop(id="c1", reason="USER", grace=10))
        await on.until(lambda c: c.statuses[-1].phase == "stopping")
        on.engine.holds.set()
        assert await on.ended() == 0
        assert on.engine.captures[-1][0] == "stop"


async def test_checkpoint_on_request_is_answered_with_its_head():
    async with stage() as on:
        await on.agent()
        await on.until(lambda c: [r for r in c.reports if isinstance(r, CheckpointDone)])
        on.control.command(MakeCheckpoint(id="c7", row=12))
        answer = await on.until(lambda c: c.answers and c.answers[0])
        assert answer.id == "c7" and answer.ok and answer.head == "head-2"
        assert on.engine.captures[-1][:2] == ("request", 12)
        on.engine.failures = 1
        on.control.command(MakeCheckpoint(id="c8"))
        answer = await on.until(lambda c: c.answers[1:] and c.answers[1])
        assert not answer.ok and "on fire" in answer.detail


async def test_checkpoints_repeat_at_the_plan_s_interval():
    async with stage(plan(command=TOOL, checkpoint_interval=0.05)) as on:
        await on.agent()
        await on.until(lambda c: len([r for r in c.reports if isinstance(r, CheckpointDone)]) > 3)
        assert {reason for reason, _, _ in on.engine.captures} - {"start"} == {"interval"}


async def test_tool_that_cannot_start_ends_the_run_with_the_reason():
    async with stage(plan(command=("/no/such/program",))) as on:
        await on.agent()
        assert await on.ended() == 1
        assert on.control.statuses[-1].phase == "left"
        assert "/no/such/program" in on.control.statuses[-1].detail
        failed = [r for r in on.control.reports if isinstance(r, Step) and r.state == "failed"]
        assert failed[0].name == "launching" and "/no/such/program" in failed[0].detail
        assert await on.init.exit_code() == 1


async def test_run_that_is_over_ends_without_a_word():
    async with stage() as on:
        await on.agent()
        await on.until_up()
        on.server.over = True
        assert await on.ended() == 2
        assert on.engine.captures[1:] == []
        assert await on.init.exit_code() == 2


async def test_disk_nearly_full_warns_once_and_the_studio_goes_on(monkeypatch):
    monkeypatch.setattr("portico_agent.watch.DISK_SECONDS", 0.01)
    monkeypatch.setattr("portico_agent.watch.free_share", lambda _: 0.03)
    async with stage() as on:
        await on.agent()
        await on.until_up()
        await on.until(lambda c: [r for r in c.reports if isinstance(r, Warning_)])
        await asyncio.sleep(0.1)
        warnings = [r for r in on.control.reports if isinstance(r, Warning_)]
        assert len(warnings) == 1 and warnings[0].kind == "disk" and "nearly full" in warnings[0].detail


async def test_given_port_is_only_tunnelled_to():
    server = await asyncio.start_server(_hello, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, stage(plan(tool_port=port), root="none") as on:
        await on.agent()
        status = await on.until_up()
        assert status.tool_port == port and on.session.allowed(port)
        on.control.command(Stop(id="c1", reason="USER"))
        assert await on.ended() == 0
        assert on.engine.captures == []


async def _hello(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    await writer.drain()
    writer.close()


async def test_agent_that_starts_while_the_studio_is_stopped_still_saves_it():
    async with stage() as on:
        puppet = await on.agent()
        await on.until_up()
        await on.until(lambda c: [r for r in c.reports if isinstance(r, CheckpointDone)])
        on.engine.holds = asyncio.Event()  # so that the first agent does not get through
        on.init.send(signal.SIGTERM)
        await on.until(lambda c: c.statuses[-1].phase == "stopping")
        os.kill(puppet.pid, signal.SIGKILL)
        await asyncio.gather(on.running, return_exceptions=True)
        on.engine.holds = None
        await on.agent()
        assert await on.ended() == 0
        assert on.engine.captures[-1][0] == "signal" and "home/saved" in on.engine.captures[-1][2]


async def test_told_to_leave_before_the_gateway_answers_it_leaves(monkeypatch):
    monkeypatch.setattr("portico_agent.session.IDENTIFY_PATIENCE", 0.1)
    async with stage() as on:
        on.server.failures = [503] * 1000
        await on.agent()
        on.init.send(signal.SIGTERM)
        assert await on.ended() == 1
        assert await on.init.exit_code() == 1 and on.engine.captures == []
