"""A person's browser, as far as signing in goes: cookies per host, redirects followed, forms posted."""

import re
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from urllib.parse import urlsplit

from support.portico import Portico

MAX_REDIRECTS = 8
PASSWORD = "a quiet place to work"
_NAVIGATION = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


@dataclass
class Visitor:
    """`await visitor.open(url)` as a navigation: where it ended, the status and the page."""

    portico: Portico
    cookies: dict[str, dict[str, str]] = field(default_factory=dict)

    async def open(self, url: str) -> tuple[str, int, str]:
        for _ in range(MAX_REDIRECTS):
            status, text, location = await self._send("GET", url)
            if not location:
                return url, status, text
            url = location if "://" in location else f"http://{urlsplit(url).netloc}{location}"
        raise AssertionError(f"redirected for ever: {url}")

    async def fetch(self, url: str) -> int:
        """What a script of the page gets: the status, no redirect followed."""
        return (await self._send("GET", url, {"Accept": "application/json", "Sec-Fetch-Mode": "cors"}))[0]

    async def take_first_link(self) -> None:
        """Become the first administrator by the one-use link that `portico up` printed."""
        found = re.search(r"http://\S+/link/\S+", self.portico.log.read_text())
        assert found is not None, self.portico.log.read_text()
        form = {"display_name": "Ada", "password": PASSWORD, "again": PASSWORD}
        status, text, _ = await self._send("POST", found[0], {"Sec-Fetch-Site": "same-origin"}, form)
        assert status in (302, 303), text

    async def _send(
        self, method: str, url: str, headers: dict[str, str] | None = None, form: dict[str, str] | None = None
    ) -> tuple[int, str, str]:
        session, where = self.portico.session, urlsplit(url)
        assert session is not None
        jar = self.cookies.setdefault(where.netloc, {})
        sent = {**_NAVIGATION, **(headers or {}), "Host": where.netloc}
        if jar:
            sent["Cookie"] = "; ".join(f"{name}={value}" for name, value in jar.items())
        target = f"http://127.0.0.1:{self.portico.port}{where.path}" + (f"?{where.query}" if where.query else "")
        async with session.request(method, target, headers=sent, data=form, allow_redirects=False) as answer:
            for line in answer.headers.getall("Set-Cookie", []):
                for name, morsel in SimpleCookie(line).items():
                    jar[name] = morsel.value
            return answer.status, await answer.text(), answer.headers.get("Location", "")
