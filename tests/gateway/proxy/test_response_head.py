import pytest

from portico_gateway.proxy.response_head import MAX_FIELDS, BadResponse, forward, parse


def read(*lines: bytes, method: bytes = b"GET"):
    return parse(b"\r\n".join((b"HTTP/1.1 200 OK", *lines)), method)


def shown(*lines: bytes, from_studio: bool = True) -> bytes:
    return forward(read(*lines), from_studio=from_studio, http10=False, keep_alive=True, method=b"GET")


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"<html>",
        b"HTTP/1.1 99 x",
        b"HTTP/1.1 1000 x",
        b"HTTP/1.1 600 x",
        b"HTTP/2.0 200 OK",
        b"HTTP/1.1  200 OK",
        b"HTTP/1.1 200 \x07",
        b"HTTP/1.1 200 " + b"A" * 600,
        b"HTTP/1.1 200 OK\r\nX: a\0",
        b"HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: b=c",
        b"HTTP/1.1 200 OK\r\nX: a\nSet-Cookie: b=c",
        b"HTTP/1.1 200 OK\r\nX: a\r\n folded",
        b"HTTP/1.1 200 OK\r\nX : a",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked",
        b"HTTP/1.1 200 OK\r\n" + b"\r\n".join(b"X%d: 1" % i for i in range(MAX_FIELDS + 1)),
    ],
)
def test_hostile_head_is_refused(block: bytes):
    with pytest.raises(BadResponse):
        parse(block, b"GET")


@pytest.mark.parametrize(
    ("lines", "method", "length"),
    [
        ((b"Content-Length: 5",), b"GET", 5),
        ((b"Transfer-Encoding: Chunked",), b"GET", -1),
        ((), b"GET", -2),
        ((b"Content-Length: 5",), b"HEAD", 0),
    ],
)
def test_body_is_framed_by_the_head_and_the_method(lines: tuple[bytes, ...], method: bytes, length: int):
    assert read(*lines, method=method).length == length


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified", b"101 Switching Protocols"])
def test_status_without_a_body_has_none(status: bytes):
    assert parse(b"HTTP/1.1 " + status + b"\r\nContent-Length: 60", b"GET").length == 0


@pytest.mark.parametrize(
    "line",
    [
        b"Set-Cookie: __Host-portico-studio=evil; Path=/; Secure",
        b"Set-Cookie: __host-portico-nonce=evil",
        b"Set-Cookie: =__Host-portico-studio=evil",
        b"Set-Cookie: __Host-other=1; Path=/; Secure",
        b'Clear-Site-Data: "cookies"',
        b'Alt-Svc: h3=":443"',
        b"Strict-Transport-Security: max-age=1",
        b"X-Portico-User: 1",
        b"Connection: X-Hop",
        b"X-Hop: 1",
        b"Keep-Alive: timeout=5",
        b"Trailer: X",
    ],
)
def test_what_a_studio_may_not_say_is_cut(line: bytes):
    out = shown(b"Content-Length: 0", b"Connection: X-Hop", line)
    assert line.partition(b":")[0] not in out and b"evil" not in out


@pytest.mark.parametrize("domain", [b"; Domain=studio.localhost", b";domain = .studio.localhost", b"; DOMAIN=x; "])
def test_cookie_of_a_studio_stays_on_its_host(domain: bytes):
    out = shown(b"Content-Length: 0", b"Set-Cookie: a=b" + domain + b"; Path=/x; HttpOnly")
    assert b"Set-Cookie: a=b" in out and b"Path=/x; HttpOnly" in out and b"omain" not in out and b"OMAIN" not in out


def test_control_sets_its_own_cookies():
    cookie = b"Set-Cookie: __Host-portico-session=x; Path=/; Secure"
    assert cookie in shown(b"Content-Length: 0", cookie, from_studio=False)


def test_studio_pages_get_an_agent_cluster_of_their_own():
    assert b"\r\nOrigin-Agent-Cluster: ?1\r\n" in shown(b"Content-Length: 0", b"Origin-Agent-Cluster: ?0")
    assert b"?0" not in shown(b"Content-Length: 0", b"Origin-Agent-Cluster: ?0")


def test_framing_is_written_anew():
    assert shown(b"content-length:  005").count(b"ontent-") == 1
    assert b"Content-Length: 5\r\n" in shown(b"content-length:  005")
    assert b"Transfer-Encoding: chunked\r\n" in shown(b"transfer-encoding: CHUNKED")
