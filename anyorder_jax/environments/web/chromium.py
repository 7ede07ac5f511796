"""Chromium: a headless browser that is told what to do over a pair of pipes (the DevTools protocol), without a port.

    call("Page.navigate", {"url": ...})   ->   {"id": 7, "method": ...}\\0  ->  chromium
    {"frameId": ...}                      <-   {"id": 7, "result": ...}\\0  <-

Every call has a time limit. What the browser tells meanwhile (events) goes to `on_event`. A browser that is silent,
gone or was cut off in the middle of a call is of no use any more (`is_usable`): close it and start another.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

MISSING = "needs Chromium, and none is installed. Install it (Debian: `apt-get install chromium`), or set CHROME_PATH."
START_SECONDS = 25.0
_CHUNK = 1 << 16
_FLAGS = (
    "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
    "--no-first-run", "--no-default-browser-check", "--no-zygote", "--disable-extensions", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-default-apps", "--disable-breakpad",
    "--disable-background-timer-throttling", "--disable-renderer-backgrounding", "--disable-ipc-flooding-protection",
    "--disable-backgrounding-occluded-windows", "--disable-features=Translate,AcceptCHFrame,MediaRouter",
    "--block-new-web-contents", "--disable-smooth-scrolling", "--hide-scrollbars", "--force-color-profile=srgb",
    "--disable-back-forward-cache",  # a site is asked again for the page that one goes back to
    "--lang=en-US", "--password-store=basic", "--use-mock-keychain", "--allow-file-access-from-files",
    "--no-proxy-server",
)  # fmt: skip
LOOPBACK = ("localhost", "127.0.0.1")


class BrowserError(RuntimeError):
    """The browser said no to a call."""


class SilentError(BrowserError):
    """No answer in time: what was asked hangs."""


class GoneError(BrowserError):
    """The browser, or its page, is gone."""


def find(who: str) -> str:
    """The path of the browser: CHROME_PATH's, else the first known name on PATH.

    Args:
      who: needs it, for the error.

    Raises:
      RuntimeError: there is none; says what to install.
    """
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    named = os.environ.get("CHROME_PATH")
    found = shutil.which(named) if named else next(filter(None, map(shutil.which, names)), None)
    if not found:
        raise RuntimeError(f"environments: {who} {MISSING}")
    return found


class Chromium:
    """A running browser with one page, of 800 x 600 points.

    Args:
      who: needs it, for errors.
      on_event: is given each event's name and content; it may `send`, and must not `call`.
      hosts: names and addresses that it may reach beside files and this machine; no other is ever found.

    Raises:
      RuntimeError: there is no browser, or it does not start.
    """

    def __init__(self, who: str, on_event: Callable[[str, Mapping[str, Any]], None], hosts: Sequence[str] = ()) -> None:
        path = find(who)
        self._on_event = on_event
        self._num_sent, self._buffer, self._session = 0, bytearray(), ""
        self._answers: dict[int, dict[str, Any]] = {}
        self._then: dict[int, Callable[[Mapping[str, Any]], None]] = {}
        self.is_usable = True
        self._folder = tempfile.mkdtemp(prefix="anyorder-chromium-")
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (theirs_in, theirs_out)]
        rules = " , ".join(["MAP * ~NOTFOUND", *(f"EXCLUDE {host}" for host in (*LOOPBACK, *hosts))])
        command = [path, *_FLAGS, f"--host-resolver-rules={rules}", "--window-size=800,600", "about:blank"]
        try:
            keeper = [sys.executable, "-I", "-S", str(Path(__file__).with_name("keeper.py"))]
            self._keeper = subprocess.Popen(
                [*keeper, self._folder, *map(str, ends), *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                pass_fds=ends,
                start_new_session=True,  # it ends by itself when this process does, and takes the browser along
            )
        finally:
            for end in (theirs_in, theirs_out, *ends):
                os.close(end)
        os.set_blocking(self._in, False)
        os.set_blocking(self._out, False)
        try:
            targets = self.call("Target.getTargets", seconds=START_SECONDS)["targetInfos"]
            page = next(target["targetId"] for target in targets if target["type"] == "page")
            found = self.call("Target.attachToTarget", {"targetId": page, "flatten": True}, seconds=START_SECONDS)
            self._session = found["sessionId"]
        except (BrowserError, StopIteration) as error:
            self.close()
            raise RuntimeError(f"environments: {who}: {path} does not start ({error}). Is it broken?") from None

    def send(
        self,
        method: str,
        arguments: Mapping[str, Any] | None = None,
        then: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> int:
        """Asks, and does not wait. Returns the question's number. `then` is given the answer when it comes, an
        empty one for a no; without it the answer is thrown away."""
        self._num_sent += 1
        if then:
            self._then[self._num_sent] = then
        message: dict[str, Any] = {"id": self._num_sent, "method": method, "params": arguments or {}}
        if self._session:
            message["sessionId"] = self._session
        rest = memoryview(json.dumps(message).encode() + b"\0")
        end = time.monotonic() + START_SECONDS
        while rest:
            try:
                rest = rest[os.write(self._out, rest) :]
            except BlockingIOError:
                if not select.select([], [self._out], [], max(0.0, end - time.monotonic()))[1]:
                    raise SilentError("the browser takes no more questions") from None
            except OSError:
                raise GoneError("the browser is gone") from None
        return self._num_sent

    def call(self, method: str, arguments: Mapping[str, Any] | None = None, *, seconds: float) -> dict[str, Any]:
        """The answer to a question.

        Raises:
          SilentError: none within `seconds`.
          GoneError: the browser ended, or the page crashed.
          BrowserError: the answer is no.
        """
        self.is_usable = False  # until the answer is there: a call may be cut off by an alarm
        number = self.send(method, arguments)
        end = time.monotonic() + seconds
        while number not in self._answers:
            if time.monotonic() >= end or not self.receive(end - time.monotonic()):
                raise SilentError(f"no answer to {method} within {seconds:g} seconds")
        answer, self._answers, self.is_usable = self._answers[number], {}, True
        if "error" in answer:
            raise BrowserError(f"{method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    def receive(self, seconds: float) -> bool:
        """Waits for what the browser tells and passes events on; False when it told nothing in this time."""
        if not select.select([self._in], [], [], max(0.0, seconds))[0]:
            return False
        try:
            told = os.read(self._in, _CHUNK)
        except BlockingIOError:
            return True
        if not told:
            self.is_usable = False
            raise GoneError("the browser is gone")
        self._buffer += told
        if b"\0" in told:
            *messages, rest = self._buffer.split(b"\0")
            self._buffer = rest
            for message in map(json.loads, messages):
                if then := self._then.pop(message.get("id", 0), None):
                    then(message.get("result", {}))
                elif "id" in message:
                    self._answers[message["id"]] = message
                else:
                    self._take(message["method"], message.get("params", {}))
        return True

    def _take(self, event: str, content: Mapping[str, Any]) -> None:
        if event in ("Inspector.targetCrashed", "Target.targetCrashed", "Inspector.detached"):
            self.is_usable = False
            raise GoneError("the page crashed")
        self._on_event(event, content)

    def close(self) -> None:
        """Ends it and waits until it is gone."""
        self.is_usable = False
        assert self._keeper.stdin is not None
        with contextlib.suppress(OSError):
            self._keeper.stdin.close()
        for end in (self._in, self._out):
            with contextlib.suppress(OSError):
                os.close(end)
        self._keeper.wait()
        for _ in range(20):  # only where the keeper was killed: then the browser ends by itself, a little later
            if not os.path.exists(self._folder):
                break
            shutil.rmtree(self._folder, ignore_errors=True)
            time.sleep(0.1)
