"""The life of a studio as one table: statuses, events, who may ask for what, and why not.

    stopped ──start──▶ starting ──answered──▶ running ──stop──▶ stopping ──left──▶ stopped
       │                 ▲    │ failed, lost                        │ lost
       └──build──▶ building   └──────────────▶ errored ◀────────────┘
                      │ build-failed
                      └────────▶ build-failed

The table is all there is: code asks `after`, `allowed` and `refusal`; drawings, checks and messages read it too.
"""

import enum
from types import MappingProxyType

from portico_gateway.auth.values import Action
from portico_gateway.errors import Conflict
from portico_gateway.studios.values import Status


class Event(enum.Enum):
    """What can happen to a studio."""

    BUILD = "build"  # started, but its tool has to be installed first
    START = "start"  # started, its tool is there
    BUILT = "built"
    BUILD_FAILED = "build-failed"
    ANSWERED = "answered"  # the tool answered an HTTP probe through the tunnel
    STOP = "stop"  # somebody or something asked for its end
    LEFT = "left"  # the run ended in order
    KILLED = "killed"  # the run was ended by force, on demand
    FAILED = "failed"  # it cannot go on; the message says why
    LOST = "lost"  # the compute environment says it is gone, or nothing was heard of it for too long


_S, _E = Status, Event

TRANSITIONS: MappingProxyType[tuple[Status, Event], Status] = MappingProxyType(
    {
        (_S.STOPPED, _E.BUILD): _S.BUILDING,
        (_S.STOPPED, _E.START): _S.STARTING,
        (_S.ERRORED, _E.BUILD): _S.BUILDING,
        (_S.ERRORED, _E.START): _S.STARTING,
        (_S.BUILD_FAILED, _E.BUILD): _S.BUILDING,
        (_S.BUILD_FAILED, _E.START): _S.STARTING,
        (_S.BUILDING, _E.BUILT): _S.STARTING,
        (_S.BUILDING, _E.BUILD_FAILED): _S.BUILD_FAILED,
        (_S.BUILDING, _E.STOP): _S.STOPPING,
        (_S.BUILDING, _E.FAILED): _S.ERRORED,
        (_S.STARTING, _E.ANSWERED): _S.RUNNING,
        (_S.STARTING, _E.STOP): _S.STOPPING,
        (_S.STARTING, _E.FAILED): _S.ERRORED,
        (_S.STARTING, _E.LOST): _S.ERRORED,
        (_S.RUNNING, _E.STOP): _S.STOPPING,
        (_S.RUNNING, _E.LEFT): _S.STOPPED,
        (_S.RUNNING, _E.FAILED): _S.ERRORED,
        (_S.RUNNING, _E.LOST): _S.ERRORED,
        (_S.STOPPING, _E.LEFT): _S.STOPPED,
        (_S.STOPPING, _E.KILLED): _S.STOPPED,
        (_S.STOPPING, _E.FAILED): _S.ERRORED,
        (_S.STOPPING, _E.LOST): _S.ERRORED,
    }
)

LIVE = frozenset({_S.BUILDING, _S.STARTING, _S.RUNNING, _S.STOPPING})
"""A run exists, or is being made."""

RESTING = frozenset(_S) - LIVE


def after(status: Status, event: Event) -> Status:
    """The status that follows. Raises Conflict when the event has no place in this status."""
    try:
        return TRANSITIONS[status, event]
    except KeyError:
        raise Conflict(f"a studio that is {status.value} cannot take '{event.value}'") from None


RIGHTS: MappingProxyType[str, Action] = MappingProxyType(
    {
        "connect": Action.CONNECT,
        "start": Action.STUDIO_EXECUTE,
        "stop": Action.STUDIO_EXECUTE,
        "fork": Action.STUDIO_WRITE,
        "edit": Action.STUDIO_WRITE,
        "delete": Action.STUDIO_DELETE,
        "checkpoint": Action.STUDIO_EXECUTE,
        "extend": Action.EXTEND,
        "logs": Action.STUDIO_READ,
    }
)
"""What can be asked of a studio, and the right it takes."""

_OK = ""

# One column per status; an empty sentence means: allowed.
_COLUMNS = (_S.BUILDING, _S.BUILD_FAILED, _S.STARTING, _S.RUNNING, _S.STOPPING, _S.STOPPED, _S.ERRORED)
_BUILDING = "its tool is still being installed"
_STARTING = "it is still starting"
_STOPPING = "it is stopping, and its state is being saved"
_ROWS: dict[str, tuple[str, str, str, str, str, str, str]] = {
    "connect": (
        f"{_BUILDING}: its page opens by itself when it runs",
        "its tool could not be installed: read the log, then start it again",
        f"{_STARTING}: its page opens by itself when it runs",
        _OK,
        f"{_STOPPING}: start it again when it has stopped",
        "it is stopped: start it first",
        "it ended with an error: start it again first",
    ),
    "start": (
        "it has been started: its tool is being installed",
        _OK,
        "it is starting already",
        "it is running already",
        f"{_STOPPING}: start it again when it has stopped",
        _OK,
        _OK,
    ),
    "stop": (
        _OK,
        "there is nothing to stop: its tool could not be installed",
        _OK,
        _OK,
        "it is stopping already; when that takes too long, a second stop ends it by force",
        "it is stopped already",
        "it has ended already, with an error",
    ),
    "fork": (
        f"{_BUILDING}: copy it when it runs, or when it has stopped",
        "its tool could not be installed: start it again, or add a new studio",
        f"{_STARTING}: copy it when it runs",
        _OK,
        f"{_STOPPING}: copy it when it has stopped",
        _OK,
        _OK,
    ),
    "edit": (
        f"{_BUILDING}: stop it before you edit it",
        _OK,
        f"{_STARTING}: stop it before you edit it",
        "it is running: stop it before you edit it",
        f"{_STOPPING}: edit it when it has stopped",
        _OK,
        _OK,
    ),
    "delete": (
        f"{_BUILDING}: stop it before you delete it",
        _OK,
        f"{_STARTING}: stop it before you delete it",
        "it is running: stop it before you delete it",
        f"{_STOPPING}: delete it when it has stopped",
        _OK,
        _OK,
    ),
    "checkpoint": (
        f"{_BUILDING}: there is nothing to save yet",
        "it is not running: there is nothing new to save",
        f"{_STARTING}: a checkpoint is made as soon as it runs",
        _OK,
        f"{_STOPPING}: its last checkpoint is being made",
        "it is stopped: its newest checkpoint holds everything",
        "it is not running: what it left behind is saved at its next start",
    ),
    "extend": (
        f"{_BUILDING}: its time has not begun",
        "it is not running: its time begins when it starts",
        f"{_STARTING}: its time begins when it runs",
        _OK,
        f"{_STOPPING}: too late to extend it",
        "it is stopped: its time begins when it starts",
        "it is not running: its time begins when it starts",
    ),
    "logs": (_OK, _OK, _OK, _OK, _OK, _OK, _OK),
}

REFUSALS: MappingProxyType[tuple[str, Status], str] = MappingProxyType(
    {
        (action, status): sentence
        for action, row in _ROWS.items()
        for status, sentence in zip(_COLUMNS, row, strict=True)
        if sentence
    }
)
"""Why an action is refused in a status; a pair that is not here is allowed."""


def allowed(action: str, status: Status) -> bool:
    return (action, status) not in REFUSALS


def refusal(action: str, status: Status) -> str | None:
    """The sentence that says why not, or None when the action is allowed."""
    return REFUSALS.get((action, status))


def require(action: str, status: Status) -> None:
    """Raises Conflict with the refusal's sentence."""
    if (sentence := refusal(action, status)) is not None:
        raise Conflict(sentence)


NO_RIGHT: MappingProxyType[str, str] = MappingProxyType(
    {
        "connect": "your role does not open studios: ask for Connect or more",
        "start": "your role does not start studios: ask for Launch or more",
        "stop": "your role does not stop studios: ask for Launch or more",
        "fork": "your role does not add studios: ask for Maintain or more",
        "edit": "your role does not edit studios: ask for Maintain or more",
        "delete": "your role does not delete studios: ask for Maintain or more",
        "checkpoint": "your role does not make checkpoints: ask for Launch or more",
        "extend": "your role does not extend studios: ask for Connect or more",
        "logs": "your role does not read logs",
    }
)
"""Why an action is refused to somebody whose role does not reach that far."""
