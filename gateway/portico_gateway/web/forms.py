"""Fields of forms as values; what is out of range is refused in a sentence that names the field."""

import re
from collections.abc import Mapping

from portico_gateway.errors import BadRequest
from portico_gateway.studios.values import Configuration

MAX_CPU = 1024
MAX_MEMORY_GIB = 16384.0
MAX_GPU = 64
MAX_LIFESPAN = 120
MAX_VARIABLES = 100
MAX_VARIABLE = 4096
"""Characters of one value."""

LIFESPANS = (1, 2, 4, 8, 12, 24, 48, 120, 0)
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


def configuration(fields: Mapping[str, str], base: Configuration) -> Configuration:
    """What the form says; fields that it lacks stay as in `base`. Raises BadRequest."""
    return Configuration(
        cpu=_whole(fields, "cpu", "CPUs", base.cpu, 1, MAX_CPU),
        gpu=_whole(fields, "gpu", "GPUs", base.gpu, 0, MAX_GPU),
        memory=_memory(fields, base.memory),
        lifespan_hours=_whole(fields, "lifespan", "the time it may run", base.lifespan_hours, 0, MAX_LIFESPAN),
        conda_environment=base.conda_environment,
        environment=_environment(fields["environment"]) if "environment" in fields else base.environment,
        ssh_enabled=base.ssh_enabled,
    )


def name(fields: Mapping[str, str]) -> str | None:
    """The chosen name, or None for one of ours."""
    text = " ".join(fields.get("name", "").split())
    if len(text) > 80:
        raise BadRequest("a name has at most 80 characters")
    return text or None


def description(fields: Mapping[str, str]) -> str:
    text = fields.get("description", "").replace("\r\n", "\n").strip()
    if len(text) > 2048:
        raise BadRequest("a description has at most 2048 characters")
    return text


def lifespans(chosen: Configuration) -> list[int]:
    """The hours to choose from, 0 (until stopped) last; what is set already is among them."""
    return [*sorted({*LIFESPANS, chosen.lifespan_hours} - {0}), 0]


def environment_text(environment: tuple[tuple[str, str], ...]) -> str:
    return "\n".join(f"{key}={value}" for key, value in environment)


def _whole(fields: Mapping[str, str], key: str, what: str, base: int, low: int, high: int) -> int:
    text = fields.get(key, "").strip()
    if not text:
        return base
    if not (text.isascii() and text.isdigit()) or len(text) > 6 or not low <= int(text) <= high:
        raise BadRequest(f"{what}: a whole number from {low} to {high}")
    return int(text)


def _memory(fields: Mapping[str, str], base: int) -> int:
    text = fields.get("memory", "").strip().replace(",", ".")
    if not text:
        return base
    if re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,3})?", text) is None or not 0.25 <= float(text) <= MAX_MEMORY_GIB:
        raise BadRequest("memory: a number of GiB from 0.25 to 16384")
    return round(float(text) * 1024)


def _environment(text: str) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    for line in text.replace("\r\n", "\n").split("\n"):
        if not line.strip():
            continue
        key, separator, value = line.partition("=")
        key = key.strip()
        if not separator or _NAME.fullmatch(key) is None:
            raise BadRequest(f"environment variables: one NAME=value a line; '{line[:60]}' is none")
        if len(value) > MAX_VARIABLE or "\0" in value:
            raise BadRequest(f"environment variables: the value of {key[:60]} is too long")
        found[key] = value
    if len(found) > MAX_VARIABLES:
        raise BadRequest(f"environment variables: at most {MAX_VARIABLES}")
    return tuple(found.items())
