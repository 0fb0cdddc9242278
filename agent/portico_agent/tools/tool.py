"""The promise of a tool."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where a tool is to run. Paths as the tool's root has them."""

    port: int
    """To listen on, at 127.0.0.1 only."""
    home: str
    workspace: str
    tools: Path
    """Folder of the installed tools; the same place in the sandbox and in the tool's root."""
    whole_root: bool
    """The root is the studio's own: /opt and /etc may be written and are kept. Else only home and workspace are."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """What the studio's settings add."""
    command: tuple[str, ...] = ()
    """For tools whose command comes from outside."""

    @property
    def venv(self) -> str:
        """The studio's own Python environment."""
        return "/opt/venv" if self.whole_root else f"{self.home}/.venv"


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One program to start."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: str


class Tool(Protocol):
    """Stateless; methods only compute. SIGTERM must end the tool in order: it may take the run's grace to save."""

    name: str
    probe_path: str
    """Answers HTTP as soon as the tool can be used, without any credential."""

    def prepare(self, site: Site) -> tuple[Launch, ...]:
        """Programs to run to their end inside the root before the tool starts; each may run at every start."""
        ...

    def launch(self, site: Site) -> Launch:
        """Raises ToolError when the tool is not installed or no command was given."""
        ...


def base_environment(site: Site) -> dict[str, str]:
    """What every tool sees; the studio's own settings win, but for what tells a tool where it is."""
    return {
        "PATH": f"{site.venv}/bin:{SYSTEM_PATH}",
        "LANG": "C.UTF-8",
        "TERM": "xterm-256color",
        "USER": "root",
        "LOGNAME": "root",
        "SHELL": "/bin/bash",
        **site.environment,
        "HOME": site.home,
        "CONNECT_TOOL_PORT": str(site.port),
    }
