"""Control's part of the link: what edge workers ask, tell and are told."""

from collections.abc import Sequence

from portico_gateway.agentapi.credentials import RunCredentials
from portico_gateway.auth.edge_answers import EdgeAnswers
from portico_gateway.auth.revocations import Revocations
from portico_gateway.errors import Unavailable
from portico_gateway.link.client import Question
from portico_gateway.link.messages import (
    CheckRun,
    ControlMessage,
    Hello,
    Keys,
    Presence,
    ProbeReply,
    Revoke,
    Route,
    RouteGone,
    Routes,
    Tunnels,
    Verdict,
)
from portico_gateway.link.server import LinkServer
from portico_gateway.studios.lifecycle import Lifecycle


class EdgeDoor:
    """`studios.needs.Edge` over the link: works before the link is open, by telling nobody."""

    def __init__(self, revocations: Revocations) -> None:
        self._revocations = revocations
        self._server: LinkServer | None = None
        revocations.listen(self._tell)

    @property
    def workers(self) -> tuple[str, ...]:
        return self._server.workers if self._server is not None else ()

    def open(self, server: LinkServer | None) -> None:
        self._server = server

    async def push(self, route: Route) -> None:
        self._tell(route)

    async def remove(self, session_id: str) -> None:
        self._tell(RouteGone(session_id=session_id))

    async def revoke(self, *, session_id: str = "", run: str = "") -> None:
        self._revocations.revoke(session_id=session_id, run=run)

    async def probe(self, session_id: str, port: int, path: str, timeout: float) -> ProbeReply:
        if not self.workers:
            raise Unavailable("no edge worker is connected")
        assert self._server is not None
        return await self._server.probe(session_id, port, path, timeout)

    def _tell(self, message: Route | RouteGone | Revoke) -> None:
        if self._server is not None:
            self._server.push(message)


class ControlLink:
    """The link server's handler: people's questions go to `auth`, runs' to `agentapi`, news to the studios."""

    def __init__(
        self,
        people: EdgeAnswers,
        runs: RunCredentials,
        revocations: Revocations,
        lifecycle: Lifecycle,
        public_key: bytes,
    ) -> None:
        self._people = people
        self._runs = runs
        self._revocations = revocations
        self._lifecycle = lifecycle
        self._public_key = public_key

    async def answer(self, message: Question) -> Verdict:
        if not isinstance(message, CheckRun):
            return await self._people.answer(message)
        run, expires = await self._runs.check(message.token)
        return Verdict(
            id=message.id,
            status=200,
            run=run.run_id,
            session_id=run.session_id,
            expires_at=expires,
            generation=self._revocations.generation,
        )

    def told(self, worker: str, message: Hello | Tunnels | Presence) -> None:
        match message:
            case Tunnels():
                self._lifecycle.on_tunnels(worker, message.run, message.connections)
            case Presence():
                self._lifecycle.on_presence(worker, message)
            case Hello():
                pass

    def snapshot(self) -> Sequence[ControlMessage]:
        keys = Keys(public_keys=(self._public_key,), generation=self._revocations.generation)
        return (keys, Routes(routes=self._lifecycle.parts.routes.snapshot()))
