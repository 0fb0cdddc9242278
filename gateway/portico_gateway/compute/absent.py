"""The compute environment of a machine that has none: everything else works, and starts say why not."""

from portico_gateway.compute.environment import Placement, RunSpec, RunState
from portico_gateway.errors import Unavailable
from portico_gateway.studios.values import ComputeEnv


class AbsentCompute:
    """`ComputeEnvironment` that places nothing. Runs of an earlier start cannot be asked about: they count as lost only
    after a while without contact."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def describe(self) -> ComputeEnv:
        return ComputeEnv(
            id="local",
            name="This machine",
            platform="local",
            region="",
            status="INVALID",
            isolation="none",
            isolation_note=self._reason,
            shared=False,
        )

    async def start(self, spec: RunSpec) -> Placement:
        raise Unavailable(self._reason)

    async def inspect(self, run_id: str, placement: Placement) -> RunState:
        raise Unavailable(self._reason)

    async def kill(self, run_id: str, placement: Placement) -> None:
        raise Unavailable(self._reason)

    async def release(self, session_id: str) -> None:
        raise Unavailable(self._reason)

    def has_volume(self, session_id: str) -> bool:
        return True  # nobody can tell: a start would be refused anyway, and nothing may be dropped

    async def sweep(self, live: set[str]) -> list[str]:
        return []
