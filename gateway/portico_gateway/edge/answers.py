"""What the edge answers by itself: short pages for people, `{"message"}` for programs. Never echoes what came in."""

import html
import json

REASONS = {
    200: "OK", 302: "Found", 303: "See Other", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden",
    404: "Not Found", 405: "Method Not Allowed", 408: "Request Timeout", 413: "Content Too Large",
    414: "URI Too Long", 417: "Expectation Failed", 421: "Misdirected Request", 424: "Failed Dependency",
    426: "Upgrade Required", 429: "Too Many Requests", 431: "Request Header Fields Too Large",
    500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable",
    504: "Gateway Timeout", 505: "HTTP Version Not Supported",
}  # fmt: skip
TITLES = {
    404: "There is nothing here for you",
    502: "The tool gave no answer",
    503: "Just a moment",
    504: "The tool takes too long",
}
_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width,initial-scale=1">{again}<style>
:root{{color-scheme:light dark}}
body{{font:17px/1.5 system-ui,sans-serif;max-width:34rem;margin:18vh auto;padding:0 24px}}
h1{{font-size:1.4rem}}p{{opacity:.8}}</style></head><body><main><h1>{title}</h1><p>{message}</p></main></body></html>
"""
_SAFE = (
    b"Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n"
    b"Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'\r\n"
)


def respond(
    status: int, body: bytes, kind: str, *, keep_alive: bool, lines: tuple[bytes, ...] = (), head_only: bool = False
) -> bytes:
    """A whole response. `lines`: whole header lines of ours."""
    head = (
        f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    )
    extra = b"".join(line + b"\r\n" for line in lines)
    close = b"" if keep_alive else b"Connection: close\r\n"
    return head.encode() + _SAFE + extra + close + b"\r\n" + (b"" if head_only else body)


def problem(
    status: int, message: str, /, *, for_people: bool, keep_alive: bool, head_only: bool = False, **more: object
) -> bytes:
    """An error: a page for people, else JSON with `message` and what else is given. 503 says when to try again."""
    lines, again = ((b"Retry-After: 3",), '<meta http-equiv="refresh" content="3">') if status == 503 else ((), "")
    if for_people:
        title = TITLES.get(status, REASONS.get(status, "Something went wrong"))
        body = _PAGE.format(title=html.escape(title), message=html.escape(message), again=again).encode()
        return respond(
            status, body, "text/html; charset=utf-8", keep_alive=keep_alive, head_only=head_only, lines=lines
        )
    body = json.dumps({"message": message, **more}).encode()
    return respond(status, body, "application/json", keep_alive=keep_alive, head_only=head_only, lines=lines)


def redirect(status: int, location: str, *, keep_alive: bool, lines: tuple[bytes, ...] = ()) -> bytes:
    """`location` was built by us from checked parts."""
    lines = (b"Location: " + location.encode(), *lines)
    return respond(status, b"", "text/plain; charset=utf-8", keep_alive=keep_alive, lines=lines)
