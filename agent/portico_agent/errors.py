"""What can go wrong in an agent, named by whose fault it is and at which stage.

AgentError
├── GatewayError            between us and the gateway
│   ├── GatewayAway         no answer, or one that asks for patience: the call may be repeated
│   │   └── GatewayBusy     it answered, and its words say what it misses
│   ├── RunOver             the gateway does not want this run any more: leave
│   ├── TokenRefused        a short token is not taken: another may be
│   └── Refused             this request is refused, and will be again
├── StorageError            between us and the object store
│   ├── StorageAway         may be repeated
│   └── StorageRefused      with these headers, at this URL, never
├── CheckpointError         a checkpoint could not be made or brought back
├── RootError               the tool's root could not be made
├── ToolError               the tool could not be prepared or started
└── InitGone                portico-init does not answer: the run is ending
"""


class AgentError(Exception):
    """Base of all. The text is a sentence for people, with what to do where there is something to do."""


class GatewayError(AgentError):
    """The gateway's answer, or its absence."""


class GatewayAway(GatewayError):
    """No answer, or a 5xx or 429."""


class GatewayBusy(GatewayAway):
    """A 5xx or 429 with words: the checkpoint store behind it is away, say."""


class RunOver(GatewayError):
    """The run was ended, replaced by a newer one, or never existed."""


class TokenRefused(GatewayError):
    """A 401 to a call with a short token."""


class Refused(GatewayError):
    """A 4xx that repeating will not change."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message

    def __str__(self) -> str:
        return f"the gateway refused ({self.status}): {self.message}"


class StorageError(AgentError):
    """The object store's answer, or its absence."""


class StorageAway(StorageError):
    """No answer, a 5xx, or slower than any store should be."""


class StorageRefused(StorageError):
    """A 4xx: an expired or misused grant, a missing object."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message

    def __str__(self) -> str:
        return f"the store refused ({self.status}): {self.message}"


class CheckpointError(AgentError):
    """A checkpoint could not be made or brought back."""


class RootError(AgentError):
    """The tool's root could not be made."""


class ToolError(AgentError):
    """The tool could not be prepared or started."""


class InitGone(AgentError):
    """portico-init does not answer."""
