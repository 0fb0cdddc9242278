"""Response heads of a studio's app, which is hostile: read strictly, and cut to what it may say to a browser."""

import re
from dataclasses import dataclass

from portico_gateway.edge.head import MAX_LENGTH_DIGITS, Field
from portico_gateway.proxy.request_head import named_by_connection

MAX_HEAD = 64 * 1024
MAX_FIELDS = 200
MAX_INTERIM = 20
"""1xx heads before the final one."""

_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: ([\t !-~\x80-\xff]{0,512}))?")
_FIELD = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*((?:[!-~\x80-\xff](?:[ \t!-~\x80-\xff]*[!-~\x80-\xff])?)?)[ \t]*"
)
_DROPPED = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"content-length",
    }
)
_REFUSED_OF_STUDIOS = frozenset({b"alt-svc", b"clear-site-data", b"strict-transport-security", b"origin-agent-cluster"})
_DOMAIN = re.compile(rb";[ \t]*domain[ \t]*(?:=[^;]*)?(?=;|$)", re.IGNORECASE)
OUR_COOKIES = b"__host-"
"""This prefix is the gateway's on a studio's host: a tool that could set such a cookie could replace a visitor's."""


class BadResponse(ValueError):
    """Not an HTTP response we would hand to anybody."""


@dataclass(slots=True)
class ResponseHead:
    status: int
    reason: bytes
    minor: int
    fields: list[Field]
    length: int
    """Bytes of the body; -1 = chunked; -2 = until the connection ends."""
    keep_alive: bool
    upgrade: bytes

    def get(self, name: bytes) -> bytes | None:
        for _, key, value in self.fields:
            if key == name:
                return value
        return None


def parse(block: bytes, method: bytes) -> ResponseHead:
    """Read a response head to a request of `method`. Raises BadResponse."""
    line, *lines = block.split(b"\r\n")
    match = _STATUS.fullmatch(line)
    if match is None:
        raise BadResponse("no valid status line")
    if len(lines) > MAX_FIELDS:
        raise BadResponse(f"more than {MAX_FIELDS} header fields")
    fields: list[Field] = []
    for each in lines:
        found = _FIELD.fullmatch(each)
        if found is None:
            raise BadResponse("a malformed header field")
        fields.append((found[1], found[1].lower(), found[2]))
    minor, status = int(match[1]), int(match[2])
    tokens = {t.strip(b" \t").lower() for _, k, v in fields if k == b"connection" for t in v.split(b",")}
    upgrade = next((v.lower() for _, k, v in fields if k == b"upgrade"), b"") if b"upgrade" in tokens else b""
    length = _framing(fields, status, method, minor)
    keep_alive = b"close" not in tokens and (minor == 1 or b"keep-alive" in tokens) and length != -2
    return ResponseHead(status, match[3] or b"", minor, fields, length, keep_alive, upgrade)


def _framing(fields: list[Field], status: int, method: bytes, minor: int) -> int:
    lengths = {value for _, name, value in fields if name == b"content-length"}
    codings = [value for _, name, value in fields if name == b"transfer-encoding"]
    if codings and (lengths or len(codings) > 1 or codings[0].lower() != b"chunked" or minor == 0):
        raise BadResponse("ambiguous framing")
    if len(lengths) > 1 or any(not v.isdigit() or len(v) > MAX_LENGTH_DIGITS for v in lengths):
        raise BadResponse("a length that is not one number")
    if method == b"HEAD" or status in (204, 304) or status < 200:
        return 0
    if codings:
        return -1
    return int(next(iter(lengths))) if lengths else -2


def forward(
    head: ResponseHead,
    *,
    from_studio: bool,
    http10: bool,
    keep_alive: bool,
    method: bytes,
    add: tuple[bytes, ...] = (),
) -> bytes:
    """The head for the client. `add`: whole lines of ours (a renewed cookie, say)."""
    named = named_by_connection(head.fields)
    lines = [b"HTTP/1.1 %d %b" % (head.status, head.reason)]
    for raw, name, value in head.fields:
        if name in _DROPPED or name in named or name.startswith(b"x-portico-"):
            continue
        if from_studio:
            if name in _REFUSED_OF_STUDIOS:
                continue
            if name == b"set-cookie":
                if value.lstrip(b"= \t").lower().startswith(OUR_COOKIES):
                    continue
                value = _DOMAIN.sub(b"", value)
        lines.append(raw + b": " + value)
    lines += _framing_lines(head, http10, method)
    if from_studio:
        lines.append(b"Origin-Agent-Cluster: ?1")
    if not keep_alive:
        lines.append(b"Connection: close")
    elif http10:
        lines.append(b"Connection: keep-alive")
    lines += add
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _framing_lines(head: ResponseHead, http10: bool, method: bytes) -> list[bytes]:
    if method == b"HEAD" or head.status == 304:
        declared = head.get(b"content-length")
        return [b"Content-Length: " + declared] if declared is not None else []
    if head.status == 204 or head.status < 200:
        return []
    if head.length >= 0:
        return [b"Content-Length: %d" % head.length]
    return [b"Transfer-Encoding: chunked"] if head.length == -1 and not http10 else []
