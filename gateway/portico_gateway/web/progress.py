"""A start as people follow it: what is done, what goes on, what is still to come, and the last words of a failure."""

from dataclasses import dataclass

from portico_gateway.auth.values import Actor
from portico_gateway.errors import PorticoError
from portico_gateway.studios.values import ProgressStep, Status, Studios, StudioView
from portico_gateway.web import words

TAIL_LINES = 12
TAIL_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the start page."""

    name: str
    words: str
    state: str  # 'done', 'now', 'failed', 'later'
    detail: str
    fraction: float | None
    """How far it is, 0..1, where its detail tells."""
    since: float | None
    seconds: float | None
    """How long it took."""
    usual: float | None
    """How long it usually takes, seconds."""


def steps(view: StudioView) -> tuple[Step, ...]:
    """The steps of the newest start: those told, then those that usually follow while it is on its way."""
    told = _latest(view.progress)
    usual = {name: seconds for name, _, seconds in words.STEPS}
    shown = [_shown(name, first, last, usual.get(name)) for name, (first, last) in told.items()]
    if view.status in (Status.STARTING, Status.BUILDING):
        order = [name for name, _, _ in words.STEPS]
        reached = max((order.index(name) for name in told if name in order), default=-1)
        shown += [
            Step(name, words.step(name), "later", "", None, None, None, usual[name])
            for name in order[reached + 1 :]
            if name not in ("building", "mounting")  # only some studios have these
        ]
    return tuple(shown)


async def log_tail(studios: Studios, actor: Actor, view: StudioView) -> str:
    """The last lines of the run's log, '' when there is none or it is not for this actor."""
    if "logs" not in view.actions:
        return ""
    text, offset = "", 0
    try:
        while True:
            chunk = await studios.logs(actor, view.session_id, offset=offset)
            text = (text + chunk.text)[-TAIL_BYTES:]
            if chunk.next_offset <= offset or not chunk.text:
                break
            offset = chunk.next_offset
    except PorticoError:
        return ""
    return "\n".join(words.plain_log(text).strip("\n").split("\n")[-TAIL_LINES:])


def _latest(progress: tuple[ProgressStep, ...]) -> dict[str, tuple[ProgressStep, ProgressStep]]:
    """Each step's first and last word, in the order in which they began."""
    told: dict[str, tuple[ProgressStep, ProgressStep]] = {}
    for step in progress:
        first = told[step.name][0] if step.name in told else step
        told[step.name] = (first, step)
    return told


def _shown(name: str, first: ProgressStep, last: ProgressStep, usual: float | None) -> Step:
    state = {"done": "done", "failed": "failed"}.get(last.state, "now")
    took = last.at - first.at if state == "done" else None
    return Step(name, words.step(name), state, last.detail, words.fraction(last.detail), first.at, took, usual)
