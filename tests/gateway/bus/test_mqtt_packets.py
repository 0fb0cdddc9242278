"""What the door reads of MQTT, checked against packets that a real client makes."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portico_gateway.bus.packets import MAX_PACKET, BadPacket, Connect, Packets, parse_connect, publish_topic


def text(value: str) -> bytes:
    return struct.pack(">H", len(value.encode())) + value.encode()


def packet(first: int, content: bytes) -> bytes:
    length, out = len(content), bytearray([first])
    while True:
        out.append(length % 128 | (128 if length > 127 else 0))
        length //= 128
        if not length:
            return bytes(out) + content


def connect(flags: int = 0xC2, name: str = "MQTT", level: int = 4, rest: bytes | None = None) -> bytes:
    rest = text("r1") + text("r1") + text("secret") if rest is None else rest
    return packet(0x10, text(name) + bytes([level, flags]) + struct.pack(">H", 10) + rest)


PUBLISH = packet(0x32, text("portico/runs/r1/status") + b"\0\1" + b"{}" * 200)
STREAM = connect() + PUBLISH + packet(0xC0, b"") + packet(0xE0, b"")


@given(st.lists(st.integers(1, 300), max_size=20))
def test_packets_survive_any_cut_into_pieces(cuts: list[int]) -> None:
    packets, seen, start = Packets(), [], 0
    for cut in [*cuts, len(STREAM)]:
        packets.feed(STREAM[start : start + cut])
        start += cut
        while (whole := packets.take()) is not None:
            seen.append(whole)
    assert b"".join(seen) == STREAM and len(seen) == 4


def test_a_connect_is_read() -> None:
    assert parse_connect(connect()) == Connect(
        client_id="r1",
        clean_session=True,
        keepalive=10,
        user="r1",
        password="secret",
        will_topic=None,
        will_message=b"",
    )


def test_a_last_will_is_read() -> None:
    rest = text("r1") + text("the/topic") + text("gone") + text("r1") + text("secret")
    read = parse_connect(connect(flags=0xEE, rest=rest))
    assert (read.will_topic, read.will_message) == ("the/topic", b"gone")


@pytest.mark.parametrize(
    "bad",
    [
        connect(name="MQIsdp", level=3),
        connect(level=5),
        connect(flags=0xC3),  # the reserved bit
        connect(flags=0x02, rest=text("r1")),  # nobody
        connect(flags=0x82, rest=text("r1") + text("r1")),  # no password
        connect(flags=0xE2),  # a retained will that is not there
        connect(rest=text("r1") + text("r1")),
        connect(rest=text("r1") + text("r1") + text("x") + b"more"),
        connect(rest=b"\0\2\xff\xfe" + text("r1") + text("x")),
        connect(rest=text("r\0") + text("r1") + text("x")),
        connect(rest=b"\xff\xffshort"),
        PUBLISH,
        packet(0x11, b""),
        packet(0x10, b""),
    ],
)
def test_a_connect_that_is_off_is_refused(bad: bytes) -> None:
    with pytest.raises(BadPacket):
        parse_connect(bad)


def test_a_topic_is_read() -> None:
    assert publish_topic(PUBLISH) == "portico/runs/r1/status"


@pytest.mark.parametrize("bad", [packet(0x34, text("t") + b"\0\1"), packet(0x30, b"\0"), packet(0x30, b"\0\5abc")])
def test_a_message_that_is_off_is_refused(bad: bytes) -> None:
    with pytest.raises(BadPacket):
        publish_topic(bad)


@pytest.mark.parametrize("first", [0x00, 0x20, 0x50, 0x60, 0x70, 0x90, 0xB0, 0xD0, 0xF0])
def test_a_packet_no_client_sends_is_refused(first: int) -> None:
    packets = Packets()
    packets.feed(bytes([first, 0]))
    with pytest.raises(BadPacket, match="type"):
        packets.take()


def test_a_packet_over_the_limit_is_refused_before_it_arrives() -> None:
    packets = Packets()
    packets.feed(packet(0x30, b"x" * (MAX_PACKET + 1))[:5])
    with pytest.raises(BadPacket, match="at most"):
        packets.take()


def test_a_length_without_end_is_refused() -> None:
    packets = Packets()
    packets.feed(b"\x30\xff\xff\xff\xff\x01")
    with pytest.raises(BadPacket, match="four bytes"):
        packets.take()


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(garbage: bytes) -> None:
    packets = Packets()
    packets.feed(b"\x10" + garbage)
    try:
        while (whole := packets.take()) is not None:
            parse_connect(whole)
    except BadPacket:
        pass
