"""Where WebSocket frames end: counted, never decoded, so that a close of ours falls between two frames of theirs."""

import struct

NORMAL_HEADER = 2


class FrameCounter:
    """Follows one direction of a WebSocket from its first byte. `at_boundary`: nothing is half sent."""

    def __init__(self) -> None:
        self._left = 0
        self._header = b""
        self.closed = False
        """A close frame has passed: nothing may follow it."""

    @property
    def at_boundary(self) -> bool:
        return self._left == 0 and not self._header

    def feed(self, data: bytes) -> None:
        position, size = 0, len(data)
        if self.at_boundary and size >= NORMAL_HEADER and data[0] & 0x0F != 8 and size == NORMAL_HEADER + data[1] < 128:
            return  # one small frame, whole: nearly all of what chatty tools send
        while position < size:
            if self._left:
                step = min(self._left, size - position)
                self._left -= step
                position += step
                continue
            self._header += data[position : position + 1]
            position += 1
            self._maybe_start()

    def _maybe_start(self) -> None:
        header = self._header
        if len(header) < NORMAL_HEADER:
            return
        short, masked = header[1] & 0x7F, header[1] >> 7
        extra = 2 if short == 126 else 8 if short == 127 else 0
        if len(header) < NORMAL_HEADER + extra + 4 * masked:
            return
        if extra == 2:
            short = struct.unpack_from("!H", header, 2)[0]
        elif extra == 8:
            short = struct.unpack_from("!Q", header, 2)[0]
        if header[0] & 0x0F == 8:
            self.closed = True
        self._left, self._header = short, b""


def close_frame(code: int, reason: str = "") -> bytes:
    """An unmasked close frame, as a server sends it."""
    payload = struct.pack("!H", code) + reason.encode()[:120]
    return bytes((0x88, len(payload))) + payload
