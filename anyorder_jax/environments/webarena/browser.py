"""Browser: a tab for whole sites: it remembers who is signed in, waits for answers, and records what is asked.

Everything happens in one tab: a link or a script that would open another one loads it here (and `go_back` leads back).
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from anyorder_jax.environments.web import scripts
from anyorder_jax.environments.web.calls import Action
from anyorder_jax.environments.web.chromium import BrowserError
from anyorder_jax.environments.web.har import Recorder
from anyorder_jax.environments.web.tab import WAIT_MS, LostError, Tab

SETTLE_SECONDS = 8.0
"""How long answers to what a page asks are waited for after an action."""
QUIET_SECONDS, QUIET_SECONDS_LIVE = 0.05, 0.5
"""A page that was told nothing for so long has settled; longer where its timers run by themselves."""
_LATER_MS = 100
_FORGET = "cookies,local_storage,indexeddb,cache_storage,service_workers"
_ONE_TAB = """
(() => {
  window.open = url => { if (url) location.assign(url); return window; };
  const stay = element => { if (element && !['', '_self'].includes(element.target)) element.target = '_self'; };
  const on = (name, find) => addEventListener(name, event => stay(find(event)), true);
  on('click', event => event.composedPath().find(e => e.tagName === 'A' || e.tagName === 'AREA'));
  on('submit', event => event.target);
})();
"""


class SiteTab(Tab):
    """A tab for sites.

    Args:
      who: needs it, for errors.
      hosts: that it may reach beside this machine.
      is_frozen: whether pages' time moves with actions alone (`scripts.CLOCK`), else it is everybody's.
    """

    def __init__(self, who: str, hosts: Sequence[str], is_frozen: bool) -> None:
        super().__init__(who, hosts, (scripts.CLOCK, _ONE_TAB) if is_frozen else (_ONE_TAB,))
        self._quiet_seconds = QUIET_SECONDS if is_frozen else QUIET_SECONDS_LIVE
        self.recorder = Recorder(lambda *asked: self._browser and self._browser.send(*asked))

    def _start(self) -> None:
        super()._start()
        self.recorder.clear()
        self._call("Network.enable", {"maxPostDataSize": 1 << 20})
        self._call("Network.setCacheDisabled", {"cacheDisabled": True})  # what is cached is asked without its headers

    def _on_event(self, event: str, content: Mapping[str, Any]) -> None:
        super()._on_event(event, content)
        self.recorder.take(event, content)

    def forget(self, urls: Sequence[str]) -> None:
        """Nobody is signed in any more: cookies and stores of the sites at these addresses are gone."""
        self.open("about:blank")
        try:
            self._call("Network.clearBrowserCookies")
            for url in urls:
                origin = "{0.scheme}://{0.netloc}".format(urlsplit(url))
                self._call("Storage.clearDataForOrigin", {"origin": origin, "storageTypes": _FORGET})
        except BrowserError as error:
            raise self._lost(error) from None

    def open(self, url: str) -> None:
        """Opens a page and waits until it has settled. Raises LostError, also where nobody answers."""
        super().open(url)
        self.settle()
        failed = next((e for e in self.recorder.entries() if e["request"]["url"].rstrip("/") == url.rstrip("/")), None)
        if failed and not failed["response"]["status"]:
            raise LostError(f"{url} cannot be opened ({failed['response']['statusText'] or 'no answer'})")

    def do(self, action: Action) -> None:
        """As `Tab.do`, and waits until the page has settled."""
        super().do(action)
        if self.settle():
            self.advance(_LATER_MS)  # for what a page does a moment after an answer
            self.settle()

    def settle(self) -> bool:
        """Waits for answers; whether all came that were waited for, if any were. A page that never stops asking is let
        go on, and what has not come in time is waited for no more."""
        assert self._browser is not None
        end, has_waited = time.monotonic() + SETTLE_SECONDS, False
        try:
            while (left := end - time.monotonic()) > 0:
                is_waiting = self.recorder.is_waiting
                has_waited |= is_waiting
                if not self._browser.receive(min(left, self._quiet_seconds)) and not is_waiting:
                    break
            else:
                self.recorder.give_up()
                has_waited = False
            self._wait_for_load()
        except BrowserError as error:
            raise self._lost(error) from None
        return has_waited

    def address(self) -> str:
        """The address of the page that is shown."""
        return str(self.run("location.href") or "")

    def fill_and_send(self, fields: Mapping[str, str], button: str) -> bool:
        """Fills a form and sends it; False where it is not on the page.

        Args:
          fields: CSS selector -> text.
          button: CSS selector of what sends it.
        """
        is_there = bool(self.run(_SEND % (json.dumps(fields), json.dumps(button))))
        if is_there:
            self.advance(WAIT_MS)
            self._wait_for_load()
            self.settle()
        return is_there


_SEND = """((fields, button) => {
  const found = Object.entries(fields).map(([selector, text]) => [document.querySelector(selector), text]);
  const send = document.querySelector(button);
  if (!send || found.some(([field]) => !field)) return false;
  for (const [field, text] of found) {
    field.value = text;
    for (const name of ['input', 'change']) field.dispatchEvent(new Event(name, {bubbles: true}));
  }
  send.click();
  return true;
})(%s, %s)"""
