"""Who is calling, once a run's credential has been checked: every call of an agent is answered for this value alone."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """A live run as the store knows it; nothing in it comes from what an agent says."""

    run_id: str
    session_id: str
    lineage: str
    generation: int
    """Fencing number: a commit of an older generation than the studio's is refused."""
    checkpoint_id: int
    """The run's own row in the catalogue (0 = it has none)."""
    workspace_id: int = 0
    author_id: int | None = None
    """Who started the run."""
