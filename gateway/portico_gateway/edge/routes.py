"""What the edge knows of studios: control's last word, kept when control is away."""

from portico_gateway.link.messages import ControlMessage, Route, RouteGone, Routes


class RouteTable:
    def __init__(self) -> None:
        self._routes: dict[str, Route] = {}
        self.known = False
        """Whether control has ever told."""

    def __len__(self) -> int:
        return len(self._routes)

    def get(self, session_id: str) -> Route | None:
        return self._routes.get(session_id)

    def apply(self, message: ControlMessage) -> None:
        match message:
            case Routes():
                self._routes = {route.session_id: route for route in message.routes}
                self.known = True
            case Route():
                self._routes[message.session_id] = message
            case RouteGone():
                self._routes.pop(message.session_id, None)
