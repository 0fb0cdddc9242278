"""What an agent is told when it starts, read once.

PORTICO_RUN          the run's id                                             required
PORTICO_GATEWAY      'unix:/path/of/socket' or 'http(s)://host:port'          required
PORTICO_HOST         the management host, as the Host header names it         required
PORTICO_STATE        folder of portico-init's channel                         required
PORTICO_VOLUME       where the studio's own changes live                      /portico/volume
PORTICO_ROOT         'overlay', 'folders' or 'none'                           overlay
PORTICO_TOOLS        folder of the installed tools                            /opt/portico/tools
PORTICO_LOWER        layers of the image root, topmost first, joined by ':'   /
PORTICO_LOG_LEVEL    'debug', 'info', 'warning'                               info
PORTICO_SECRETS_FD   descriptor to read the run's secrets from                required
"""

import base64
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast, get_args

from portico_agent.init.configuration import REACHING_OUT
from portico_shared.ids import is_run_id

RootKind = Literal["overlay", "folders", "none"]
MAX_SECRETS = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """What portico-init holds for every agent of this run."""

    run_token: str = field(repr=False)
    seed: bytes = field(repr=False)
    """32 bytes, the run's ed25519 private key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    run: str
    gateway: str
    host: str
    state: Path
    volume: Path
    root: RootKind
    tools: Path
    lower: tuple[str, ...]
    log_level: str
    secrets: Secrets
    reaching_out: dict[str, str] = field(default_factory=dict)
    """Variables of proxies, certificates and package mirrors that this place needs; handed on to the tool."""

    @property
    def current(self) -> Path:
        """The studio's own changes as they are now; snapshots of it lie beside it."""
        return self.volume / "current"


def read_settings(environment: Mapping[str, str]) -> AgentSettings:
    """Raises SystemExit with a sentence when something is missing or makes no sense. Consumes the secrets."""
    try:
        run = environment["PORTICO_RUN"]
        root = environment.get("PORTICO_ROOT", "overlay")
        if not is_run_id(run):
            raise ValueError(f"PORTICO_RUN: '{run[:40]}' is no run id")
        if root not in get_args(RootKind):
            raise ValueError(f"PORTICO_ROOT: '{root[:40]}' is none of {', '.join(get_args(RootKind))}")
        return AgentSettings(
            run=run,
            gateway=_gateway(environment["PORTICO_GATEWAY"]),
            host=environment["PORTICO_HOST"],
            state=Path(environment["PORTICO_STATE"]),
            volume=Path(environment.get("PORTICO_VOLUME", "/portico/volume")),
            root=cast(RootKind, root),
            tools=Path(environment.get("PORTICO_TOOLS", "/opt/portico/tools")),
            lower=tuple(environment.get("PORTICO_LOWER", "/").split(":")),
            log_level=environment.get("PORTICO_LOG_LEVEL", "info"),
            reaching_out={name: environment[name] for name in REACHING_OUT if name in environment},
            secrets=_read_secrets(int(environment["PORTICO_SECRETS_FD"])),
        )
    except KeyError as missing:
        raise SystemExit(f"portico-agent: set {missing.args[0]}") from None
    except (ValueError, OSError) as error:
        raise SystemExit(f"portico-agent: {error}") from None


def _gateway(text: str) -> str:
    if not text.startswith(("unix:/", "http://", "https://")):
        raise ValueError("PORTICO_GATEWAY: give 'unix:/path' or 'http(s)://host:port'")
    return text.rstrip("/")


def _read_secrets(descriptor: int) -> Secrets:
    with os.fdopen(descriptor, "rb") as source:
        found = json.loads(source.read(MAX_SECRETS))
    return Secrets(run_token=str(found["run_token"]), seed=base64.b64decode(found["seed"], validate=True))
