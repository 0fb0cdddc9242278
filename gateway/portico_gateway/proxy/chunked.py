"""The chunked coding: a strict reader that hands out the content, and the writer's few bytes.

    chunk = 1*8HEXDIG [ ";" extension ] CRLF data CRLF       last = "0" CRLF *( trailer CRLF ) CRLF

Extensions and trailers are bounded and dropped: what goes on is framed anew.
"""

import re
from collections.abc import Iterator

MAX_LINE = 256
MAX_TRAILERS = 8 * 1024
LAST = b"0\r\n\r\n"
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})(?:;(?:[\t !#-~\x80-\xff]|\"[^\"]*\")*)?")
_TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t !-~\x80-\xff]*")


class BadChunk(ValueError):
    """Not the chunked coding: neither side can know any more where the body ends."""


def frame(data: bytes) -> bytes:
    """One chunk holding `data`, which is not empty."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class ChunkReader:
    """`feed` yields content as it comes; when `done`, `rest` holds what came after the body."""

    def __init__(self) -> None:
        self.done = False
        self.rest = b""
        self._buffer = b""
        self._left = -1  # of the present chunk's data; -1 = a size line is next; 0 = its CRLF is next
        self._trailers = -1  # bytes of trailers seen; -1 = the last chunk has not come

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Raises BadChunk."""
        buffer = self._buffer + data if self._buffer else data
        while not self.done:
            if self._left > 0:
                if not buffer:
                    break
                piece, buffer = buffer[: self._left], buffer[self._left :]
                self._left -= len(piece)
                yield piece
            elif self._left == 0:
                if len(buffer) < 2:
                    if buffer not in (b"", b"\r"):
                        raise BadChunk("no CRLF after a chunk")
                    break
                if buffer[:2] != b"\r\n":
                    raise BadChunk("no CRLF after a chunk")
                buffer, self._left = buffer[2:], -1
            else:
                end = buffer.find(b"\r\n")
                if end < 0:
                    self._check_line(buffer)
                    break
                line, buffer = buffer[:end], buffer[end + 2 :]
                self._check_line(line)
                self._line(line)
        self._buffer = b"" if self.done else buffer
        if self.done:
            self.rest = buffer

    def _check_line(self, line: bytes) -> None:
        if b"\n" in line or b"\r" in line[:-1] or len(line) > (MAX_TRAILERS if self._trailers >= 0 else MAX_LINE):
            raise BadChunk("a malformed or overlong line between chunks")

    def _line(self, line: bytes) -> None:
        if self._trailers >= 0:
            if not line:
                self.done = True
                return
            self._trailers += len(line)
            if self._trailers > MAX_TRAILERS or not _TRAILER.fullmatch(line):
                raise BadChunk("malformed or too many trailers")
            return
        match = _SIZE.fullmatch(line)
        if match is None:
            raise BadChunk("a chunk size that is none")
        size = int(match[1], 16)
        if size == 0:
            self._trailers = 0
        else:
            self._left = size
