"""Control's end of the link: answers the edge workers and pushes to all of them."""

import asyncio
import logging
import socket
from pathlib import Path
from types import TracebackType
from typing import Self

from portico_gateway.link.framing import BadFrame, pack
from portico_gateway.link.messages import ControlMessage, Probe, ProbeReply
from portico_gateway.link.worker_connection import LinkHandler, WorkerConnection
from portico_shared.tasks import spawn

__all__ = ["LinkHandler", "LinkServer"]

_log = logging.getLogger(__name__)


class LinkServer:
    """Listens on a Unix socket (0600) while its context is open."""

    def __init__(self, path: Path, handler: LinkHandler) -> None:
        self.path = path
        self._handler = handler
        self._workers: set[WorkerConnection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._last_probe = 0

    @property
    def workers(self) -> tuple[str, ...]:
        """Names of the workers that said hello."""
        return tuple(sorted(worker.name for worker in self._workers))

    def connections(self, session_id: str) -> int:
        """Tunnel connections of a studio over all workers, as last told."""
        told = (tunnels for worker in self._workers for tunnels in worker.tunnels.values())
        return sum(tunnels.connections for tunnels in told if tunnels.session_id == session_id)

    async def __aenter__(self) -> Self:
        self.path.unlink(missing_ok=True)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(str(self.path))
            self.path.chmod(0o600)  # before listen: nobody could connect until now
            sock.setblocking(False)
            self._server = await asyncio.start_unix_server(self._accepted, sock=sock)
        except BaseException:
            sock.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()
        self.path.unlink(missing_ok=True)

    def push(self, message: ControlMessage) -> None:
        """Send to every worker that is connected; one that comes later gets it with the snapshot."""
        frame = pack(message)
        for worker in self._workers:
            worker.send(frame)

    async def probe(self, session_id: str, port: int, path: str, timeout: float) -> ProbeReply:
        """Ask a studio's tool through the tunnel, over every worker that has one: the first answer, or status 0."""
        self._last_probe += 1
        question = Probe(id=self._last_probe, session_id=session_id, port=port, path=path, timeout=timeout)
        reply = ProbeReply(id=question.id, status=0, detail="the studio has no tunnel")
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(w.probe(question)) for w in self._workers if w.reaches(session_id)]
            for answer in asyncio.as_completed(asked):
                reply = await answer
                if reply.status:
                    break
            for task in asked:
                task.cancel()
        return reply

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        worker = WorkerConnection(reader, writer, self._handler)
        task = spawn(self._serve(worker), name="link worker")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, worker: WorkerConnection) -> None:
        try:
            await worker.greeted()
            self._workers.add(worker)
            await worker.follow()
        except* (OSError, BadFrame, TimeoutError) as errors:
            _log.warning("link: worker %s: %s", worker.name or "?", errors.exceptions[0])
        finally:
            self._workers.discard(worker)
            worker.lost()
