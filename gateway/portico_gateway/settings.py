"""Every option in one place: built once, frozen, handed to who needs it.

Order: built-in default < `portico.toml` in the data folder (or `--config FILE`) < `PORTICO_…` variable < command line.
A variable is `PORTICO_` and the option's name in capitals; in the file the name is the key, lower case.
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

from portico_gateway.errors import BadRequest


class Secret(str):
    """A string that hides itself in logs and tracebacks; `reveal()` gives it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret('…')" if self else "Secret('')"

    __str__ = __repr__

    def reveal(self) -> str:
        return str.__str__(self)


_NO_SECRET = Secret("")


def _default_data() -> Path:
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "portico"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The options of `portico up`. Each field's comment is its documentation."""

    listen: str = "127.0.0.1:8000"  # address of the one public port
    data: Path = field(default_factory=_default_data)  # everything Portico keeps
    host: str = "portico.localhost"  # UI, API, agents
    studio_domain: str = "studio.localhost"  # studios at a<sessionId>.<studio_domain>
    public_scheme: str = "http"  # 'https' when TLS ends in front of us
    public_port: int = 0  # port in the URLs people see; 0 = the one we listen on
    tools_dir: str = ""  # where tools are installed; empty = 'tools' in the data folder
    database: str = ""  # SQLAlchemy URL; empty = SQLite in the data folder
    store: str = ""  # checkpoint store: empty = folder in the data folder, 's3://bucket/prefix' = S3
    s3_endpoint: str = ""  # for S3-compatible servers; empty = AWS
    s3_region: str = "us-east-1"
    s3_access_key: Secret = _NO_SECRET
    s3_secret_key: Secret = _NO_SECRET
    compute: str = "local"  # 'local' or, for suites and benches, 'attach'
    attach_port: int = 0  # with compute 'attach': the port of a tool that already runs
    bootstrap_token: Secret = _NO_SECRET  # first personal access token of the first administrator
    checkpoint_interval: float = 300.0  # seconds between checkpoints of a running studio when something changed
    store_patience: float = 180.0  # seconds a checkpoint waits for a store that is away; then it failed, later ones try
    studio_quota: int = 5 * 1024**3  # bytes a studio's own changes may take
    lifespan_hours: int = 8  # default lifespan of a run
    unreachable_after: float = (
        60.0  # seconds without contact before a run counts as lost, while compute cannot be asked
    )
    start_timeout: float = 600.0  # seconds a started tool may take until it answers
    stop_grace: float = 30.0  # seconds between SIGTERM and SIGKILL for a tool
    force_stop_after: float = 600.0  # seconds of stopping after which a second stop ends a studio by force
    isolation: str = "auto"  # 'auto', 'root', 'user', 'none': how local compute confines studios
    session_hours: int = 24 * 7  # life of a sign-in
    trusted_proxies: str = ""  # comma-separated addresses whose X-Forwarded-* counts
    log_level: str = "info"

    @property
    def listen_host(self) -> str:
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def listen_port(self) -> int:
        return int(self.listen.rpartition(":")[2])

    @property
    def port_suffix(self) -> str:
        """':8000' as it appears in URLs, or '' for the scheme's own port."""
        port = self.public_port or self.listen_port
        return "" if port == {"http": 80, "https": 443}[self.public_scheme] else f":{port}"

    @property
    def base_url(self) -> str:
        return f"{self.public_scheme}://{self.host}{self.port_suffix}"

    def studio_url(self, session_id: str) -> str:
        return f"{self.public_scheme}://a{session_id}.{self.studio_domain}{self.port_suffix}"

    @property
    def database_url(self) -> str:
        return self.database or f"sqlite+aiosqlite:///{self.data / 'portico.db'}"

    @property
    def run_dir(self) -> Path:
        """Sockets of this instance; short, because a Unix socket's path has at most 107 bytes."""
        return self.data / "run"


def load(command_line: Mapping[str, Any], environ: Mapping[str, str], config: Path | None = None) -> Settings:
    """Build the settings. Raises BadRequest that names the option and where it came from."""
    hints = get_type_hints(Settings)
    names = {f.name for f in fields(Settings)}
    values: dict[str, Any] = {}
    data = Path(str(command_line.get("data") or environ.get("PORTICO_DATA") or _default_data()))
    file = config or data / "portico.toml"
    if config is not None or file.exists():
        for key, raw in _read_toml(file).items():
            if key not in names:
                raise BadRequest(f"{file}: unknown option '{key}'; known: {', '.join(sorted(names))}")
            values[key] = _convert(hints[key], raw, f"{file}: {key}")
    for name in names:
        if (text := environ.get(f"PORTICO_{name.upper()}")) is not None:
            values[name] = _convert(hints[name], text, f"PORTICO_{name.upper()}")
    for name, value in command_line.items():
        if value is not None:
            values[name] = _convert(hints[name], value, f"--{name.replace('_', '-')}")
    values["data"] = Path(values.get("data", data)).expanduser().absolute()
    settings = Settings(**values)
    _check(settings)
    return settings


def to_environment(settings: Settings) -> dict[str, str]:
    """The same settings as `PORTICO_…` variables: how the supervisor hands them to its children."""
    values = {f.name: getattr(settings, f.name) for f in fields(settings)}
    return {
        f"PORTICO_{name.upper()}": value.reveal() if isinstance(value, Secret) else str(value)
        for name, value in values.items()
    }


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except OSError as error:
        raise BadRequest(f"cannot read {file}: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise BadRequest(f"{file} is not valid TOML: {error}") from error


def _convert(kind: type, raw: object, where: str) -> object:
    try:
        if kind is Path:
            return Path(str(raw))
        return kind(raw) if kind is not str else str(raw)
    except (TypeError, ValueError) as error:
        raise BadRequest(f"{where}: {raw!r} is not a valid {kind.__name__}") from error


def _check(settings: Settings) -> None:
    if settings.public_scheme not in ("http", "https"):
        raise BadRequest("public_scheme is 'http' or 'https'")
    try:
        port = settings.listen_port
    except ValueError:
        raise BadRequest(f"--listen {settings.listen!r} is not HOST:PORT") from None
    if not 0 < port < 65536 or not settings.listen_host:
        raise BadRequest(f"--listen {settings.listen!r} is not HOST:PORT with a port from 1 to 65535")
    local = settings.host.endswith(".localhost") and settings.studio_domain.endswith(".localhost")
    if settings.public_scheme == "http" and not local:
        raise BadRequest(
            "without TLS browsers keep our cookies on *.localhost names only: set public_scheme = 'https' and put TLS "
            "in front, or leave host and studio_domain under .localhost"
        )
    if settings.isolation not in ("auto", "root", "user", "none"):
        raise BadRequest("isolation is 'auto', 'root', 'user' or 'none'")
    if settings.compute not in ("local", "attach"):
        raise BadRequest("compute is 'local' or 'attach'")
