"""A real browser without a window, driven by its own debugging protocol."""

import asyncio
import base64
import contextlib
import json
import shutil
import tempfile
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_START_TIMEOUT_S = 60.0
_QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--hide-scrollbars", "--disable-dev-shm-usage", "--mute-audio"),
)


def find_browser() -> str | None:
    """Return the path of a Chromium."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


class Page:
    """One page of the browser."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._number = 0
        self.complaints: list[str] = []
        """What the page's console and its policies said, and every request to elsewhere."""
        self._origin = ""

    async def open(self, url: str) -> None:
        """Load a page."""
        self._origin = url.rstrip("/")
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.call(f"{domain}.enable")
        await self.call("Page.navigate", url=url)
        async with asyncio.timeout(_START_TIMEOUT_S):
            while (await self._next()).get("method") != "Page.loadEventFired":
                pass

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:  # noqa: ANN401
        """Call a method of the protocol."""
        self._number += 1
        asked = {"id": self._number, "method": method, "params": parameters}
        await self._connection.send(json.dumps(asked))
        while True:
            told = await self._next()
            if told.get("id") == self._number:
                assert "error" not in told, (method, told["error"])
                result: dict[str, Any] = told["result"]
                return result

    async def evaluate(self, script: str) -> Any:  # noqa: ANN401
        """Give the value of an expression on the page."""
        answer = await self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def until(self, script: str, *, timeout_s: float = 30.0) -> None:
        """Wait until an expression is true."""
        looking = (
            "new Promise((done) => { const look = () => {"
            f"if ({script}) done(true); else setTimeout(look, 50); }}; look(); }})"
        )
        try:
            async with asyncio.timeout(timeout_s):
                await self.evaluate(looking)
        except TimeoutError:
            text = await self.evaluate("document.body.innerText")
            raise AssertionError(f"never {script}; {self.complaints}; {text[:3000]}") from None

    async def text(self, selector: str) -> str:
        """Give the text that an element shows."""
        return str(await self.evaluate(f"document.querySelector({selector!r}).innerText"))

    async def window(self, width: int, height: int, *, is_phone: bool = False) -> None:
        """Give the page a size."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if is_phone else 1,
            mobile=is_phone,
        )

    async def scheme(self, name: str) -> None:
        """Prefer `light` or `dark`."""
        features = [{"name": "prefers-color-scheme", "value": name}]
        await self.call("Emulation.setEmulatedMedia", features=features)

    async def press(self, key: str) -> None:
        """Press a key."""
        code = {"Tab": 9, "Enter": 13, "ArrowDown": 40, "End": 35}[key]
        text = {"Enter": {"text": "\r"}}.get(key, {})
        for kind in ("keyDown", "keyUp"):
            await self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **text
            )

    async def picture(self) -> bytes:
        """Give what the page looks like, as PNG."""
        answer = await self.call("Page.captureScreenshot")
        return base64.b64decode(answer["data"])

    async def _next(self) -> dict[str, Any]:
        """Hear what the browser says next, and note what it complains of."""
        told: dict[str, Any] = json.loads(await self._connection.recv())
        match told:
            case {"method": "Log.entryAdded", "params": {"entry": entry}}:
                self.complaints.append(entry["text"])
            case {"method": "Runtime.exceptionThrown", "params": {"exceptionDetails": details}}:
                self.complaints.append(json.dumps(details)[:500])
            case {"method": "Runtime.consoleAPICalled", "params": {"args": args}}:
                self.complaints.append(json.dumps(args)[:500])
            case {"method": "Network.requestWillBeSent", "params": {"request": request}}:
                if not request["url"].startswith(self._origin):
                    self.complaints.append(f"it asked for {request['url']}")
        return told


@asynccontextmanager
async def browser_page() -> AsyncIterator[Page]:
    """Give a page of a browser of its own."""
    executable = find_browser()
    assert executable is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            executable,
            *_QUIET,
            "--remote-debugging-port=0",
            f"--user-data-dir={profile}",
            "about:blank",
            stdout=DEVNULL,
            stderr=DEVNULL,
            stdin=DEVNULL,
        )
        try:
            async with connect(await _debugger(Path(profile)), max_size=2**28) as connection:
                yield Page(connection)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()


async def _debugger(profile: Path) -> str:
    """Wait until the browser says where it listens; the address of its first page."""
    async with asyncio.timeout(_START_TIMEOUT_S):
        while True:
            with contextlib.suppress(OSError, ValueError):
                port, path = (profile / "DevToolsActivePort").read_text().split()
                return await _first_page(f"ws://127.0.0.1:{port}{path}", int(port))
            await asyncio.sleep(0.05)


async def _first_page(browser: str, port: int) -> str:
    async with connect(browser) as connection:
        while True:
            await connection.send(json.dumps({"id": 1, "method": "Target.getTargets"}))
            targets = json.loads(await connection.recv())["result"]["targetInfos"]
            for target in targets:
                if target["type"] == "page":
                    return f"ws://127.0.0.1:{port}/devtools/page/{target['targetId']}"
            await asyncio.sleep(0.05)
