"""Request heads, read strictly: one reading only, or a refusal. What goes upstream is written anew from this parse.

    head  = line *( field CRLF ) CRLF        line = METHOD SP target SP "HTTP/1." ("0" / "1") CRLF
    field = token ":" OWS value OWS          value = %x09 / %x20-7E / %x80-FF, no other control characters
    target = origin-form of visible ASCII without "#"; absolute-form only when it names the same host as Host

Refused, never guessed: Content-Length with Transfer-Encoding, two lengths, any coding but a lone `chunked`, folded
lines, bare CR or LF, space before the colon, two Hosts, CONNECT and TRACE.
"""

import re
from dataclasses import dataclass

MAX_HEAD = 32 * 1024
MAX_FIELDS = 128
MAX_TARGET = 8 * 1024
MAX_LENGTH_DIGITS = 15

_LINE = re.compile(rb"([A-Z]{1,20}) ([!-\"$-~]{1,8192}) HTTP/1\.([01])")
_FIELD = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*((?:[!-~\x80-\xff](?:[ \t!-~\x80-\xff]*[!-~\x80-\xff])?)?)[ \t]*"
)
_BARE_LF = re.compile(rb"(?<!\r)\n")
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?#@]+)(/.*)?")
_BODY_METHODS_REFUSED = frozenset({b"CONNECT", b"TRACE", b"PRI"})
Field = tuple[bytes, bytes, bytes]
"""Name as it came, name in lower case, value."""


class BadHead(ValueError):
    """The request cannot be served; `status` is what the client is told before the connection closes."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(slots=True)
class Head:
    method: bytes
    target: bytes
    """Origin-form, byte for byte as it came."""
    minor: int
    fields: list[Field]
    host: bytes
    """Lower case, with its port if one was given; b"" only for HTTP/1.0."""
    length: int
    """Bytes of the body; 0 = none; -1 = chunked."""
    keep_alive: bool
    upgrade: bytes
    """Lower-case value of Upgrade when Connection names it, else b""."""
    expects: bool
    plan: object = None
    """What the edge decided for this head on this connection, so that a repeated head need not be decided again."""

    def get(self, name: bytes) -> bytes | None:
        """The first value of a field, by its lower-case name."""
        for _, key, value in self.fields:
            if key == name:
                return value
        return None

    def values(self, name: bytes) -> list[bytes]:
        return [value for _, key, value in self.fields if key == name]


def parse(block: bytes) -> Head:
    """Read a head, without its final empty line's CRLF CRLF. Raises BadHead."""
    line, *lines = block.split(b"\r\n")
    match = _LINE.fullmatch(line)
    if match is None:
        raise BadHead(*_why_line(line))
    method, target, minor = match[1], match[2], int(match[3])
    if method in _BODY_METHODS_REFUSED:
        raise BadHead(405, f"the method {method.decode()} is not served here")
    if len(lines) > MAX_FIELDS:
        raise BadHead(431, f"more than {MAX_FIELDS} header fields")
    fields = _fields(lines)
    host = _host(fields, minor)
    if target[:1] != b"/":
        target = _origin_form(target, host, method)
    length = _framing(fields, minor)
    tokens = _connection(fields)
    if sum(name == b"upgrade" for _, name, _ in fields) > 1:
        raise BadHead(400, "more than one Upgrade")
    upgrade = next((v.lower() for _, k, v in fields if k == b"upgrade"), b"") if b"upgrade" in tokens else b""
    keep_alive = b"close" not in tokens and (minor == 1 or b"keep-alive" in tokens)
    return Head(method, target, minor, fields, host, length, keep_alive, upgrade, _expects(fields, minor))


def is_navigation(head: Head) -> bool:
    """Whether a person is going there, rather than a page fetching something."""
    if head.method not in (b"GET", b"HEAD"):
        return False
    mode = head.get(b"sec-fetch-mode")
    if mode is not None:
        return mode == b"navigate"
    return b"text/html" in (head.get(b"accept") or b"")


def hopeless(start: bytes) -> BadHead | None:
    """What is wrong already with a head that has not come whole, so that nobody waits for its end."""
    line, end, _ = start.partition(b"\r\n")
    if end and _LINE.fullmatch(line) is None:
        return BadHead(*_why_line(line))
    if _BARE_LF.search(start) is not None:
        return BadHead(400, "a line ends in a bare LF")
    return None


def _why_line(line: bytes) -> tuple[int, str]:
    parts = line.split(b" ")
    if len(parts) == 3 and len(parts[1]) > MAX_TARGET:
        return 414, "the address is too long"
    if len(parts) == 3 and re.fullmatch(rb"HTTP/[0-9]\.[0-9]", parts[2]) and parts[2][5:6] != b"1":
        return 505, "this gateway speaks HTTP/1.1"
    return 400, "not an HTTP/1.1 request line"


def _fields(lines: list[bytes]) -> list[Field]:
    fields: list[Field] = []
    for line in lines:
        match = _FIELD.fullmatch(line)
        if match is None:
            raise BadHead(400, "a header field is malformed")
        fields.append((match[1], match[1].lower(), match[2]))
    return fields


def _host(fields: list[Field], minor: int) -> bytes:
    hosts = [value for _, name, value in fields if name == b"host"]
    if len(hosts) > 1 or (minor == 1 and not hosts):
        raise BadHead(400, "a request has exactly one Host")
    return hosts[0].lower() if hosts else b""


def _origin_form(target: bytes, host: bytes, method: bytes) -> bytes:
    if target == b"*" and method == b"OPTIONS":
        raise BadHead(400, "OPTIONS * is not served here")
    match = _ABSOLUTE.fullmatch(target)
    if match is None or match[1].lower() != host:
        raise BadHead(400, "the address is not a path, and does not agree with Host")
    return match[2] or b"/"


def _framing(fields: list[Field], minor: int) -> int:
    lengths = [value for _, name, value in fields if name == b"content-length"]
    codings = [value for _, name, value in fields if name == b"transfer-encoding"]
    if codings:
        if lengths:
            raise BadHead(400, "both Content-Length and Transfer-Encoding")
        if minor == 0:
            raise BadHead(400, "Transfer-Encoding in HTTP/1.0")
        if len(codings) > 1 or codings[0].lower() != b"chunked":
            raise BadHead(501, "a transfer coding other than chunked")
        return -1
    if not lengths:
        return 0
    if len(lengths) > 1 or not lengths[0].isdigit() or len(lengths[0]) > MAX_LENGTH_DIGITS:
        raise BadHead(400, "Content-Length is not one number")
    return int(lengths[0])


def _connection(fields: list[Field]) -> set[bytes]:
    tokens: set[bytes] = set()
    for _, name, value in fields:
        if name == b"connection":
            tokens.update(token.strip(b" \t").lower() for token in value.split(b","))
    return tokens


def _expects(fields: list[Field], minor: int) -> bool:
    found = [value.lower() for _, name, value in fields if name == b"expect"]
    if not found or minor == 0:
        return False
    if found != [b"100-continue"]:
        raise BadHead(417, "an expectation other than 100-continue")
    return True
