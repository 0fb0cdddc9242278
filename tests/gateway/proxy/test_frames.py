import os
import struct

import pytest

from portico_gateway.proxy.frames import FrameCounter, close_frame


def message(payload: bytes, opcode: int = 2, mask: bool = False) -> bytes:
    size, bit = len(payload), 0x80 if mask else 0
    if size < 126:
        head = bytes((0x80 | opcode, bit | size))
    elif size < 65536:
        head = bytes((0x80 | opcode, bit | 126)) + struct.pack("!H", size)
    else:
        head = bytes((0x80 | opcode, bit | 127)) + struct.pack("!Q", size)
    return head + (b"\1\2\3\4" if mask else b"") + payload


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536])
def test_boundary_is_known_after_each_whole_frame(size: int, mask: bool):
    counter, data = FrameCounter(), message(os.urandom(size), mask=mask)
    counter.feed(data)
    assert counter.at_boundary
    counter.feed(data[:-1])
    assert not counter.at_boundary
    counter.feed(data[-1:] + data)
    assert counter.at_boundary and not counter.closed


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
def test_pieces_of_any_size_count_the_same(size: int):
    stream = b"".join(message(b"x" * n, mask=bool(n % 2)) for n in (0, 3, 125, 126, 70000, 1))
    counter = FrameCounter()
    for start in range(0, len(stream), size):
        counter.feed(stream[start : start + size])
    assert counter.at_boundary
    counter.feed(b"\x82")
    assert not counter.at_boundary


def test_close_frame_is_noticed():
    counter = FrameCounter()
    counter.feed(message(b"bye") + close_frame(1000))
    assert counter.closed and counter.at_boundary


def test_close_frame_of_ours_is_one_unmasked_frame():
    frame = close_frame(1012, "the gateway is restarting")
    assert frame[:2] == bytes((0x88, len(frame) - 2))
    assert struct.unpack("!H", frame[2:4])[0] == 1012 and frame[4:] == b"the gateway is restarting"
    assert len(close_frame(1011, "x" * 500)) <= 127
