"""What portico-init knows of the tool and of the steps that prepare it, and how they are brought to an end."""

import enum
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True, kw_only=True)
class Child:
    """A process that runs user code: the tool itself, or a step that prepares its root."""

    pid: int
    role: str
    started: float
    """Seconds since the epoch, for people."""
    note: Any = None
    """What the agent wants to find again after a restart: its port, say. Never looked at here."""
    code: int | None = None

    @property
    def running(self) -> bool:
        return self.code is None

    def describe(self) -> dict[str, Any]:
        state = "running" if self.running else "exited"
        return {"pid": self.pid, "started": self.started, "note": self.note, "state": state, "code": self.code}


class EndStage(enum.Enum):
    """The way user code ends; each stage has its own deadline and falls into the next.

    TOOL    the tool was asked to end and may save its work
    REST    the tool is gone; what it left behind (daemons, kernels) is asked
    KILL    everything of the user's is killed until nothing is left
    """

    TOOL = "tool"
    REST = "rest"
    KILL = "kill"


REST_SECONDS = 2.0
"""What outlives the tool has no work of its own to save: time to close files, no more."""
KILL_AGAIN_SECONDS = 0.05


@dataclass(slots=True)
class Ending:
    """Brings all user code to an end. `advance` says what to send now; the owner of the processes sends it."""

    grace: float
    stage: EndStage = EndStage.TOOL
    deadline: float = field(default=0.0)

    def begin(self, now: float) -> None:
        self.deadline = now + self.grace

    def advance(self, now: float, *, tool_runs: bool) -> EndStage | None:
        """The stage just entered, whose signal is due, or None while there is only waiting to do."""
        if self.stage is EndStage.TOOL and (not tool_runs or now >= self.deadline):
            self.stage = EndStage.KILL if tool_runs else EndStage.REST
            self.deadline = now + (KILL_AGAIN_SECONDS if tool_runs else REST_SECONDS)
            return self.stage
        if self.stage is not EndStage.TOOL and now >= self.deadline:
            self.stage = EndStage.KILL
            self.deadline = now + KILL_AGAIN_SECONDS
            return self.stage
        return None
