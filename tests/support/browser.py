"""A headless Chromium that is driven over its own debugging protocol; no driver to install."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)


class Browser:
    """One page. `errors`: what its console reported as an error, and exceptions that nobody caught."""

    def __init__(self, width: int = 1200, height: int = 900, dark: bool = False) -> None:
        self._size, self._dark = (width, height), dark
        self._numbers = itertools.count(1)
        self.errors: list[str] = []

    async def __aenter__(self) -> Browser:
        assert CHROMIUM is not None
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        flags = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--remote-debugging-port=0",
            "--disable-dev-shm-usage",
        ]
        flags += ["--autoplay-policy=no-user-gesture-required", "--mute-audio", f"--user-data-dir={self._folder.name}"]
        self._process = subprocess.Popen([CHROMIUM, *flags, "about:blank"], stderr=subprocess.DEVNULL)
        self._session = aiohttp.ClientSession()
        port = await self._port()
        async with self._session.get(f"http://127.0.0.1:{port}/json") as answer:
            (target,) = [each for each in await answer.json() if each["type"] == "page"]
        self._socket = await self._session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=1 << 28)
        for domain in ("Page", "Runtime", "Log"):
            await self.call(f"{domain}.enable")
        width, height = self._size
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        await self.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if self._dark else "light"}]
        await self.call("Emulation.setEmulatedMedia", features=scheme)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()

    async def _port(self) -> int:
        place = Path(self._folder.name) / "DevToolsActivePort"
        for _ in range(300):
            if place.exists() and "\n" in place.read_text():
                return int(place.read_text().split()[0])
            await asyncio.sleep(0.1)
        raise TimeoutError("Chromium did not start")

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": params})
        while True:
            message = json.loads((await self._socket.receive(timeout=60)).data)
            self._note(message)
            if message.get("id") == number:
                assert "error" not in message, message
                return dict(message["result"])

    def _note(self, message: dict[str, Any]) -> None:
        params = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            self.errors.append(str(params["exceptionDetails"]))
        if message.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(params["entry"]["text"])
        if message.get("method") == "Runtime.consoleAPICalled" and params["type"] == "error":
            self.errors.append(str(params["args"]))

    async def open(self, url: str) -> float:
        """Loads a page; seconds until its load event."""
        before = time.perf_counter()
        await self.call("Page.navigate", url=url)
        await self.until("document.readyState === 'complete' && location.href !== 'about:blank'")
        return time.perf_counter() - before

    async def run(self, script: str) -> Any:
        """The value of an expression in the page; promises are waited for."""
        answer = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def until(self, script: str, seconds: float = 15.0) -> None:
        """Waits for an expression to be true."""
        deadline = time.monotonic() + seconds
        while not await self.run(script):
            assert time.monotonic() < deadline, f"not true in {seconds} s: {script}"
            await asyncio.sleep(0.03)

    async def press(self, key: str) -> None:
        """A key, as a keyboard sends it."""
        text = {"text": key} if len(key) == 1 else {}
        await self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        await self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    async def screenshot(self, path: Path, whole: bool = False) -> None:
        answer = await self.call(
            "Page.captureScreenshot",
            captureBeyondViewport=whole,
            **({} if not whole else {"clip": await self._whole()}),
        )
        path.write_bytes(base64.b64decode(answer["data"]))

    async def _whole(self) -> dict[str, float]:
        size = (await self.call("Page.getLayoutMetrics"))["cssContentSize"]
        return {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 8000), "scale": 1}
