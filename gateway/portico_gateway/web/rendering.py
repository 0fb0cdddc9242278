"""Templates to documents: Jinja2 with escaping always on, and every word helper as a filter."""

import hashlib
import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

import jinja2
from aiohttp import hdrs, web

from portico_gateway.web import words

_PLAIN_WORDS = (
    words.span,
    words.moment,
    words.iso,
    words.size,
    words.memory,
    words.lifespan,
    words.shown_name,
    words.initials,
    words.colour,
    words.why,
    words.sentence,
    words.reason,
    words.step,
    words.fraction,
    words.browser,
)


@dataclass(frozen=True, slots=True)
class StaticFile:
    body: bytes
    content_type: str
    version: str
    """First half of the body's SHA-256: part of the address, so that it may be kept for ever."""


class Renderer:
    """Holds the templates and the static files; `html` makes a response."""

    def __init__(self, static_root: str = "/static") -> None:
        self.static_root = static_root
        self.static = _static_files()
        self._templates = jinja2.Environment(
            loader=jinja2.PackageLoader("portico_gateway.web", "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters.update({word.__name__: word for word in _PLAIN_WORDS})
        self._templates.globals.update(
            words=words,
            static=self.static_url,
        )

    def static_url(self, name: str) -> str:
        return f"{self.static_root}/{name}?v={self.static[name].version}"

    def text(self, template: str, values: Mapping[str, Any]) -> str:
        return self._templates.get_template(template).render(values)

    def html(self, template: str, values: Mapping[str, Any], status: int = 200) -> web.Response:
        return web.Response(text=self.text(template, values), content_type="text/html", status=status)

    def serve_static(self, request: web.BaseRequest, name: str) -> web.Response:
        """A static file; one asked for by its version may be kept for ever. Raises KeyError for others."""
        file = self.static[name]
        headers = {hdrs.ETAG: f'"{file.version}"'}
        fresh = request.query.get("v") == file.version
        headers[hdrs.CACHE_CONTROL] = "public, max-age=31536000, immutable" if fresh else "no-cache"
        if request.headers.get(hdrs.IF_NONE_MATCH) == headers[hdrs.ETAG]:
            return web.Response(status=304, headers=headers)
        response = web.Response(body=file.body, content_type=file.content_type, headers=headers)
        if file.content_type.startswith("text/") or "xml" in file.content_type:
            response.charset = "utf-8"
            response.enable_compression()
        return response


def _static_files() -> dict[str, StaticFile]:
    found: dict[str, StaticFile] = {}
    _collect(files("portico_gateway.web") / "static", "", found)
    return found


def _collect(folder: Traversable, prefix: str, found: dict[str, StaticFile]) -> None:
    for entry in folder.iterdir():
        if entry.is_dir():
            _collect(entry, f"{prefix}{entry.name}/", found)
        elif (content_type := mimetypes.guess_type(entry.name)[0]) is not None:
            body = entry.read_bytes()
            found[prefix + entry.name] = StaticFile(body, content_type, hashlib.sha256(body).hexdigest()[:16])
