"""`python -m portico_agent.init [agent command …]`: be the studio's first process."""

import os
import sys

from portico_agent.init.configuration import configure
from portico_agent.init.supervisor import Init
from portico_agent.overlay.syscalls import wipe_environment

OWN_MODULE = "portico_agent.init"


def default_agent_command() -> tuple[str, ...]:
    """The way we were started ourselves, with the agent's module in place of ours."""
    words = [sys.executable, *sys.orig_argv[1:]]
    at = words.index(OWN_MODULE)
    return (*words[:at], "portico_agent")


def main() -> None:
    configuration = configure(os.environ, tuple(sys.argv[1:]) or default_agent_command())
    wipe_environment("PORTICO_RUN_TOKEN")
    del os.environ["PORTICO_RUN_TOKEN"]
    sys.exit(Init(configuration).run())


if __name__ == "__main__":
    main()
