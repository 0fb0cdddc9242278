"""A browser without scripts: follows nothing by itself, sends what browsers send."""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

import aiohttp
import yarl

from portico_gateway.link.messages import SESSION_COOKIE


@dataclass
class Answer:
    status: int
    text: str
    headers: Any
    location: str = ""

    @property
    def forms(self) -> dict[str, dict[str, str]]:
        """Each form's fields by its action."""
        parser = _Forms()
        parser.feed(self.text)
        return parser.forms


@dataclass
class Browser:
    """One person's browser."""

    session: aiohttp.ClientSession
    port: int
    cookie: str = ""
    cookies: dict[str, str] = field(default_factory=dict)

    async def get(self, path: str, **headers: str) -> Answer:
        return await self.send("GET", path, None, headers)

    async def post(self, path: str, fields: dict[str, str] | None = None, **headers: str) -> Answer:
        given = {"Sec-Fetch-Site": "same-origin", **headers}
        return await self.send("POST", path, fields or {}, given)

    async def submit(self, page: str, action: str, **fields: str) -> Answer:
        """Fill the form with that action on a page, and send it."""
        form = (await self.get(page)).forms[action]
        return await self.post(action, {**form, **fields})

    async def send(self, method: str, path: str, data: Any, headers: dict[str, str]) -> Answer:
        sent = {"Host": "portico.localhost:8000", "Accept": "text/html", **headers}
        if self.cookie and "Cookie" not in sent:
            sent["Cookie"] = f"{SESSION_COOKIE}={self.cookie}"
        url = yarl.URL(f"http://127.0.0.1:{self.port}{path}", encoded=True)  # sent as it is written
        async with self.session.request(method, url, data=data, headers=sent, allow_redirects=False) as response:
            text = await response.text()
            return Answer(response.status, text, response.headers, response.headers.get("Location", ""))


def _counts(field: dict[str, str]) -> bool:
    return "disabled" not in field and (field.get("type") not in ("radio", "checkbox") or "checked" in field)


class _Forms(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: dict[str, dict[str, str]] = {}
        self._form: dict[str, str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {key: value or "" for key, value in attrs}
        if tag == "form":
            self._form = self.forms.setdefault(found.get("action", ""), {})
        elif tag == "input" and self._form is not None and "name" in found and _counts(found):
            self._form[found["name"]] = found.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._form = None
