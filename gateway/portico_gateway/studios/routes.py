"""How the edge finds studios: one route for each, in step with its status."""

from portico_gateway.link.messages import Route
from portico_gateway.studios.needs import Edge
from portico_gateway.studios.records import StudioRecord
from portico_gateway.studios.transitions import LIVE
from portico_gateway.studios.values import Status


class RouteTable:
    """Kept in memory and rebuilt from the store; pushed when something changes, handed out whole to who connects."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._routes: dict[str, Route] = {}
        self._workspaces: dict[str, int] = {}

    def snapshot(self) -> tuple[Route, ...]:
        return tuple(self._routes.values())

    def workspace_of(self, session_id: str) -> int | None:
        return self._workspaces.get(session_id)

    async def put(self, studio: StudioRecord, port: int = 0) -> None:
        """The studio's route as it is now; `port` is the tool's (0 = not known)."""
        route = route_of(studio, port)
        self._workspaces[studio.session_id] = studio.workspace_id
        if self._routes.get(studio.session_id) != route:
            self._routes[studio.session_id] = route
            await self._edge.push(route)

    async def remove(self, session_id: str) -> None:
        self._workspaces.pop(session_id, None)
        if self._routes.pop(session_id, None) is not None:
            await self._edge.remove(session_id)


def route_of(studio: StudioRecord, port: int) -> Route:
    live = studio.status in LIVE and studio.status is not Status.BUILDING
    return Route(
        session_id=studio.session_id,
        state=studio.status.value,
        run=(studio.run_id or "") if live else "",
        port=port if live else 0,
    )
