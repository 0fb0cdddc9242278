import pytest

from portico_gateway.edge import head
from portico_gateway.edge.head import BadHead, parse

HOST = b"Host: a.test"
LINE = b"GET / HTTP/1.1"


def block(*lines: bytes) -> bytes:
    return b"\r\n".join(lines)


def refusal(*lines: bytes) -> int:
    with pytest.raises(BadHead) as caught:
        parse(block(*lines))
    return caught.value.status


def test_plain_request_is_read():
    found = parse(block(b"GET /a?b=c HTTP/1.1", b"Host: A.test:80", b"X-Empty:", b"X-Spaced: \t a b \t"))
    assert (found.method, found.target, found.host) == (b"GET", b"/a?b=c", b"a.test:80")
    assert found.fields[1:] == [(b"X-Empty", b"x-empty", b""), (b"X-Spaced", b"x-spaced", b"a b")]
    assert (found.length, found.keep_alive, found.upgrade, found.expects) == (0, True, b"", False)


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ((b"Content-Length: 1", b"Transfer-Encoding: chunked"), 400),
        ((b"Transfer-Encoding: chunked", b"Content-Length: 0"), 400),
        ((b"Content-Length: 5", b"Content-Length: 5"), 400),
        ((b"Content-Length: 5", b"content-length: 6"), 400),
        ((b"Content-Length: 5, 5",), 400),
        ((b"Content-Length: +5",), 400),
        ((b"Content-Length: -5",), 400),
        ((b"Content-Length: 0x5",), 400),
        ((b"Content-Length: 5 0",), 400),
        ((b"Content-Length: \xd9\xa5",), 400),
        ((b"Content-Length:",), 400),
        ((b"Content-Length: " + b"9" * 20,), 400),
        ((b"Transfer-Encoding: gzip, chunked",), 501),
        ((b"Transfer-Encoding: xchunked",), 501),
        ((b"Transfer-Encoding: identity",), 501),
        ((b"Transfer-Encoding:",), 501),
        ((b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), 501),
        ((b"Transfer-Encoding: chunked;q=1",), 501),
    ],
)
def test_framing_with_two_readings_is_refused(fields: tuple[bytes, ...], status: int):
    assert refusal(b"POST / HTTP/1.1", HOST, *fields) == status


def test_transfer_coding_of_an_old_client_is_refused():
    assert refusal(b"POST / HTTP/1.0", HOST, b"Transfer-Encoding: chunked") == 400


@pytest.mark.parametrize(
    "field",
    [
        b" X: folded",
        b"\tX: folded",
        b"X : space",
        b"X\t: tab",
        b": nameless",
        b"no colon",
        b"X: nul\0",
        b"X: vt\x0b",
        b"X: del\x7f",
        b"X: cr\rY: 1",
        b"X: lf\nY: 1",
        b"X\xe9: name",
        b"X(y): delimiter",
        b"\0X: name",
    ],
)
def test_malformed_field_is_refused(field: bytes):
    assert refusal(LINE, HOST, field) == 400


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET  / HTTP/1.1", 400),
        (b"GET\t/\tHTTP/1.1", 400),
        (b"GET / HTTP/1.1 ", 400),
        (b" GET / HTTP/1.1", 400),
        (b"get / HTTP/1.1", 400),
        (b"G,T / HTTP/1.1", 400),
        (b"GET / http/1.1", 400),
        (b"GET / HTTP/01.1", 400),
        (b"GET / HTTP/2.0", 505),
        (b"GET / HTTP/0.9", 505),
        (b"GET /", 400),
        (b"GET /a#b HTTP/1.1", 400),
        (b"GET /\xc3\xa9 HTTP/1.1", 400),
        (b"GET /\x7f HTTP/1.1", 400),
        (b"GET /a\rb HTTP/1.1", 400),
        (b"GET a HTTP/1.1", 400),
        (b"GET @evil HTTP/1.1", 400),
        (b"GET http://other.test/ HTTP/1.1", 400),
        (b"GET http://x@a.test/ HTTP/1.1", 400),
        (b"GET ftp://a.test/ HTTP/1.1", 400),
        (b"GET http://a.test?x HTTP/1.1", 400),
        (b"OPTIONS * HTTP/1.1", 400),
        (b"CONNECT a.test:443 HTTP/1.1", 405),
        (b"TRACE / HTTP/1.1", 405),
        (b"PRI * HTTP/2.0", 505),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1", 414),
    ],
)
def test_request_line_that_is_not_plain_is_refused(line: bytes, status: int):
    assert refusal(line, HOST) == status


@pytest.mark.parametrize("hosts", [(), (HOST, HOST), (HOST, b"host: b.test")])
def test_request_without_exactly_one_host_is_refused(hosts: tuple[bytes, ...]):
    assert refusal(LINE, *hosts) == 400


def test_absolute_form_of_the_same_host_becomes_its_path():
    assert parse(block(b"GET http://A.test/x?y HTTP/1.1", HOST)).target == b"/x?y"
    assert parse(block(b"GET https://a.test HTTP/1.1", HOST)).target == b"/"


def test_too_many_fields_are_refused():
    fields = [b"X%d: 1" % i for i in range(head.MAX_FIELDS)]
    assert refusal(LINE, HOST, *fields) == 431
    assert parse(block(LINE, HOST, *fields[:100])).host == b"a.test"


def test_upgrade_counts_only_when_connection_names_it():
    assert parse(block(LINE, HOST, b"Upgrade: WebSocket", b"Connection: keep-alive, Upgrade")).upgrade == b"websocket"
    assert parse(block(LINE, HOST, b"Upgrade: websocket")).upgrade == b""
    assert refusal(LINE, HOST, b"Upgrade: websocket", b"Upgrade: h2c", b"Connection: Upgrade") == 400


def test_keep_alive_follows_version_and_connection():
    assert parse(block(LINE, HOST, b"Connection: x, Close")).keep_alive is False
    assert parse(block(b"GET / HTTP/1.0", HOST)).keep_alive is False
    assert parse(block(b"GET / HTTP/1.0", HOST, b"Connection: keep-alive")).keep_alive is True


def test_only_the_known_expectation_is_taken():
    assert parse(block(b"PUT / HTTP/1.1", HOST, b"Expect: 100-Continue", b"Content-Length: 1")).expects is True
    assert refusal(LINE, HOST, b"Expect: 200-ok") == 417
    assert refusal(LINE, HOST, b"Expect: 100-continue, x") == 417


@pytest.mark.parametrize(
    "start", [b"GET /\r\n", b"GET / HTTP/1.1\nHost", b"GET / HTTP/1.1\r\nHost: x\n\r\n", b"\x16\x03\x01\r\n"]
)
def test_head_that_can_only_go_wrong_is_not_waited_for(start: bytes):
    assert head.hopeless(start) is not None


@pytest.mark.parametrize("start", [b"G", b"GET / HTTP/1.1\r", b"GET / HTTP/1.1\r\nHost: a\r\nX"])
def test_head_that_may_still_come_is_waited_for(start: bytes):
    assert head.hopeless(start) is None


def test_navigation_is_told_from_a_fetch():
    def asks(line: bytes, *fields: bytes) -> bool:
        return head.is_navigation(parse(block(line, HOST, *fields)))

    assert asks(LINE, b"Sec-Fetch-Mode: navigate")
    assert asks(LINE, b"Accept: text/html,*/*")
    assert not asks(LINE, b"Accept: text/html", b"Sec-Fetch-Mode: cors")
    assert not asks(LINE, b"Accept: */*")
    assert not asks(b"POST / HTTP/1.1", b"Sec-Fetch-Mode: navigate")
