"""Tab: the page of a browser: opened, looked at, acted on, each within a limit of time.

What goes wrong on a page is an outcome: an action that cannot be done is an `InvalidActionError`; a dialog is answered
and a load that does not end is stopped, and both are told (`notices`); a page that hangs or crashes is a `LostError`.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from anyorder_jax.environments.base import InvalidActionError
from anyorder_jax.environments.web import scripts
from anyorder_jax.environments.web.calls import KEYS, MODIFIERS, Action, keys_of
from anyorder_jax.environments.web.chromium import BrowserError, Chromium, GoneError, SilentError
from anyorder_jax.environments.web.tree import Node, nodes_of

LOAD_SECONDS, ACT_SECONDS, LOOK_SECONDS = 8.0, 10.0, 10.0
"""How long a page may take to load, to do what it is told, and to be read."""
WAIT_MS = 1000
"""The page's own time that goes by with each action."""
MAX_NOTICES = 10
SILENT = ("noop", "send_msg_to_user", "report_infeasible")
"""Actions that a page knows nothing of."""


class LostError(RuntimeError):
    """The page cannot be used any more: it hangs, or crashed. The sentence is for the agent."""


class Tab:
    """A page, in a browser of its own that is started when it is first needed and serves until it is lost.

    Args:
      who: needs it, for errors.
      hosts: that it may reach beside this machine.
      prologue: scripts that stand before every page's own. Without `scripts.CLOCK` time is everybody's.

    Raises:
      RuntimeError: there is no browser.
    """

    def __init__(self, who: str, hosts: Sequence[str] = (), prologue: Sequence[str] = (scripts.CLOCK,)) -> None:
        self._who, self._hosts, self._prologue = who, hosts, prologue
        self._browser: Chromium | None = None
        self._is_loading = self._is_about_to_load = False
        self._backend: dict[str, int] = {}
        self._bids: dict[int, str] = {}
        self._mouse_at = (0.0, 0.0)
        self.number: Callable[[int], str] = str
        """From an element's place in the order of sight to its number."""
        self.notices: list[str] = []
        """What happened besides, since it was last emptied."""

    def open(self, url: str) -> None:
        """Opens a page and waits for it; its time stands still. Raises LostError."""
        if self._browser is None or not self._browser.is_usable:
            self._start()
        self._bids, self._backend, self.notices = {}, {}, []
        self._mouse_at = (0.0, 0.0)
        try:
            self._is_loading, self._is_about_to_load = True, False
            self._call("Page.navigate", {"url": url}, LOAD_SECONDS)
            self._wait_for_load()
            self._call("Page.resetNavigationHistory")  # no way back into another episode
        except BrowserError as error:
            raise self._lost(error) from None
        self.run(scripts.PRELOAD)

    def _start(self) -> None:
        self.close()
        self._browser = Chromium(self._who, self._on_event, self._hosts)
        for domain in ("Page", "DOM", "Inspector"):
            self._call(f"{domain}.enable", seconds=LOAD_SECONDS)
        for script in self._prologue:
            self._call("Page.addScriptToEvaluateOnNewDocument", {"source": script}, LOAD_SECONDS)
        self._call("Emulation.setFocusEmulationEnabled", {"enabled": True}, LOAD_SECONDS)
        self._call("Browser.setDownloadBehavior", {"behavior": "deny"}, LOAD_SECONDS)

    def _call(self, method: str, arguments: Mapping[str, Any] | None = None, seconds: float = 0.0) -> Any:
        assert self._browser is not None
        return self._browser.call(method, arguments, seconds=seconds or ACT_SECONDS)

    def _on_event(self, event: str, content: Mapping[str, Any]) -> None:
        if event == "Page.javascriptDialogOpening":
            assert self._browser is not None
            self._browser.send("Page.handleJavaScriptDialog", {"accept": True})
            if len(self.notices) < MAX_NOTICES:
                self.notices.append(f"dialog {content['type']} {content['message'][:200]!r}, accepted")
        elif event in ("Page.frameScheduledNavigation", "Page.frameClearedScheduledNavigation"):
            self._is_about_to_load = event == "Page.frameScheduledNavigation"
        elif event in ("Page.frameStartedNavigating", "Page.frameStartedLoading"):
            self._is_loading = True
        elif event in ("Page.frameStoppedLoading", "Page.loadEventFired"):
            self._is_loading = False

    def _lost(self, error: BrowserError) -> LostError:
        """The page is given up, and its browser with it."""
        self.close()
        why = "crashed" if isinstance(error, GoneError) else "does not answer" if isinstance(error, SilentError) else ""
        return LostError(f"the page {why}" if why else f"the page cannot be used: {error}")

    def _wait_for_load(self) -> None:
        end = time.monotonic() + LOAD_SECONDS
        assert self._browser is not None
        while self._is_loading or self._is_about_to_load:
            if time.monotonic() < end:
                self._browser.receive(end - time.monotonic())
            else:
                self._call("Page.stopLoading")
                self._is_loading = self._is_about_to_load = False
                self.notices.append(f"the page did not load within {LOAD_SECONDS:g} seconds, and was stopped")

    def run(self, script: str) -> Any:
        """The value of a script, or of its promise; None where the page was replaced meanwhile. Raises LostError, also
        where the script fails."""
        asked = {"expression": script, "returnByValue": True, "awaitPromise": True}
        try:
            try:
                found = self._call("Runtime.evaluate", asked)
            except GoneError:
                raise
            except BrowserError as error:
                is_replaced = self._is_loading or self._is_about_to_load
                if isinstance(error, SilentError) and not is_replaced:
                    raise
                found = {"result": {}}
            self._wait_for_load()
        except BrowserError as error:
            raise self._lost(error) from None
        if "exceptionDetails" in found:
            raise LostError(f"the page fails: {found['exceptionDetails']['exception'].get('description', '')[:300]}")
        return found["result"].get("value")

    def advance(self, milliseconds: float) -> None:
        """Lets the page's own time go by."""
        self.run(f"window.__clock && __clock.advance({milliseconds:g})")

    def look(self) -> list[Node]:
        """The nodes that are seen now. Elements that are new get the next numbers. Raises LostError."""
        try:
            snapshot = self._call("DOMSnapshot.captureSnapshot", {"computedStyles": []}, LOOK_SECONDS)
            tree = self._call("Accessibility.getFullAXTree", None, LOOK_SECONDS)["nodes"]
        except BrowserError as error:
            raise self._lost(error) from None
        found = snapshot["documents"][0]["nodes"]
        for kind, element in zip(found["nodeType"], found["backendNodeId"], strict=True):
            if kind == 1 and element not in self._bids:
                bid = self.number(len(self._bids))
                self._bids[element], self._backend[bid] = bid, element
        clickable = frozenset(found["backendNodeId"][i] for i in found["isClickable"]["index"])
        return nodes_of(tree, self._bids, clickable)

    def do(self, action: Action) -> None:
        """Does an action, and lets time go by.

        Raises:
          InvalidActionError: it cannot be done; nothing has moved.
          LostError: the page hangs or crashed.
        """
        arguments = dict(action.arguments)
        wait = float(arguments["wait_ms"]) if action.name == "noop" else WAIT_MS
        try:
            if action.name not in SILENT:
                getattr(self, f"_{action.name}")(*arguments.values())
            self._wait_for_load()  # first: what is asked of a page that another replaces is never answered
        except BrowserError as error:
            raise self._lost(error) from None
        self.advance(wait)

    def _on(self, bid: str, script: str, *arguments: Any) -> dict[str, Any]:
        """What a function says of an element. Raises InvalidActionError where it is not there or says so."""
        if bid not in self._backend:
            raise InvalidActionError(f"there is no element {bid}")
        try:
            element = self._call("DOM.resolveNode", {"backendNodeId": self._backend[bid]})["object"]["objectId"]
        except (SilentError, GoneError):
            raise
        except BrowserError:
            raise InvalidActionError(f"element {bid} is gone") from None
        given = [{"value": argument} for argument in arguments]
        asked = {"objectId": element, "functionDeclaration": script, "arguments": given}
        said = self._call("Runtime.callFunctionOn", {**asked, "returnByValue": True, "awaitPromise": True})
        if "exceptionDetails" in said:
            raise InvalidActionError(f"element {bid} cannot be used like that")
        value: dict[str, Any] = said["result"]["value"]
        if "problem" in value:
            raise InvalidActionError(f"element {bid} {value['problem']}")
        return value

    def _mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        self._mouse_at = (x, y)
        self._call("Input.dispatchMouseEvent", {"type": kind, "x": x, "y": y, **more})

    def _click(self, bid: str, button: str, modifiers: list[str], times: int = 1) -> None:
        place = self._on(bid, scripts.PLACE, True)
        held = {"modifiers": _held(modifiers)}
        self._mouse("mouseMoved", place["x"], place["y"], **held)
        place = self._on(bid, scripts.PLACE, True)  # it may look and lie otherwise under the mouse
        x, y = place["x"], place["y"]
        for count in range(1, times + 1):
            for kind in ("mousePressed", "mouseReleased"):
                self._mouse(kind, x, y, button=button, clickCount=count, **held)

    def _dblclick(self, bid: str, button: str, modifiers: list[str]) -> None:
        self._click(bid, button, modifiers, 2)

    def _hover(self, bid: str) -> None:
        place = self._on(bid, scripts.PLACE, False)
        self._mouse("mouseMoved", place["x"], place["y"])

    def _drag_and_drop(self, from_bid: str, to_bid: str) -> None:
        start = self._on(from_bid, scripts.PLACE, False)
        end = self._on(to_bid, scripts.PLACE, False)
        self._mouse("mouseMoved", start["x"], start["y"])
        self._mouse("mousePressed", start["x"], start["y"], button="left", clickCount=1)
        x, y = start["x"], start["y"]
        for share in (0.1, 0.5, 1.0):
            x, y = (
                start[axis] + share * (end[axis] - start[axis] + _beyond(end[axis] - start[axis], end[size]))
                for axis, size in (("x", "width"), ("y", "height"))
            )
            self._mouse("mouseMoved", x, y, button="left", buttons=1)
        self._mouse("mouseReleased", x, y, button="left", clickCount=1)

    def _focus(self, bid: str) -> None:
        self._on(bid, scripts.FOCUS)

    def _fill(self, bid: str, value: str) -> None:
        if self._on(bid, scripts.READY_TO_FILL, value)["is_done"]:
            return
        if value:
            self._keyboard_type(value)
        else:
            self._keyboard_press("Delete")

    def _clear(self, bid: str) -> None:
        self._fill(bid, "")

    def _check(self, bid: str, wanted: bool = True) -> None:
        if self._on(bid, scripts.IS_CHECKED)["is_checked"] != wanted:
            self._click(bid, "left", [])

    def _uncheck(self, bid: str) -> None:
        self._check(bid, False)

    def _select_option(self, bid: str, options: str | list[str]) -> None:
        self._on(bid, scripts.SELECT, [options] if isinstance(options, str) else options)

    def _press(self, bid: str, key_comb: str) -> None:
        self._on(bid, scripts.FOCUS)
        self._keyboard_press(key_comb)

    def _keyboard_type(self, text: str) -> None:
        self._call("Input.insertText", {"text": text})

    def _keyboard_press(self, key: str) -> None:
        modifiers, name = keys_of(key)
        held = {"modifiers": _held(modifiers)}
        is_command = bool({"Control", "Meta"} & set(modifiers))
        code = {"Space": " "}.get(name, name)
        number = KEYS[name] if name in KEYS else ord(name.upper()) if len(name) == 1 else 0
        event: dict[str, Any] = {"key": code, "code": name, "windowsVirtualKeyCode": number, **held}
        text = {"Enter": "\r", "Space": " "}.get(name, name if len(name) == 1 else "")
        down = dict(event, type="keyDown" if text and not is_command else "rawKeyDown")
        if text and not is_command:
            down["text"] = text
        self._call("Input.dispatchKeyEvent", down)
        self._call("Input.dispatchKeyEvent", dict(event, type="keyUp"))

    def _scroll(self, delta_x: float, delta_y: float) -> None:
        """As a wheel does: what lies under the mouse."""
        where = json.dumps([*self._mouse_at, delta_x, delta_y])
        self._call("Runtime.evaluate", {"expression": scripts.SCROLL % where})

    def _goto(self, url: str) -> None:
        self._is_loading = True
        if self._call("Page.navigate", {"url": url}, LOAD_SECONDS).get("errorText"):
            self._is_loading = False
            self.notices.append(f"{url[:200]} cannot be opened")

    def _go_back(self, by: int = -1) -> None:
        history = self._call("Page.getNavigationHistory")
        place = history["currentIndex"] + by
        if not 0 <= place < len(history["entries"]):
            raise InvalidActionError("there is no such page in the history")
        self._call("Page.navigateToHistoryEntry", {"entryId": history["entries"][place]["id"]})
        self._is_loading = True

    def _go_forward(self) -> None:
        self._go_back(1)

    def close(self) -> None:
        """Ends the browser."""
        browser, self._browser = self._browser, None
        if browser is not None:
            with contextlib.suppress(OSError):
                browser.close()


def _beyond(way: float, size: float) -> float:
    """What a hand goes beyond the middle of where it drags to: lists sort what has passed another's middle."""
    return max(-1.0, min(1.0, way)) * min(4.0, size / 4)


def _held(modifiers: list[str]) -> int:
    return sum({"Alt": 1, "Control": 2, "Meta": 4, "Shift": 8}[one] for one in modifiers if one in MODIFIERS)
