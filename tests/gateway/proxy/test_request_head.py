import pytest

from portico_gateway.edge.head import parse
from portico_gateway.proxy.request_head import forward, strip_our_cookies


def sent(*fields: bytes, line: bytes = b"GET /a?b HTTP/1.1", authorization: bool = True) -> list[bytes]:
    head = parse(b"\r\n".join((line, b"Host: a.test", *fields)))
    block = forward(head, peer=b"192.0.2.1", scheme=b"https", strip_cookies=True, strip_authorization=authorization)
    assert block.endswith(b"\r\n\r\n")
    return block[:-4].split(b"\r\n")


def test_request_goes_on_as_it_came_with_our_forwarding_fields():
    assert sent(b"accept: */*", b"X-App: 1") == [
        b"GET /a?b HTTP/1.1",
        b"Host: a.test",
        b"accept: */*",
        b"X-App: 1",
        b"X-Forwarded-For: 192.0.2.1",
        b"X-Forwarded-Proto: https",
        b"X-Forwarded-Host: a.test",
    ]


@pytest.mark.parametrize(
    "field",
    [
        b"X-Forwarded-For: evil",
        b"x-forwarded-user: evil",
        b"X_Forwarded_For: evil",
        b"X.Forwarded.For: evil",
        b"Forwarded: for=evil",
        b"X-Real-IP: evil",
        b"X_Real_IP: evil",
        b"X-Portico-User: evil",
        b"X_Portico.User: evil",
        b"Proxy: evil",
        b"Proxy-Authorization: evil",
        b"Proxy-Connection: evil",
        b"TE: evil",
        b"Trailer: evil",
        b"Keep-Alive: evil",
        b"HTTP2-Settings: evil",
        b"Upgrade: evil",
        b"Content_Length: 5; evil",
        b"Transfer.Encoding: evil",
        b"Transfer_Encoding: evil",
        b"Authorization: Bearer evil",
        b"Cookie: __Host-portico-studio=evil",
        b"Cookie: __Host-portico-studio=evil; __Host-portico-nonce=evil",
    ],
)
def test_forged_and_hop_by_hop_fields_are_dropped(field: bytes):
    assert not [line for line in sent(field) if b"evil" in line]


def test_fields_that_connection_names_are_dropped_but_never_ours():
    lines = sent(
        b"Connection: close, X-Secret, x-forwarded-for, Cookie, Host, Content-Type",
        b"X-Secret: 1",
        b"Cookie: a=b",
        b"Content-Type: x",
    )
    assert b"X-Secret: 1" not in lines
    assert {b"X-Forwarded-For: 192.0.2.1", b"Cookie: a=b", b"Host: a.test", b"Content-Type: x"} <= set(lines)


def test_tools_own_cookies_pass_without_ours():
    assert b"Cookie: a=b; c=d" in sent(b"Cookie: a=b; __Host-portico-studio=x; c=d")
    assert strip_our_cookies(b"__Host-portico-studio=x;a=__Host-portico-y") == b"a=__Host-portico-y"


def test_authorization_of_the_tool_passes_when_it_was_not_ours():
    assert b"Authorization: Basic eA==" in sent(b"Authorization: Basic eA==", authorization=False)


def test_framing_is_written_from_the_parse():
    post = b"POST / HTTP/1.1"
    assert b"Content-Length: 7" in sent(b"content-length: 007", line=post)
    assert b"Content-Length: 0" in sent(line=post)
    assert b"Transfer-Encoding: chunked" in sent(b"transfer-encoding: Chunked", line=post)
    assert not [line for line in sent() if line.lower().startswith((b"content-length", b"transfer-encoding"))]
