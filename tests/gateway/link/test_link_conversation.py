"""Both ends of the link over a real Unix socket."""

import asyncio
import stat
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from portico_gateway.errors import Forbidden, Unavailable
from portico_gateway.link.client import LinkClient, Question
from portico_gateway.link.framing import pack
from portico_gateway.link.messages import (
    CheckRun,
    CheckToken,
    ControlMessage,
    Hello,
    Keys,
    Presence,
    Probe,
    ProbeReply,
    Route,
    Routes,
    Tunnels,
    Verdict,
)
from portico_gateway.link.server import LinkServer
from portico_shared.backoff import Backoff

STUDIO, RUN = "00000001", "r" + "0" * 16
SNAPSHOT = (Keys(public_keys=(b"k" * 32,), generation=1), Routes(routes=()))


class Control:
    """A handler that remembers; `gate` holds answers back."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[tuple[str, object]] = asyncio.Queue()
        self.gate = asyncio.Event()
        self.gate.set()
        self.at_once = self.most_at_once = 0
        self.more = asyncio.Condition()

    async def reached(self, questions: int) -> None:
        """Wait until so many questions are in work at once."""
        async with self.more:
            await self.more.wait_for(lambda: self.at_once >= questions)

    async def answer(self, message: Question) -> Verdict:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        async with self.more:
            self.more.notify_all()
        try:
            await self.gate.wait()
        finally:
            self.at_once -= 1
        if isinstance(message, CheckRun):
            return Verdict(id=0, status=200, run=message.token, session_id=STUDIO)
        if isinstance(message, CheckToken):
            raise Forbidden("this token may not open this studio")
        raise RuntimeError("a fault of ours")

    def told(self, worker: str, message: object) -> None:
        self.heard.put_nowait((worker, message))

    def snapshot(self) -> Sequence[ControlMessage]:
        return SNAPSHOT


class Edge:
    """A client whose pushes can be awaited."""

    def __init__(self, path: Path, name: str = "w1", tunnels: Sequence[Tunnels] = ()) -> None:
        self.pushed: asyncio.Queue[ControlMessage] = asyncio.Queue()
        self.link = LinkClient(
            path,
            Hello(worker=name, pid=1),
            self.pushed.put_nowait,
            greet=lambda: tunnels,
            backoff=Backoff(base=0.01, cap=0.05),
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Edge"]:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(self.link.run())
            await self.link.connected.wait()
            yield self
            task.cancel()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "link.sock"


async def test_a_worker_gets_the_snapshot_first_and_then_what_is_pushed(path: Path) -> None:
    async with LinkServer(path, Control()) as server, Edge(path).running() as edge:
        assert [await edge.pushed.get(), await edge.pushed.get()] == list(SNAPSHOT)
        route = Route(session_id=STUDIO, state="starting")
        server.push(route)
        assert await edge.pushed.get() == route


async def test_the_socket_is_for_its_owner_alone(path: Path) -> None:
    async with LinkServer(path, Control()):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()


async def test_questions_are_answered_each_with_its_own_verdict(path: Path) -> None:
    async with LinkServer(path, Control()), Edge(path).running() as edge:
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(edge.link.ask(CheckRun(id=0, token=f"t{n}"))) for n in range(300)]
        assert [task.result().run for task in asked] == [f"t{n}" for n in range(300)]


async def test_an_error_of_control_becomes_a_status_with_its_sentence(path: Path) -> None:
    async with LinkServer(path, Control()), Edge(path).running() as edge:
        verdict = await edge.link.ask(CheckToken(id=0, token="t", session_id=STUDIO, peer="p"))
        assert (verdict.status, verdict.message) == (403, "this token may not open this studio")


async def test_a_fault_in_control_is_500_and_the_link_lives_on(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from portico_gateway.link.messages import Renew

    async with LinkServer(path, Control()), Edge(path).running() as edge:
        assert (await edge.link.ask(Renew(id=0, cookie="c", session_id=STUDIO))).status == 500
        assert "a fault of ours" in caplog.text
        assert (await edge.link.ask(CheckRun(id=0, token="t"))).status == 200


async def test_a_worker_has_a_bounded_number_of_questions_in_work(path: Path) -> None:
    control = Control()
    control.gate.clear()
    async with LinkServer(path, control), Edge(path).running() as edge:
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(edge.link.ask(CheckRun(id=0, token=f"t{n}"))) for n in range(600)]
            await control.reached(256)
            for _ in range(50):
                await asyncio.sleep(0)
            control.gate.set()
        assert control.most_at_once == 256
        assert all(task.result().status == 200 for task in asked)


async def test_asking_while_control_is_away_says_so_at_once(path: Path) -> None:
    edge = Edge(path)
    with pytest.raises(Unavailable):
        await edge.link.ask(CheckRun(id=0, token="t"))


async def test_a_slow_answer_is_unavailable_after_the_timeout(path: Path) -> None:
    control = Control()
    control.gate.clear()
    async with LinkServer(path, control), Edge(path).running() as edge:
        with pytest.raises(Unavailable, match="did not answer"):
            await edge.link.ask(CheckRun(id=0, token="t"), timeout=0.05)


async def test_a_restart_of_control_fails_open_questions_and_greets_again(path: Path) -> None:
    control = Control()
    control.gate.clear()
    tunnels = Tunnels(run=RUN, session_id=STUDIO, connections=8)
    first = LinkServer(path, control)
    await first.__aenter__()
    async with Edge(path, tunnels=[tunnels]).running() as edge:
        async with asyncio.TaskGroup() as group:
            asked = group.create_task(_unavailable(edge.link.ask(CheckRun(id=0, token="t"))))
            await control.reached(1)
            await first.__aexit__(None, None, None)
        assert "restarting" in asked.result()
        reborn = Control()
        async with LinkServer(path, reborn) as second:
            assert (await reborn.heard.get())[1] == Hello(worker="w1", pid=1)
            assert await reborn.heard.get() == ("w1", tunnels)
            assert second.connections(STUDIO) == 8


async def _unavailable(asked) -> str:  # type: ignore[no-untyped-def]
    with pytest.raises(Unavailable) as caught:
        await asked
    return caught.value.message


async def test_a_lost_worker_takes_its_tunnels_and_people_back(path: Path) -> None:
    control = Control()
    async with LinkServer(path, control) as server:
        async with Edge(path).running() as edge:
            edge.link.tell(Tunnels(run=RUN, session_id=STUDIO, connections=3))
            edge.link.tell(Presence(session_id=STUDIO, users=((1, 5.0),)))
            said = [(await control.heard.get())[1] for _ in range(3)]
            assert said[1:] == [
                Tunnels(run=RUN, session_id=STUDIO, connections=3),
                Presence(session_id=STUDIO, users=((1, 5.0),)),
            ]
        assert [(await control.heard.get())[1] for _ in range(2)] == [
            Tunnels(run=RUN, session_id=STUDIO, connections=0),
            Presence(session_id=STUDIO, users=()),
        ]
        assert server.connections(STUDIO) == 0 and server.workers == ()


async def test_a_probe_takes_the_first_answer_of_the_workers_that_have_tunnels(path: Path) -> None:
    tunnels = [Tunnels(run=RUN, session_id=STUDIO, connections=1)]
    async with LinkServer(path, control := Control()) as server:
        async with Edge(path, "a", tunnels).running() as silent, Edge(path, "b", tunnels).running() as good:
            async with Edge(path, "c").running() as without:
                for _ in range(5):
                    await control.heard.get()
                async with asyncio.TaskGroup() as group:
                    asked = group.create_task(server.probe(STUDIO, 8888, "/api", 5.0))
                    await _answer_probe(silent, 0)
                    await _answer_probe(good, 200)
                assert asked.result().status == 200
                assert without.pushed.qsize() == len(SNAPSHOT)


async def _answer_probe(edge: Edge, status: int) -> None:
    while not isinstance(question := await edge.pushed.get(), Probe):
        pass
    assert (question.session_id, question.port, question.path) == (STUDIO, 8888, "/api")
    edge.link.tell(ProbeReply(id=question.id, status=status))


async def test_a_probe_without_any_tunnel_is_answered_at_once(path: Path) -> None:
    async with LinkServer(path, Control()) as server, Edge(path).running():
        reply = await server.probe(STUDIO, 8888, "/", 60.0)
        assert (reply.status, reply.detail) == (0, "the studio has no tunnel")


@pytest.mark.parametrize("rubbish", [b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100, pack(CheckRun(id=1, token="t"))])
async def test_who_does_not_begin_with_hello_is_cut_off(path: Path, rubbish: bytes) -> None:
    async with LinkServer(path, Control()) as server:
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(rubbish)
        assert await reader.read() == b""
        assert server.workers == ()
        writer.close()


async def test_a_worker_that_reads_nothing_is_cut_off(path: Path) -> None:
    async with LinkServer(path, control := Control()) as server:
        _, writer = await asyncio.open_unix_connection(str(path), limit=1024)
        writer.write(pack(Hello(worker="deaf", pid=1)))
        await control.heard.get()
        big = Routes(routes=tuple(Route(session_id=f"{n:08x}", state="stopped") for n in range(8000)))
        while server.workers:
            server.push(big)
            await asyncio.sleep(0)
        writer.close()


async def test_a_push_the_edge_cannot_apply_does_not_end_the_link(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fails(message: ControlMessage) -> None:
        raise KeyError("no such studio")

    client = LinkClient(path, Hello(worker="w", pid=1), fails)
    async with LinkServer(path, Control()), asyncio.TaskGroup() as group:
        task = group.create_task(client.run())
        await client.connected.wait()
        assert (await client.ask(CheckRun(id=0, token="t"))).status == 200
        assert "could not be applied" in caplog.text
        task.cancel()
