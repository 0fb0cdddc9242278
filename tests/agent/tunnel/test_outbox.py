"""What an agent still has to say."""

from portico_agent.outbox import CONNECTION, MAX_REPORTS, Outbox, Said
from portico_shared.messages import Answer, Status, Step

RUN = "r" + "1" * 16


def status(phase: str) -> Status:
    return Status(run=RUN, agent=1, seq=0, phase=phase)  # type: ignore[arg-type]


def step(n: int) -> Step:
    return Step(run=RUN, at=float(n), name="s", state="done")


def drain(outbox: Outbox) -> list[Said]:
    said = []
    while (message := outbox.first()) is not None:
        said.append(message)
        outbox.said(message)
    return said


def test_only_the_newest_status_is_said() -> None:
    outbox = Outbox()
    for phase in ("preparing", "mounting", "running"):
        outbox.put(status(phase))
    said = drain(outbox)
    assert [s.phase for s in said if isinstance(s, Status)] == ["running"]
    assert outbox.is_empty


def test_what_was_not_confirmed_is_said_again() -> None:
    outbox = Outbox()
    outbox.put(step(1))
    assert outbox.first() == outbox.first() == step(1)


def test_the_status_is_said_again_on_a_new_connection_and_the_rest_is_not() -> None:
    outbox = Outbox()
    outbox.put(status("running"))
    outbox.put(step(1))
    assert len(drain(outbox)) == 2
    outbox.will(RUN, 1)
    assert [type(s) for s in drain(outbox)] == [Status]


def test_a_status_that_changes_while_the_older_is_being_said_is_said_too() -> None:
    outbox = Outbox()
    outbox.put(status("launching"))
    older = outbox.first()
    outbox.put(status("running"))
    assert older is not None
    outbox.said(older)
    assert [s.phase for s in drain(outbox) if isinstance(s, Status)] == ["running"]


def test_a_will_is_newer_than_its_connection_and_older_than_the_next() -> None:
    outbox = Outbox()
    numbers = []
    for _ in range(3):
        will = outbox.will(RUN, 4)
        outbox.put(status("running"))
        numbers += [s.seq for s in drain(outbox) if isinstance(s, Status)]
        numbers.append(will.seq)
        assert (will.phase, will.agent) == ("unreachable", 4)
    assert numbers == sorted(numbers) and len(set(numbers)) == len(numbers)
    assert numbers[1] == 2 * CONNECTION - 1


def test_answers_come_before_reports() -> None:
    outbox = Outbox()
    outbox.put(step(1))
    outbox.put(Answer(id="c", run=RUN, ok=True))
    assert [type(s) for s in drain(outbox)] == [Answer, Step]


def test_the_oldest_reports_are_dropped_and_counted() -> None:
    outbox = Outbox()
    for n in range(MAX_REPORTS + 5):
        outbox.put(step(n))
    assert outbox.dropped == 5
    said = drain(outbox)
    assert len(said) == MAX_REPORTS and said[0] == step(5) and said[-1] == step(MAX_REPORTS + 4)
