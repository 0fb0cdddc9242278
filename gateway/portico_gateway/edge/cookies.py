"""The gateway's own cookies in a request, and lines that set them."""

from portico_gateway.edge.head import Head


def find(head: Head, name: bytes) -> bytes | None:
    """The one value of a cookie; a name that comes twice counts as none (somebody tossed the other)."""
    found = [
        value.strip(b" \t")
        for line in head.values(b"cookie")
        if name in line
        for pair in line.split(b";")
        for key, equals, value in [pair.strip(b" \t").partition(b"=")]
        if equals and key == name
    ]
    return found[0] if len(found) == 1 and found[0] else None


def set_line(name: str, value: str, max_age: int) -> bytes:
    """A whole `Set-Cookie` line: host-only, not for scripts."""
    return f"Set-Cookie: {name}={value}; Path=/; Max-Age={max_age}; Secure; HttpOnly; SameSite=Lax".encode()
