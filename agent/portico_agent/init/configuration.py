"""What portico-init is told by whoever starts it, read from the environment once.

    PORTICO_STATE          folder for the channel's socket and the logs                     required
    PORTICO_RUN_TOKEN      the run's credential; taken out of the environment at once       required
    PORTICO_STOP_SECONDS   how long an orderly stop may take after SIGTERM                  600
    PORTICO_GRACE          seconds between SIGTERM and SIGKILL for the tool when the
                           agent could not see to it                                        30

Every other PORTICO_ variable goes on to the agent, with those of the locale and of reaching the internet; nothing
else does.
"""

import base64
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

SOCKET_NAME = "init.sock"
SEED_BYTES = 32
REACHING_OUT = (
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"),
    *("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
    *("PIP_CERT", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_DEFAULT_TIMEOUT"),
)
"""What it takes to reach the internet from here; the agent hands it on to the tool."""
PASSED_ON = ("LANG", "LC_ALL", "TZ", *REACHING_OUT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    state: Path
    agent_command: tuple[str, ...]
    agent_environment: dict[str, str]
    secrets: bytes = field(repr=False)
    """JSON for each agent: the run token and the run's ed25519 seed. In memory alone."""
    stop_seconds: float = 600.0
    """A last checkpoint of several GB over a slow line; a container engine in a hurry kills on its own account."""
    grace: float = 30.0

    @property
    def socket(self) -> Path:
        return self.state / SOCKET_NAME


def configure(environment: Mapping[str, str], agent_command: tuple[str, ...]) -> Configuration:
    """Raises SystemExit with a sentence when something required is missing or no number."""
    try:
        state, run_token = Path(environment["PORTICO_STATE"]), environment["PORTICO_RUN_TOKEN"]
        stop_seconds = float(environment.get("PORTICO_STOP_SECONDS", "600"))
        grace = float(environment.get("PORTICO_GRACE", "30"))
    except KeyError as missing:
        raise SystemExit(f"portico-init: set {missing.args[0]}") from None
    except ValueError as error:
        raise SystemExit(f"portico-init: PORTICO_STOP_SECONDS and PORTICO_GRACE are seconds: {error}") from None
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Configuration(
        state=state,
        agent_command=agent_command,
        agent_environment=agent_environment(environment),
        secrets=json.dumps(
            {"run_token": run_token, "seed": base64.b64encode(os.urandom(SEED_BYTES)).decode()}
        ).encode(),
        stop_seconds=stop_seconds,
        grace=grace,
    )


def agent_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What the agent gets to see: no credential, nothing of the machine's that it does not need."""
    kept = {
        name: value
        for name, value in environment.items()
        if name in PASSED_ON or (name.startswith("PORTICO_") and name != "PORTICO_RUN_TOKEN")
    }
    return {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/", **kept}
