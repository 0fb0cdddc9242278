"""Frames of the link: pieces, limits, garbage."""

import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from portico_gateway.link.framing import BadFrame, from_control, from_edge, pack
from portico_gateway.link.messages import MAX_FRAME, CheckRun, Hello, Keys, Presence, Route, Routes, Verdict

MESSAGES = [
    Hello(worker="w1", pid=7),
    CheckRun(id=1, token="t" * 500),
    Presence(session_id="00000001", users=((1, 2.5), (2, 3.0))),
]


@given(st.lists(st.integers(1, 700), max_size=20))
def test_messages_survive_any_cut_into_pieces(cuts: list[int]) -> None:
    stream = b"".join(pack(m) for m in MESSAGES)
    frames, seen, start = from_edge(), [], 0
    for cut in [*cuts, len(stream)]:
        seen += frames.feed(stream[start : start + cut])
        start += cut
    assert seen == MESSAGES


def test_control_messages_come_back_as_they_were() -> None:
    said = [
        Keys(public_keys=(b"k" * 32,), generation=3),
        Routes(routes=(Route(session_id="00000001", state="running", run="r" + "0" * 16, port=8888),)),
        Verdict(id=4, status=404, message="no"),
    ]
    assert from_control().feed(b"".join(map(pack, said))) == said


def test_a_length_over_the_limit_is_refused_before_its_body_arrives() -> None:
    with pytest.raises(BadFrame, match="over the limit"):
        from_edge().feed(struct.pack(">I", MAX_FRAME + 1))


def test_a_message_over_the_limit_is_not_sent() -> None:
    with pytest.raises(BadFrame, match="over the limit"):
        pack(CheckRun(id=1, token="x" * MAX_FRAME))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode({"type": "who-knows"}),
        msgspec.msgpack.encode({"type": "hello", "worker": 3}),
        msgspec.msgpack.encode({"type": "verdict", "id": 1, "status": 200}),  # control's words in an edge's mouth
    ],
)
def test_a_frame_that_is_no_message_is_refused(body: bytes) -> None:
    with pytest.raises(BadFrame):
        from_edge().feed(struct.pack(">I", len(body)) + body)
