"""Where a visitor wanted to go: a path of ours, parsed and built anew, never a place of somebody else's choosing.

A `next` value is a path with an optional query: '/w/1?search=rna'. Refused: anything with a scheme or a host, '//…',
backslashes (browsers read them as slashes), control characters (browsers drop tabs and newlines), paths whose dot
segments would leave '//' in front, and more than MAX_LOCATION characters. The fragment is dropped.
"""

import re
from urllib.parse import parse_qs, quote, urlsplit, urlunsplit

from portico_shared.ids import is_session_id

MAX_LOCATION = 8000
"""Characters: as many as a handover keeps."""

_FORBIDDEN = re.compile(r"[\x00-\x20\x7f\\]")
_SAFE = "%/:@!$&'()*+,;=-._~[]|"
_STUDIO_PATH = re.compile(r"/studios/([0-9a-f]{8})/open")


def safe_path(raw: str | None) -> str | None:
    """The path to go to, or None when `raw` is not one."""
    if not raw or len(raw) > MAX_LOCATION or raw[0] != "/" or raw[1:2] == "/" or _FORBIDDEN.search(raw):
        return None
    try:
        parts = urlsplit(raw)
    except ValueError:
        return None
    if parts.scheme or parts.netloc or not parts.path.startswith("/") or _starts_with_two_slashes(parts.path):
        return None
    built = urlunsplit(("", "", quote(parts.path, safe=_SAFE), quote(parts.query, safe=_SAFE + "?"), ""))
    return built if len(built) <= MAX_LOCATION else None


def studio_of(path: str | None) -> str | None:
    """The studio a path leads to, for 'Sign in to open …'; None when it leads elsewhere."""
    if path is None:
        return None
    parts = urlsplit(path)
    if (match := _STUDIO_PATH.fullmatch(parts.path)) is not None:
        return match.group(1)
    if parts.path == "/handover":
        wanted = parse_qs(parts.query, max_num_fields=10).get("studio", [""])[0]
        return wanted if is_session_id(wanted) else None
    return None


def _starts_with_two_slashes(path: str) -> bool:
    kept: list[str] = []
    for segment in path.split("/")[1:]:
        plain = segment.lower().replace("%2e", ".")
        if plain == "..":
            del kept[-1:]
        elif plain != ".":
            kept.append(segment)
    return len(kept) > 1 and kept[0] == ""
