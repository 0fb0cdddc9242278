"""`python -m portico_agent`: the agent of one run, started by portico-init."""

import logging
import os
import sys

import uvloop

from portico_agent.checkpoints import ChildEngine
from portico_agent.control_road import ControlRoad
from portico_agent.credential import Credential
from portico_agent.errors import InitGone
from portico_agent.gateway import GatewayClient
from portico_agent.init.configuration import SOCKET_NAME
from portico_agent.keeper import connect_keeper
from portico_agent.overlay.syscalls import hide_process
from portico_agent.parts import Parts
from portico_agent.session import Session
from portico_agent.settings import AgentSettings, read_settings
from portico_agent.tunnel.dialer import Dialer
from portico_shared.clock import SystemClock

_log = logging.getLogger("portico_agent")


async def run(settings: AgentSettings, parts: Parts) -> int:
    """One session; the exit code."""
    credential = Credential(settings.run, settings.secrets)
    try:
        async with connect_keeper(settings.state / SOCKET_NAME) as keeper:
            async with GatewayClient(settings.gateway, settings.host, credential) as gateway:
                session = Session(settings, gateway, keeper, await keeper.status(), parts, SystemClock())
                return await session.run()
    except InitGone as gone:
        _log.warning("%s", gone)
        return 1


def real_parts() -> Parts:
    return Parts(
        control=lambda session: ControlRoad(
            session.gateway, session.agent, session.settings.state, session.on_command, clock=session.clock
        ),
        dialer=lambda session: Dialer(session.gateway, session.allowed, clock=session.clock),
        engine=lambda session, plan, volume: ChildEngine(
            session.settings, volume, plan, lambda: session.tool_pid, lambda words: session.warn("storage", words)
        ),
    )


def main() -> None:
    hide_process()
    settings = read_settings(os.environ)
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s agent %(levelname)s %(message)s")
    sys.exit(uvloop.run(run(settings, real_parts())))


if __name__ == "__main__":
    main()
