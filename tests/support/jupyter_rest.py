"""A program in front of JupyterLab: contents, kernels and their WebSockets, through the studio's host; no browser.

async with Jupyter.at(portico, session_id) as jupyter:
    kernel = await jupyter.start_kernel()
    assert "2" in await kernel.run("1 + 1")
    await kernel.shut_down()
"""

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator
from http.cookies import SimpleCookie
from typing import Any

import aiohttp

from support.portico import Portico

KERNEL_SECONDS = 60.0
"""What a kernel may take until it answers its first cell, on a slow machine."""


class Jupyter:
    """One studio's JupyterLab, spoken to with a bearer. Its own xsrf cookie is fetched by `at`."""

    def __init__(self, portico: Portico, session_id: str, xsrf: str) -> None:
        self.portico = portico
        self.session_id = session_id
        self._xsrf = xsrf

    @classmethod
    @contextlib.asynccontextmanager
    async def at(cls, portico: Portico, session_id: str) -> AsyncIterator["Jupyter"]:
        assert portico.session is not None
        headers = {"Host": portico.studio_host(session_id), "Authorization": f"Bearer {portico.token}"}
        async with portico.session.get(f"http://127.0.0.1:{portico.port}/lab", headers=headers) as response:
            assert response.status == 200, await response.text()
            cookies: SimpleCookie = SimpleCookie()
            for line in response.headers.getall("Set-Cookie", []):
                cookies.load(line)
        yield cls(portico, session_id, cookies["_xsrf"].value)

    @property
    def _headers(self) -> dict[str, str]:
        return {"Cookie": f"_xsrf={self._xsrf}", "X-XSRFToken": self._xsrf}

    async def call(self, method: str, path: str, body: object = None) -> Any:
        """One call of Jupyter's REST API; asserts a 2xx."""
        status, text = await self.try_call(method, path, body)
        assert 200 <= status < 300, f"{method} {path}: {status} {text[:1000]}"
        return json.loads(text) if text else None

    async def try_call(self, method: str, path: str, body: object = None) -> tuple[int, str]:
        return await self.portico.studio_request(self.session_id, path, method=method, json=body, headers=self._headers)

    async def read(self, path: str) -> str:
        """A text file below /workspace."""
        found = await self.call("GET", f"/api/contents/{path}?type=file&format=text&content=1")
        return str(found["content"])

    async def write(self, path: str, text: str) -> None:
        status, words = await self.try_write(path, text)
        assert status in (200, 201), f"{path}: {status} {words[:1000]}"

    async def try_write(self, path: str, text: str) -> tuple[int, str]:
        return await self.try_call("PUT", f"/api/contents/{path}", {"type": "file", "format": "text", "content": text})

    async def names(self) -> list[str]:
        """What lies in /workspace."""
        return sorted(entry["name"] for entry in (await self.call("GET", "/api/contents/?content=1"))["content"])

    async def start_kernel(self) -> "Kernel":
        """A kernel of its own and its open WebSocket."""
        made = await self.call("POST", "/api/kernels", {})
        kernel = Kernel(self, str(made["id"]))
        await kernel.connect()
        return kernel


class Kernel:
    """One kernel: `run` a cell to its end, or `begin` one and go on."""

    def __init__(self, jupyter: Jupyter, kernel_id: str) -> None:
        self.jupyter = jupyter
        self.id = kernel_id
        self._client = secrets.token_hex(8)
        self._socket: aiohttp.ClientWebSocketResponse | None = None

    @property
    def connected(self) -> bool:
        return self._socket is not None and not self._socket.closed

    async def connect(self) -> None:
        """Open the channels' WebSocket (again)."""
        if self._socket is not None:
            await self._socket.close()
        portico, where = self.jupyter.portico, self.jupyter.session_id
        assert portico.session is not None
        self._socket = await portico.session.ws_connect(
            f"http://127.0.0.1:{portico.port}/api/kernels/{self.id}/channels?session_id={self._client}",
            headers={
                **self.jupyter._headers,
                "Host": portico.studio_host(where),
                "Origin": portico.studio_url(where),
                "Authorization": f"Bearer {portico.token}",
            },
            max_msg_size=0,
        )

    async def shut_down(self) -> None:
        if self._socket is not None:
            await self._socket.close()
        await self.jupyter.call("DELETE", f"/api/kernels/{self.id}")

    async def begin(self, code: str) -> str:
        """Send a cell and go on at once. Returns its message id."""
        assert self._socket is not None
        number = secrets.token_hex(8)
        header = {"msg_id": number, "msg_type": "execute_request", "session": self._client, "version": "5.3"}
        content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False, "stop_on_error": True}
        await self._socket.send_json(
            {
                "channel": "shell",
                "header": {**header, "username": "", "date": ""},
                "parent_header": {},
                "metadata": {},
                "content": {**content, "user_expressions": {}},
                "buffers": [],
            }
        )
        return number

    async def run(self, code: str, *, seconds: float = KERNEL_SECONDS) -> str:
        """Run a cell to its end: what it printed, its value, and its error's name and words."""
        return await self.output(await self.begin(code), seconds=seconds)

    async def output(self, number: str, *, seconds: float = KERNEL_SECONDS) -> str:
        """What the cell `begin` sent says until it is done."""
        pieces = [piece async for piece in self.pieces(number, seconds=seconds)]
        return "".join(pieces)

    async def pieces(self, number: str, *, seconds: float = KERNEL_SECONDS) -> AsyncIterator[str]:
        """The output of a cell as it comes, until the kernel is idle again and has replied."""
        assert self._socket is not None
        open_ends = {"reply", "idle"}
        async with asyncio.timeout(seconds):
            while open_ends:
                frame = await self._socket.receive()
                assert frame.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY), f"cut off: {frame}"
                message = json.loads(frame.data)
                if message["parent_header"].get("msg_id") != number:
                    continue
                kind, content = message["header"]["msg_type"], message["content"]
                if kind == "stream":
                    yield content["text"]
                elif kind in ("execute_result", "display_data"):
                    yield content["data"].get("text/plain", "")
                elif kind == "error":
                    yield f"{content['ename']}: {content['evalue']}"
                elif kind == "execute_reply":
                    open_ends.discard("reply")
                elif kind == "status" and content["execution_state"] == "idle":
                    open_ends.discard("idle")
