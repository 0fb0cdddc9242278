"""What of a request goes on to a studio or to control: hop-by-hop and forged fields cut out, ours put in last.

Names are compared with '_' and '.' taken for '-', because the frameworks behind us do the same.
"""

import functools

from portico_gateway.edge.head import Field, Head

HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"proxy",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
        b"content-length",
    }
)
OURS = (b"x-forwarded-", b"x-portico-")
FORGED = frozenset({b"forwarded", b"x-real-ip"})
NEVER_NAMED = frozenset({b"host", b"cookie", b"authorization"})
"""Fields a Connection header cannot make us drop, besides Content-*: their loss would change what a request means."""
MAX_REMEMBERED = 64
"""Bytes of a name whose verdict is remembered; names are the client's to choose, so the memory is bounded both ways."""
OUR_COOKIES = b"__Host-portico-"


def _canonical(name: bytes) -> bytes:
    return name.replace(b"_", b"-").replace(b".", b"-")


def _is_never_sent(name: bytes) -> bool:
    """Whether a field is dropped whatever its value."""
    return _judged(name) if len(name) <= MAX_REMEMBERED else _judge(name)


def _judge(name: bytes) -> bool:
    if name in HOP or name in FORGED:
        return True
    canonical = _canonical(name)
    if canonical.startswith(OURS):
        return True
    if canonical != name:
        return canonical in HOP or canonical in FORGED or canonical in NEVER_NAMED or canonical == b"expect"
    return False


_judged = functools.lru_cache(2048)(_judge)


def named_by_connection(fields: list[Field]) -> frozenset[bytes]:
    """Fields that Connection lists as belonging to this hop."""
    found: set[bytes] = set()
    for _, name, value in fields:
        if name == b"connection":
            found.update(token.strip(b" \t").lower() for token in value.split(b","))
    return frozenset(n for n in found if n not in NEVER_NAMED and not n.startswith(b"content-"))


def strip_our_cookies(value: bytes) -> bytes:
    """A Cookie value without the gateway's own cookies; b"" when nothing is left."""
    if OUR_COOKIES not in value:
        return value
    kept = [pair for pair in value.split(b";") if not pair.lstrip(b" \t").startswith(OUR_COOKIES)]
    return b";".join(kept).strip(b" \t")


def forward(
    head: Head,
    *,
    peer: bytes,
    scheme: bytes,
    strip_cookies: bool,
    strip_authorization: bool,
    upgrade: bool = False,
    extra: tuple[tuple[bytes, bytes], ...] = (),
    cut: frozenset[bytes] = frozenset(),
) -> bytes:
    """The head that goes upstream, framing written from the parse."""
    named = named_by_connection(head.fields)
    lines = [b"%b %b HTTP/1.1" % (head.method, head.target)]
    for raw, name, value in head.fields:
        if _is_never_sent(name) or name in named or name in cut or (strip_authorization and name == b"authorization"):
            continue
        if name == b"cookie" and strip_cookies:
            value = strip_our_cookies(value)
            if not value:
                continue
        lines.append(raw + b": " + value)
    if head.length > 0 or (head.length == 0 and head.method in (b"POST", b"PUT", b"PATCH")):
        lines.append(b"Content-Length: %d" % head.length)
    elif head.length < 0:
        lines.append(b"Transfer-Encoding: chunked")
    if upgrade:
        lines += [b"Connection: Upgrade", b"Upgrade: websocket"]
    lines += [b"X-Forwarded-For: " + peer, b"X-Forwarded-Proto: " + scheme, b"X-Forwarded-Host: " + head.host]
    lines += [name + b": " + value for name, value in extra]
    return b"\r\n".join(lines) + b"\r\n\r\n"
