"""Names and values people give a studio: their bounds, and names made up when none is given."""

import re
import secrets

from portico_gateway.errors import BadRequest
from portico_gateway.studios.values import ComputeEnv, Configuration

MAX_NAME = 80
MAX_DESCRIPTION = 2048
MAX_VARIABLES = 200
MAX_VARIABLE_BYTES = 32 * 1024
MAX_LIFESPAN_HOURS = 120
_VARIABLE = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_UNWANTED = re.compile(r"[\x00-\x1f\x7f\u0085\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_RESERVED = ("PORTICO_", "CONNECT_TOOL_", "LD_")
_FIRST = "amber brisk calm clear coral deep early fair fresh gentle green keen light lucid mellow quiet silver vivid"
_SECOND = "arch birch brook cedar cloud cove dune fern field harbour heron lark maple meadow orchard river stone willow"


def check_name(name: str) -> str:
    """The name without blanks around it. Raises BadRequest."""
    name = name.strip()
    if not 0 < len(name) <= MAX_NAME:
        raise BadRequest(f"a studio's name has 1 to {MAX_NAME} characters")
    if _UNWANTED.search(name):
        raise BadRequest("a studio's name has no control characters")
    return name


def check_description(text: str) -> str:
    if len(text) > MAX_DESCRIPTION:
        raise BadRequest(f"a description has at most {MAX_DESCRIPTION} characters")
    return text


def made_up_name(taken: set[str]) -> str:
    """'quiet-harbour', or with a number when the workspace is full of such."""
    for _ in range(50):
        name = f"{secrets.choice(_FIRST.split())}-{secrets.choice(_SECOND.split())}"
        if name not in taken:
            return name
    return f"studio-{secrets.token_hex(4)}"


def free_name(wanted: str, taken: set[str]) -> str:
    """`wanted`, or with ' 2', ' 3', … behind it."""
    if wanted not in taken:
        return wanted
    number = 2
    while (name := f"{wanted[: MAX_NAME - 1 - len(str(number))]} {number}") in taken:
        number += 1
    return name


def check_configuration(wanted: Configuration, env: ComputeEnv) -> Configuration:
    """The configuration as it will be. Raises BadRequest that names the value and its bounds.

    The defaults shrink to what a small machine has; a value somebody chose is refused instead.
    """
    cpu = min(wanted.cpu, env.cpus) if env.cpus and wanted.cpu == Configuration().cpu else wanted.cpu
    memory = min(wanted.memory, env.memory) if env.memory and wanted.memory == Configuration().memory else wanted.memory
    _between("CPUs", cpu, 1, env.cpus or 1024, env)
    _between("memory (MiB)", memory, 128, env.memory or 1 << 24, env)
    _between("GPUs", wanted.gpu, 0, env.gpus, env)
    if not 0 <= wanted.lifespan_hours <= MAX_LIFESPAN_HOURS:
        raise BadRequest(f"a lifespan is 1 to {MAX_LIFESPAN_HOURS} hours, or 0 for 'until stopped'")
    if wanted.conda_environment:
        raise BadRequest("Conda packages cannot be given when adding yet: install them in the running studio")
    _check_variables(wanted.environment)
    return Configuration(
        cpu=cpu,
        gpu=wanted.gpu,
        memory=memory,
        lifespan_hours=wanted.lifespan_hours,
        environment=wanted.environment,
        ssh_enabled=wanted.ssh_enabled,
    )


def _between(what: str, value: int, low: int, high: int, env: ComputeEnv) -> None:
    if value > high:
        raise BadRequest(f"{env.name} has {high} {what}: {value} cannot be given to a studio")
    if value < low:
        raise BadRequest(f"{what}: at least {low}")


def _check_variables(variables: tuple[tuple[str, str], ...]) -> None:
    if len(variables) > MAX_VARIABLES:
        raise BadRequest(f"a studio has at most {MAX_VARIABLES} environment variables")
    size = 0
    for name, value in variables:
        if not _VARIABLE.fullmatch(name) or len(name) > 256:
            raise BadRequest(f"'{name[:64]}' is no name of an environment variable: letters, digits and _ only")
        if name.startswith(_RESERVED):
            raise BadRequest(f"the variable {name} is Portico's own: choose another name")
        if "\0" in value:
            raise BadRequest(f"the value of {name} holds a zero byte")
        size += len(name.encode()) + len(value.encode())
    if size > MAX_VARIABLE_BYTES:
        raise BadRequest(f"environment variables may take {MAX_VARIABLE_BYTES // 1024} KiB together")
