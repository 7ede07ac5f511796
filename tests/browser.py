"""Headless Chromium for tests, through chromedriver's own protocol (W3C WebDriver): no package needed."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
MISSING = "" if CHROMIUM and DRIVER else "needs Debian's packages `chromium` and `chromium-driver`"
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the protocol's name of an element's id


class Browser:
    """One window."""

    def __init__(self, address: str, *, is_dark: bool = False, width: int = 1100, height: int = 900) -> None:
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        arguments += [f"--window-size={width},{height}"] + ["--force-dark-mode"] * is_dark
        options = {"binary": CHROMIUM, "args": arguments}
        self._address = address
        wanted = {"alwaysMatch": {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}}
        self._session = self._call("POST", "/session", {"capabilities": wanted})["sessionId"]

    def _call(self, method: str, path: str, body: dict | None = None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self._address + path, data, {"Content-Type": "application/json"}, method=method
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.load(response)["value"]

    def _do(self, method: str, path: str, body: dict | None = None):
        return self._call(method, f"/session/{self._session}{path}", body)

    def open(self, url: str) -> None:
        self._do("POST", "/url", {"url": url})

    def run(self, script: str):
        """The value that a script returns."""
        return self._do("POST", "/execute/sync", {"script": script, "args": []})

    def click(self, selector: str) -> None:
        """A real click of the mouse, which fails when something lies above the element."""
        element = self._do("POST", "/element", {"using": "css selector", "value": selector})[ELEMENT]
        self._do("POST", f"/element/{element}/click", {})

    def classes(self, selector: str) -> set[str]:
        return set(self.run(f"return [...document.querySelector({selector!r}).classList]"))

    def wait(self, script: str, seconds: float = 20.0):
        """The first true value of a script."""
        end = time.monotonic() + seconds
        while not (value := self.run(script)):
            assert time.monotonic() < end, f"the page never came to: {script}"
            time.sleep(0.05)
        return value

    def errors(self) -> list[str]:
        """What the console said that is severe (a missing icon is not)."""
        found = self._do("POST", "/se/log", {"type": "browser"})
        return [one["message"] for one in found if one["level"] == "SEVERE" and "favicon" not in one["message"]]

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._do("GET", "/screenshot")))

    def close(self) -> None:
        self._do("DELETE", "")


@contextlib.contextmanager
def driver():
    """The address of a running chromedriver."""
    process = subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, text=True)
    try:
        port = next(line.split("port ")[1].strip(" .\n") for line in process.stdout if "successfully on port " in line)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()
