"""Times, sizes, states and people in the words of the person who reads them."""

import datetime
import re

from portico_gateway.auth.values import Role, User
from portico_gateway.studios.values import CheckpointView, Status, StopReason, StudioView

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0
_CONTROL = re.compile(
    r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b.|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"
)
_OF = re.compile(r"([\d.,]+)\s*([kMGT]?i?B)?\s+of\s+([\d.,]+)\s*([kMGT]?i?B)?", re.ASCII)
_UNITS = {"B": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}

STATUS = {
    Status.BUILDING: "Building",
    Status.BUILD_FAILED: "Build failed",
    Status.STARTING: "Starting",
    Status.RUNNING: "Running",
    Status.STOPPING: "Stopping",
    Status.STOPPED: "Stopped",
    Status.ERRORED: "Errored",
}

STOPPED_BECAUSE = {
    StopReason.LIFESPAN_EXPIRED: "Stopped because its time was up",
    StopReason.IDLE: "Stopped because nobody was here and nothing was running",
    StopReason.SPOT_RECLAMATION: "Stopped because the cloud took its machine back",
    StopReason.CREDITS_RUN_OUT: "Stopped because the credits ran out",
    StopReason.NO_STATS_AVAIL: "Stopped because nothing was heard of its machine",
    StopReason.USER: "Stopped by a person",
}

ROLE = {
    Role.VIEW: "Sees the studios, opens none",
    Role.CONNECT: "Opens running studios",
    Role.LAUNCH: "Also starts and stops them",
    Role.MAINTAIN: "Also adds, edits, forks and deletes them",
    Role.ADMIN: "Also manages members and settings",
    Role.OWNER: "Everything",
}

CHECKPOINT = {"pending": "Being saved", "saved": "Saved", "sealed": "Saved", "failed": "Failed"}

REASON = {
    "start": "at start",
    "interval": "while it ran",
    "request": "on request",
    "stop": "at stop",
    "fork": "for a copy",
    "salvage": "rescued after a failure",
    "signal": "when its machine went away",
}

STEPS = (
    ("building", "Building the tool", 20.0),
    ("provisioning", "Finding a machine", 1.0),
    ("preparing", "Preparing its disk", 1.0),
    ("restoring", "Bringing back your files", 1.0),
    ("mounting", "Mounting data", 2.0),
    ("launching", "Starting the tool", 3.0),
)
"""The usual way up: (name of the step, words, seconds it usually takes: measured with a fresh JupyterLab studio on two
cores). Others are shown as they come."""

SAID = {
    "added": "Added. It starts when you say so.",
    "copied": "Copied. The original is untouched.",
    "stopping": "Stopping: its state is saved first.",
    "deleted": "Deleted, with its checkpoints.",
    "saved": "Saved.",
    "checkpoint": "Saving a checkpoint; it appears below when it is safe.",
    "extended": "Extended.",
    "renamed": "Renamed.",
    "role": "Role changed; it counts from now on.",
    "removed": "Removed; their open tabs are closed.",
    "password": "Password changed; your other sign-ins have ended.",
    "token-deleted": "Token deleted; it opens nothing any more.",
    "signed-out": "That sign-in has ended.",
    "bye": "You are signed out.",
}
"""What a page says after an action; the address carries the key alone, never text."""


def span(seconds: float) -> str:
    """'45 s', '12 min', '6 h 12 min', '3 days'."""
    seconds = max(0.0, seconds)
    if seconds < _MINUTE:
        return f"{int(seconds)} s"
    if seconds < _HOUR:
        return f"{int(seconds // _MINUTE)} min"
    if seconds < 2 * _DAY:
        hours, minutes = int(seconds // _HOUR), int(seconds % _HOUR // _MINUTE)
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{int(seconds // _DAY)} days"


def ago(at: float, now: float) -> str:
    """'just now', '2 min ago', '3 h ago', '5 days ago', '12 Mar 2026'."""
    passed = now - at
    if passed < 45:
        return "just now"
    if passed < _HOUR:
        return f"{max(1, round(passed / _MINUTE))} min ago"
    if passed < _DAY:
        return f"{int(passed // _HOUR)} h ago"
    if passed < 14 * _DAY:
        days = int(passed // _DAY)
        return "1 day ago" if days == 1 else f"{days} days ago"
    return f"{_utc(at):%-d %b %Y}"


def moment(at: float) -> str:
    """The absolute time, in UTC; the page's script turns it into the visitor's own."""
    return f"{_utc(at):%-d %b %Y, %H:%M} UTC"


def iso(at: float) -> str:
    return f"{_utc(at):%Y-%m-%dT%H:%M:%SZ}"


def size(count: float) -> str:
    """'0 B', '312 kB', '4.1 MB', '1.2 GB'."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit in ("B", "kB") or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def memory(mib: int) -> str:
    return f"{mib / 1024:g} GiB" if mib >= 1024 else f"{mib} MiB"


def lifespan(hours: int) -> str:
    return "until stopped" if hours == 0 else "1 hour" if hours == 1 else f"{hours} hours"


def shown_name(user: User) -> str:
    return user.display_name or user.user_name


def initials(user: User) -> str:
    words = re.split(r"[\s._-]+", shown_name(user).strip())
    letters = [word[0] for word in words if word]
    return ("".join(letters[:1] + letters[-1:]) if len(letters) > 1 else "".join(letters)).upper() or "?"


def colour(user: User) -> int:
    """Which of the eight faces' colours a user has, the same on every page."""
    return user.id % 8


def why(studio: StudioView) -> str:
    """One sentence about how the studio came to be as it is."""
    if studio.status_message:
        return studio.status_message
    if studio.status is Status.STOPPED:
        if studio.stop_reason is not None:
            return STOPPED_BECAUSE[studio.stop_reason]
        return "Not started yet" if studio.last_started is None else "Stopped"
    return ""


def sentence(text: str) -> str:
    """With a capital and a full stop, as messages of other rooms come without."""
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if not text or text.endswith((".", "!", "?", "…")) else ".")


def reason(checkpoint: CheckpointView) -> str:
    return REASON.get(checkpoint.reason, checkpoint.reason.replace("-", " "))


def step(name: str) -> str:
    """A step of a start in words; unknown ones are told by their name."""
    for key, words, _ in STEPS:
        if key == name:
            return words
    return (name[:1].upper() + name[1:]).replace("-", " ").replace("_", " ")


def fraction(detail: str) -> float | None:
    """How far a step is when its detail says '412 MB of 1.2 GB': 0..1."""
    match = _OF.search(detail)
    if match is None:
        return None
    try:
        done = float(match[1].replace(",", "")) * _factor(match[2] or match[4])
        total = float(match[3].replace(",", "")) * _factor(match[4])
    except ValueError:
        return None
    return min(1.0, done / total) if total > 0 else None


def plain_log(text: str) -> str:
    """Log text without terminal escapes and control characters; a carriage return counts as a new line."""
    return _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def browser(agent: str) -> str:
    """'Firefox on Linux' out of a User-Agent; a guess for people, nothing depends on it."""
    names = (("Edg/", "Edge"), ("OPR/", "Opera"), ("Firefox/", "Firefox"), ("Chrome/", "Chrome"), ("Safari/", "Safari"))
    systems = (
        *(("Android", "Android"), ("iPhone", "iPhone"), ("iPad", "iPad"), ("Windows", "Windows")),
        *(("Mac OS X", "macOS"), ("CrOS", "ChromeOS"), ("Linux", "Linux")),
    )
    name = next((word for mark, word in names if mark in agent), "A browser")
    system = next((word for mark, word in systems if mark in agent), "")
    return f"{name} on {system}" if system else name


def _factor(unit: str | None) -> float:
    return 1024.0 ** "BkMGT".index(unit[0]) if unit and "i" in unit else _UNITS[(unit or "B")[0]]


def _utc(at: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(at, datetime.UTC)
