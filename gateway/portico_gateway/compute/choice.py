"""The compute environment that the settings ask for."""

from portico_gateway.compute.environment import ComputeEnvironment
from portico_gateway.compute.local.abilities import find_abilities
from portico_gateway.compute.local.confinement import decide
from portico_gateway.compute.local.local_compute import LocalCompute
from portico_gateway.settings import Settings


def open_compute(settings: Settings) -> ComputeEnvironment:
    """Takes a quarter of a second: what this machine allows is found out by trying.
    Raises BadRequest when the settings ask for an isolation that it refuses."""
    settings.data.mkdir(parents=True, exist_ok=True)
    return LocalCompute(settings, decide(settings.isolation, find_abilities()))
