"""What the agent reads on a tunnel connection before it is a pipe."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portico_agent.tunnel.spare import MAX_HEAD, Accepted, Claimed, Declined, Fault, SpareReader
from portico_shared.tunnel import Claim

SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: portico-tunnel\r\n\r\n"
CLAIM = Claim(port=8888, kind="http", wanted=3)


@given(st.lists(st.integers(1, 60), max_size=20))
def test_a_whole_conversation_is_understood_in_any_pieces(cuts: list[int]) -> None:
    stream = SWITCHED + b"\n\n\n" + CLAIM.to_bytes()
    reader, events, start = SpareReader(), [], 0
    for cut in [*cuts, len(stream)]:
        events += reader.feed(stream[start : start + cut])
        start += cut
    assert events == [Accepted(), Claimed(CLAIM)]


def test_another_status_declines() -> None:
    assert SpareReader().feed(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno") == [Declined(401)]


def test_a_claim_may_come_with_the_switch() -> None:
    assert SpareReader().feed(SWITCHED + CLAIM.to_bytes()) == [Accepted(), Claimed(CLAIM)]


@pytest.mark.parametrize(
    "stream",
    [
        b"HTTP/1.0 101 Switching\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"x" * (MAX_HEAD + 1),
        SWITCHED + b"CLAIM 0 http 1\n",
        SWITCHED + b"CLAIM 65536 http 1\n",
        SWITCHED + b"CLAIM 80 http 257\n",
        SWITCHED + b"CLAIM 80 shell 1\n",
        SWITCHED + b"CLAIM 80 http 1\r\n",
        SWITCHED + b"CLAIM 80 " + b"h" * 64,
        SWITCHED + b"GET / HTTP/1.1\n",
        SWITCHED + CLAIM.to_bytes() + b"GET /",
        SWITCHED + CLAIM.to_bytes() + CLAIM.to_bytes(),
    ],
)
def test_anything_else_is_a_fault(stream: bytes) -> None:
    with pytest.raises(Fault):
        SpareReader().feed(stream)


@given(st.binary(max_size=300))
def test_any_bytes_end_in_an_event_or_a_fault(garbage: bytes) -> None:
    reader = SpareReader()
    try:
        reader.feed(SWITCHED)
        reader.feed(garbage)
    except Fault:
        pass
