"""Times, sizes and states in people's words."""

import pytest

from portico_gateway.auth.values import User
from portico_gateway.studios.values import ProgressStep, Status, StopReason
from portico_gateway.web import words
from portico_gateway.web.progress import steps
from support.web_world import sample_world


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (3600, "1 h"),
        (22320, "6 h 12 min"),
        (260000, "3 days"),
    ],
)
def test_a_span_has_its_units(seconds: float, text: str) -> None:
    assert words.span(seconds) == text


@pytest.mark.parametrize(
    ("passed", "text"),
    [(3, "just now"), (100, "2 min ago"), (7300, "2 h ago"), (90000, "1 day ago"), (400000, "4 days ago")],
)
def test_a_time_is_told_from_now(passed: float, text: str) -> None:
    assert words.ago(1_800_000_000 - passed, 1_800_000_000) == text


def test_a_time_long_past_is_a_date() -> None:
    assert words.ago(1_700_000_000, 1_800_000_000) == "14 Nov 2023"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (312_400, "312 kB"), (4_120_000, "4.1 MB"), (412_000_000, "412 MB"), (1.2e12, "1.2 TB")],
)
def test_a_size_has_its_unit(count: float, text: str) -> None:
    assert words.size(count) == text


@pytest.mark.parametrize(
    ("detail", "fraction"),
    [("412 MB of 1.2 GB", 412 / 1200), ("1 GiB of 4 GiB", 0.25), ("5 of 10 MB", 0.5), ("2 GB of 1 GB", 1.0)],
)
def test_progress_is_read_from_its_words(detail: str, fraction: float) -> None:
    assert words.fraction(detail) == pytest.approx(fraction)


@pytest.mark.parametrize("detail", ["", "412 MB", "of", "1.2.3 of 4 MB", "3 MB of 0 MB"])
def test_words_without_progress_have_none(detail: str) -> None:
    assert words.fraction(detail) is None


def test_a_log_loses_its_terminal_escapes_and_control_characters() -> None:
    raw = "\x1b[31mred\x1b[0m\r\nbar 10%\rbar 20%\x07\x1b]0;title\x07end\x00\tkept"
    assert words.plain_log(raw) == "red\nbar 10%\nbar 20%end\tkept"


def test_initials_are_first_and_last() -> None:
    assert words.initials(User(1, "ana", "a@b", "Ana Maria Ruiz")) == "AR"
    assert words.initials(User(1, "dora", "a@b")) == "D"
    assert words.initials(User(1, " ", "a@b")) == "?"


def test_why_a_studio_stopped_is_a_sentence_for_every_reason() -> None:
    assert words.STOPPED_BECAUSE.keys() == set(StopReason)
    assert words.STATUS.keys() == set(Status)


def test_a_browser_is_named_by_its_agent() -> None:
    firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
    assert words.browser(firefox) == "Firefox on Linux"
    assert words.browser("") == "A browser"


def test_steps_told_come_first_and_the_usual_ones_follow_while_it_starts() -> None:
    view = sample_world().rows["0badcafe"]
    shown = [(s.name, s.state) for s in steps(view)]
    assert shown == [("provisioning", "done"), ("preparing", "done"), ("restoring", "now"), ("launching", "later")]
    assert steps(view)[2].fraction == pytest.approx(412 / 1200)
    assert steps(view)[1].seconds == pytest.approx(2.0)


def test_an_unknown_step_is_told_by_its_name() -> None:
    world = sample_world()
    world.change("0badcafe", progress=(ProgressStep(1.0, "warming-up", "started"),))
    assert steps(world.rows["0badcafe"])[0].words == "Warming up"
