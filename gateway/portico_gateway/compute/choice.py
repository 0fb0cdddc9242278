"""The compute environment and the installer of tools that the settings ask for."""

from dataclasses import dataclass
from pathlib import Path

from portico_gateway.compute.attach import AttachCompute
from portico_gateway.compute.environment import ComputeEnvironment
from portico_gateway.compute.local.abilities import find_abilities
from portico_gateway.compute.local.boot_plan import NONE
from portico_gateway.compute.local.confinement import decide
from portico_gateway.compute.local.local_compute import LocalCompute
from portico_gateway.compute.local.tool_install import ToolInstaller
from portico_gateway.settings import Settings


@dataclass(frozen=True, slots=True)
class Compute:
    environment: ComputeEnvironment
    installer: ToolInstaller


def tools_folder(settings: Settings) -> Path:
    return Path(settings.tools_dir) if settings.tools_dir else settings.data / "tools"


def open_compute(settings: Settings) -> Compute:
    """Takes a quarter of a second: what this machine allows is found out by trying.
    Raises BadRequest when the settings ask for an isolation that it refuses."""
    settings.data.mkdir(parents=True, exist_ok=True)
    tools = tools_folder(settings)
    if settings.compute == "attach":
        return Compute(AttachCompute(settings), ToolInstaller(tools))
    confinement = decide(settings.isolation, find_abilities())
    return Compute(LocalCompute(settings, confinement), ToolInstaller(tools, moved=confinement.mode != NONE))
