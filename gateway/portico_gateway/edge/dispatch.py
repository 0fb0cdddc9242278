"""Where each request goes: by its own Host, never by its connection."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from portico_gateway.edge import answers, limits
from portico_gateway.edge.access_log import AccessLog
from portico_gateway.edge.connection import ClientConnection, log
from portico_gateway.edge.gate import Admitted, Answered, Gate, bearer_of
from portico_gateway.edge.head import Head, is_navigation
from portico_gateway.edge.hosts import Hosts, Target
from portico_gateway.edge.limits import Limits
from portico_gateway.edge.presence import PresenceBook
from portico_gateway.edge.routes import RouteTable
from portico_gateway.edge.visitors import Visitor, Visitors, good_until, matches
from portico_gateway.errors import PorticoError
from portico_gateway.link.messages import CheckRun, ControlMessage, Revoke, Route, RouteGone, Verdict
from portico_gateway.proxy import request_head, upgrade
from portico_gateway.proxy.exchange import Exchange
from portico_gateway.proxy.upgrade import GOING_AWAY, WebSocketExchange
from portico_gateway.proxy.upstream import ControlUpstream, StudioUpstream
from portico_gateway.settings import Settings
from portico_gateway.tunnel.acceptor import MQTT_UPGRADE, Acceptor
from portico_gateway.tunnel.registry import Registry
from portico_shared.clock import Clock
from portico_shared.messages import MQTT_PATH, TUNNEL_PATH
from portico_shared.tasks import spawn
from portico_shared.tunnel import UPGRADE

RESERVED = b"/_portico"
REASONS = {
    "building": "The studio's tool is being installed.",
    "build-failed": "The studio's tool could not be installed.",
    "starting": "The studio is starting.",
    "stopping": "The studio is stopping.",
    "stopped": "The studio is stopped.",
    "errored": "The studio ended with an error.",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """An admitted request to a running studio, ready to go: kept with its head, which browsers repeat."""

    epoch: int
    until: float
    visitor: Visitor
    port: int
    forwarded: bytes


class Control(Protocol):
    async def ask(self, question: CheckRun) -> Verdict: ...


class Edge:
    """Owner of all client connections of this worker; implements `connection.Dispatcher`."""

    def __init__(
        self,
        settings: Settings,
        *,
        control: Control,
        upstream: ControlUpstream,
        registry: Registry,
        acceptor: Acceptor,
        visitors: Visitors,
        gate: Gate,
        routes: RouteTable,
        presence: PresenceBook,
        clock: Clock,
        access: AccessLog,
        ready: Callable[[], bool],
        most_connections: int = limits.MOST,
    ) -> None:
        self.connections: set[ClientConnection] = set()
        self.draining = False
        self._epoch = 0
        """Of what control has pushed; plans of an earlier one are made anew."""
        self._settings = settings
        self._control = control
        self._upstream = upstream
        self._registry = registry
        self._acceptor = acceptor
        self._visitors = visitors
        self._gate = gate
        self._routes = routes
        self._presence = presence
        self._clock = clock
        self._access = access
        self._ready = ready
        self._hosts = Hosts(settings.host, settings.studio_domain)
        self._limits = Limits(most_connections)
        self._trusted = frozenset(p.strip() for p in settings.trusted_proxies.split(",") if p.strip())

    def protocol(self) -> ClientConnection:
        """For `loop.create_server`."""
        return ClientConnection(self)

    # --- connections --------------------------------------------------------------------------------------------

    def monotonic(self) -> float:
        return self._clock.monotonic()

    def opened(self, connection: ClientConnection) -> bool:
        if not self._limits.enter(connection.peer):
            return False
        self.connections.add(connection)
        return True

    def closed(self, connection: ClientConnection) -> None:
        if connection in self.connections:
            self.connections.discard(connection)
            self._limits.leave(connection.peer)

    def sweep(self) -> None:
        now = self._clock.monotonic()
        for connection in list(self.connections):
            connection.sweep(now)
        self._presence.sweep()
        self._access.flush()

    def drain(self) -> None:
        """Take nothing new on any connection; WebSockets are told to come back."""
        self.draining = True
        for connection in list(self.connections):
            connection.drain(GOING_AWAY)

    # --- what control pushes --------------------------------------------------------------------------------------

    def apply(self, message: ControlMessage) -> None:
        self._epoch += 1
        self._visitors.apply(message)
        self._routes.apply(message)
        self._registry.apply(message)
        match message:
            case Revoke():
                self._cut(lambda c: isinstance(c.visitor, Visitor) and matches(message, c.visitor))
            case RouteGone():
                self._cut(lambda c: c.session_id == message.session_id)
            case Route() if message.state != "running":
                self._cut(lambda c: c.session_id == message.session_id and isinstance(c.exchange, WebSocketExchange))

    def _cut(self, applies: Callable[[ClientConnection], bool]) -> None:
        for connection in list(self.connections):
            if connection.exchange is not None and applies(connection):
                connection.exchange.cut()

    async def recheck(self) -> None:
        """Ask control whether those who are connected now still may be: the net under a lost revocation."""
        held = {c.visitor for c in self.connections if c.exchange is not None and isinstance(c.visitor, Visitor)}
        for visitor in held:
            if not await self._gate.still(visitor):
                self._cut(lambda c, gone=visitor: c.visitor == gone)  # type: ignore[misc]

    # --- requests -----------------------------------------------------------------------------------------------

    def dispatch(self, connection: ClientConnection, request: Head) -> None:
        plan = request.plan
        if isinstance(plan, Plan) and plan.epoch == self._epoch and self._clock.now() < plan.until:
            self._go(connection, request, plan)
            return
        connection.session_id, connection.visitor = "", None
        target = self._hosts.find(request.host)
        if target.kind == "studio":
            self._to_studio(connection, request, target)
        elif target.kind == "management":
            self._to_management(connection, request)
        elif target.kind == "literal" and self._health(connection, request):
            pass
        else:
            self._problem(connection, request, 421, "Nothing is served under this name here.")

    def exchanged(self, connection: ClientConnection, exchange: Exchange) -> None:
        visitor = connection.visitor
        user_id = visitor.user_id if isinstance(visitor, Visitor) else 0
        if isinstance(exchange, WebSocketExchange) and exchange.open and isinstance(visitor, Visitor):
            self._presence.closed(visitor.session_id, user_id)
        self._access.record(
            exchange.head, exchange.status, exchange.sent, connection.peer, connection.session_id, user_id
        )

    def _client(self, connection: ClientConnection, request: Head) -> tuple[str, bytes]:
        """(address, scheme) of the client; a trusted proxy in front says them, nobody else."""
        if connection.peer not in self._trusted:
            return connection.peer, self._settings.public_scheme.encode()
        forwarded = (request.get(b"x-forwarded-for") or b"").decode("latin-1").rpartition(",")[2].strip()
        scheme = request.get(b"x-forwarded-proto") or b""
        public = self._settings.public_scheme.encode()
        return forwarded[:64] or connection.peer, scheme if scheme in (b"http", b"https") else public

    # --- the management host --------------------------------------------------------------------------------------

    def _to_management(self, connection: ClientConnection, request: Head) -> None:
        path = request.target.partition(b"?")[0]
        if path in (TUNNEL_PATH.encode(), MQTT_PATH.encode()):
            connection.pause_reading()
            spawn(self._agent_upgrade(connection, request, path), name="agent upgrade")
        elif not self._health(connection, request):
            self._to_control(connection, request)

    def _to_control(
        self,
        connection: ClientConnection,
        request: Head,
        extra: tuple[tuple[bytes, bytes], ...] = (),
        *,
        studio: bool = False,
        add: tuple[bytes, ...] = (),
    ) -> None:
        peer, scheme = self._client(connection, request)
        forwarded = request_head.forward(
            request,
            peer=peer.encode("latin-1"),
            scheme=scheme,
            strip_cookies=studio,
            strip_authorization=studio,
            extra=extra,
        )
        exchange = Exchange(connection, request, self._upstream, forwarded, from_studio=False, add=add)
        connection.start_exchange(exchange)

    def _health(self, connection: ClientConnection, request: Head) -> bool:
        if request.target not in (b"/healthz", b"/readyz") or request.method not in (b"GET", b"HEAD"):
            return False
        well = request.target == b"/healthz" or (self._ready() and not self.draining)
        body = json.dumps({"status": "ok" if well else "not ready"}).encode()
        response = answers.respond(
            200 if well else 503,
            body,
            "application/json",
            keep_alive=request.keep_alive,
            head_only=request.method == b"HEAD",
        )
        connection.answer(response, request.keep_alive)
        return True

    async def _agent_upgrade(self, connection: ClientConnection, request: Head, path: bytes) -> None:
        tunnel = path == TUNNEL_PATH.encode()
        wanted = (UPGRADE if tunnel else MQTT_UPGRADE).encode()
        token = bearer_of(request)
        if request.upgrade != wanted or request.method != b"GET" or request.length != 0 or token is None:
            self._problem(connection, request, 400, "This address is for agents: an upgrade with a run's token.")
            return
        try:
            verdict = await self._control.ask(CheckRun(id=0, token=token))
        except PorticoError as error:
            self._problem(connection, request, error.status, error.message)
            return
        except Exception:
            log.exception("a run's credential could not be checked")
            self._problem(connection, request, 500, "Portico could not check this; its log says why.")
            return
        if connection.transport.is_closing():
            return
        if verdict.status != 200:
            self._problem(connection, request, verdict.status, verdict.message)
            return
        transport, rest = connection.hand_over()
        transport.resume_reading()
        if tunnel:
            self._acceptor.accept_tunnel(transport, verdict.session_id, verdict.run, rest)
        else:
            self._acceptor.accept_mqtt(transport, rest)

    # --- studios --------------------------------------------------------------------------------------------------

    def _to_studio(self, connection: ClientConnection, request: Head, target: Target) -> None:
        connection.session_id = target.session_id
        admitted = self._gate.known(request, target.session_id)
        if admitted is not None:
            self._admitted(connection, request, target, admitted)
            return
        connection.pause_reading()
        spawn(self._ask_gate(connection, request, target), name="ask at the gate")

    async def _ask_gate(self, connection: ClientConnection, request: Head, target: Target) -> None:
        peer, _ = self._client(connection, request)
        try:
            outcome = await self._gate.ask(request, target.session_id, peer)
        except Exception:
            log.exception("the gate failed")
            self._problem(connection, request, 500, "Portico could not decide this request; its log says why.")
            return
        if connection.transport.is_closing():
            return
        connection.resume_reading()
        if isinstance(outcome, Answered):
            self._access.record(request, outcome.status, len(outcome.response), connection.peer, target.session_id, 0)
            connection.answer(outcome.response, request.keep_alive)
        else:
            self._admitted(connection, request, target, outcome)

    def _admitted(self, connection: ClientConnection, request: Head, target: Target, admitted: Admitted) -> None:
        visitor = admitted.visitor
        connection.visitor = visitor
        route = self._routes.get(target.session_id)
        reserved = request.target.startswith(RESERVED) and request.target[len(RESERVED) :][:1] in (b"", b"/", b"?")
        if reserved or route is None:
            self._own_pages(connection, request, admitted)
            return
        if route.state != "running":
            self._not_running(connection, request, admitted, route)
            return
        peer, scheme = self._client(connection, request)
        websocket = request.upgrade == b"websocket"
        if websocket:
            why = upgrade.refusal(request, scheme + b"://" + request.host, visitor.bearer)
            if why is not None:
                self._problem(connection, request, *why)
                return
        forwarded = request_head.forward(
            request,
            peer=peer.encode("latin-1"),
            scheme=scheme,
            strip_cookies=True,
            strip_authorization=visitor.bearer,
            upgrade=websocket,
        )
        plan = Plan(self._epoch, good_until(visitor), visitor, target.port or route.port, forwarded)
        if websocket:
            self._open_websocket(connection, request, plan, admitted.add)
        else:
            request.plan = None if admitted.add else plan
            self._go(connection, request, plan, admitted.add)

    def _go(self, connection: ClientConnection, request: Head, plan: Plan, add: tuple[bytes, ...] = ()) -> None:
        visitor = plan.visitor
        connection.session_id, connection.visitor = visitor.session_id, visitor
        self._presence.seen(visitor.session_id, visitor.user_id)
        upstream = StudioUpstream(self._registry, visitor.session_id, plan.port)
        connection.start_exchange(Exchange(connection, request, upstream, plan.forwarded, from_studio=True, add=add))

    def _open_websocket(self, connection: ClientConnection, request: Head, plan: Plan, add: tuple[bytes, ...]) -> None:
        visitor = plan.visitor
        self._presence.seen(visitor.session_id, visitor.user_id)
        upstream = StudioUpstream(self._registry, visitor.session_id, plan.port, raw=True)
        exchange = WebSocketExchange(connection, request, upstream, plan.forwarded, from_studio=True, add=add)
        exchange.on_open = lambda: self._presence.opened(visitor.session_id, visitor.user_id)
        connection.start_exchange(exchange)

    def _own_pages(self, connection: ClientConnection, request: Head, admitted: Admitted) -> None:
        """Portico's own pages on a studio's host: control writes them, knowing who asks."""
        visitor = admitted.visitor
        extra = (
            (b"X-Portico-Studio", visitor.session_id.encode()),
            (b"X-Portico-User", str(visitor.user_id).encode()),
            (b"X-Portico-Sign-In", visitor.sign_in.encode("latin-1")),
        )
        self._to_control(connection, request, extra, studio=True, add=admitted.add)

    def _not_running(self, connection: ClientConnection, request: Head, admitted: Admitted, route: Route) -> None:
        if is_navigation(request) and not request.upgrade:
            self._own_pages(connection, request, admitted)
            return
        message = f"{REASONS[route.state]} Open its page to see more, or to start it."
        self._problem(
            connection,
            request,
            424,
            message,
            status=route.state,
            reason=REASONS[route.state],
            startUrl=f"{self._settings.base_url}/studios/{route.session_id}/open",
        )

    def _problem(self, connection: ClientConnection, request: Head, code: int, message: str, **more: object) -> None:
        if connection.transport.is_closing():
            return
        keep_alive = request.keep_alive and request.length == 0 and code != 421
        head_only = request.method == b"HEAD"
        for_people = is_navigation(request) and not more
        response = answers.problem(
            code, message, for_people=for_people, keep_alive=keep_alive, head_only=head_only, **more
        )
        self._access.record(request, code, len(response), connection.peer, connection.session_id, 0)
        connection.resume_reading()
        connection.answer(response, keep_alive)


async def sweep_forever(edge: Edge, clock: Clock, seconds: float = 0.5) -> None:
    """The one timer of all client connections."""
    while True:
        await clock.sleep(seconds)
        edge.sweep()
