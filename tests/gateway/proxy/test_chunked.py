import pytest

from portico_gateway.proxy.chunked import BadChunk, ChunkReader, frame

BODY = b'4\r\nWiki\r\n6;a="b;c";d\r\npedia \r\nE\r\nin \r\n\r\nchunks.\r\n0\r\nX-Trailer: t\r\n\r\nGET /next'


def test_content_comes_out_without_its_framing():
    reader = ChunkReader()
    assert b"".join(reader.feed(BODY)) == b"Wikipedia in \r\n\r\nchunks."
    assert reader.done and reader.rest == b"GET /next"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 20])
def test_pieces_of_any_size_read_the_same(size: int):
    reader, content = ChunkReader(), b""
    for start in range(0, len(BODY), size):
        if reader.done:
            break
        content += b"".join(reader.feed(BODY[start : start + size]))
    assert content == b"Wikipedia in \r\n\r\nchunks." and reader.done


@pytest.mark.parametrize(
    "body",
    [
        b"zz\r\n",
        b"\r\n",
        b" 4\r\n",
        b"4 \r\n",
        b"0x4\r\n",
        b"-4\r\n",
        b"+4\r\n",
        b"4_0\r\n",
        b"000000004\r\n",
        b"10000000000000000\r\n",
        b"4\nWiki",
        b"4\rWiki",
        b"4\r\nWikipedia",
        b"4\r\nWiki\n",
        b"4\r\nWiki\r0",
        b'4;a="b\r\nWiki\r\n',
        b"4;a=\x7f\r\n",
        b"4;a=\0\r\n",
        b"4;" + b"a" * 300,
        b"0\r\nX: y\n\r\n",
        b"0\r\n\n",
        b"0\r\nno colon\r\n",
        b"0\r\n: nameless\r\n",
        b"0\r\n folded\r\n",
        b"0\r\nX : y\r\n",
        b"0\r\nX: \0\r\n",
        b"0\r\n" + b"X: y\r\n" * 3000,
    ],
)
def test_anything_but_the_grammar_is_refused(body: bytes):
    reader = ChunkReader()
    with pytest.raises(BadChunk):
        for start in range(0, len(body), 1024):
            list(reader.feed(body[start : start + 1024]))


def test_many_tiny_chunks_cost_little():
    reader = ChunkReader()
    assert b"".join(reader.feed(b"1\r\nx\r\n" * 2000 + b"0\r\n\r\n")) == b"x" * 2000
    assert reader.done


def test_frame_is_read_back():
    reader = ChunkReader()
    assert b"".join(reader.feed(frame(b"a" * 300))) == b"a" * 300
