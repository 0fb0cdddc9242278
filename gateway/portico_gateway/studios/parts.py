"""What the life of a studio is made of, handed around as one value."""

from dataclasses import dataclass

from portico_gateway.compute.environment import ComputeEnvironment
from portico_gateway.settings import Settings
from portico_gateway.studios.events import EventHub
from portico_gateway.studios.logs import RunLogs
from portico_gateway.studios.needs import Catalogue, Commands, Edge, ToolInstaller
from portico_gateway.studios.presence import Visitors
from portico_gateway.studios.records import Records, Store, StudioRecord
from portico_gateway.studios.routes import RouteTable
from portico_gateway.studios.values import StudioEvent
from portico_shared.clock import Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    settings: Settings
    clock: Clock
    store: Store
    records: Records
    catalogue: Catalogue
    compute: ComputeEnvironment
    commands: Commands
    edge: Edge
    installer: ToolInstaller
    logs: RunLogs
    hub: EventHub
    routes: RouteTable
    visitors: Visitors

    def tell(self, studio: StudioRecord, kind: str) -> None:
        self.hub.publish(StudioEvent(studio.workspace_id, studio.session_id, kind))
