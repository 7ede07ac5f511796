"""HAR: what a browser asked its servers for, and what they said, as an HTTP archive (version 1.2).

    Network.requestWillBeSent           method, URL, body ─┐
    Network.requestWillBeSentExtraInfo  headers as sent   ─┼─►  {"request": {...}, "response": {...}, ...}
    Network.responseReceived            status            ─┤    one entry a request, and one for each redirection
    Network.responseReceivedExtraInfo   headers, cookies  ─┘

The headers that were really sent (`cookie`, `sec-fetch-*`) are told apart from the request, before it or after it, and
are put together when the log is asked for. Bodies of responses are kept where they are JSON.
"""

from __future__ import annotations

import base64
import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

Ask = Callable[[str, Mapping[str, Any], Callable[[Mapping[str, Any]], None]], object]
"""(method, arguments, what is given the answer, empty for a refusal): asks a browser, and does not wait."""
MAX_BODY = 1_000_000
"""Characters of a body that are kept."""
_NUM_LOOKED_AT = 200
"""The newest requests, of which some may be under way."""
_ENDLESS = frozenset(("WebSocket", "EventSource", "Ping"))
"""Kinds of requests that nobody waits for."""


@dataclass
class _Hop:
    """A request, or one of its redirections."""

    request: Mapping[str, Any]
    began: float
    wall_time: float
    is_endless: bool
    body: str | None = None
    response: Mapping[str, Any] | None = None
    has_extra: bool = False
    ended: float | None = None
    redirect_url: str = ""
    content: str | None = None
    error: str = ""


@dataclass
class _Chain:
    """All hops of a request, and the headers that were told apart from them, in the same order."""

    hops: list[_Hop] = field(default_factory=list)
    sent: list[Mapping[str, Any]] = field(default_factory=list)
    received: list[Mapping[str, Any]] = field(default_factory=list)


class Recorder:
    """Records from a browser's events (`take`); Network must be enabled there.

    Args:
      ask: asks the browser for bodies.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self.clear()

    def clear(self) -> None:
        """Forgets everything; what still comes of requests that were under way is ignored."""
        self._chains: dict[str, _Chain] = {}
        self._order: list[tuple[str, _Hop]] = []
        self._num_asked = 0

    @property
    def is_waiting(self) -> bool:
        """Whether an answer is still to come that will come."""
        return self._num_asked > 0 or any(
            hop.ended is None and not hop.is_endless for _, hop in self._order[-_NUM_LOOKED_AT:]
        )

    def give_up(self) -> None:
        """What has not come by now is waited for no more; should it come, it is recorded."""
        self._num_asked = 0
        for _, hop in self._order[-_NUM_LOOKED_AT:]:
            hop.is_endless = True

    def take(self, event: str, content: Mapping[str, Any]) -> None:
        """An event of the browser; those of other domains are passed over."""
        if not event.startswith("Network."):
            return
        number = content.get("requestId", "")
        match event.removeprefix("Network."):
            case "requestWillBeSent":
                self._begin(number, content)
            case "requestWillBeSentExtraInfo":
                self._chains.setdefault(number, _Chain()).sent.append(content)
            case "responseReceivedExtraInfo":
                self._chains.setdefault(number, _Chain()).received.append(content)
            case "responseReceived" if hop := self._open(number):
                hop.response, hop.has_extra = content["response"], bool(content.get("hasExtraInfo"))
            case "loadingFinished" if hop := self._open(number):
                hop.ended = content["timestamp"]
                self._want_content(number, hop)
            case "loadingFailed" if hop := self._open(number):
                hop.ended, hop.error = content["timestamp"], str(content.get("errorText", ""))

    def _open(self, number: str) -> _Hop | None:
        chain = self._chains.get(number)
        return chain.hops[-1] if chain and chain.hops and chain.hops[-1].ended is None else None

    def _begin(self, number: str, content: Mapping[str, Any]) -> None:
        before, redirected = self._open(number), content.get("redirectResponse")
        if before and redirected:
            before.response, before.ended = redirected, content["timestamp"]
            before.has_extra = bool(content.get("redirectHasExtraInfo"))
            before.redirect_url = content["request"]["url"]
        if not content["request"]["url"].startswith(("http://", "https://")):
            return
        hop = _Hop(content["request"], content["timestamp"], content["wallTime"], content.get("type") in _ENDLESS)
        hop.body = _body(hop.request)
        if hop.body is None and hop.request.get("hasPostData"):
            self._want("Network.getRequestPostData", number, hop, "body", "postData")
        self._chains.setdefault(number, _Chain()).hops.append(hop)
        self._order.append((number, hop))

    def _want_content(self, number: str, hop: _Hop) -> None:
        if hop.response and "json" in hop.response.get("mimeType", ""):
            self._want("Network.getResponseBody", number, hop, "content", "body")

    def _want(self, method: str, number: str, hop: _Hop, attribute: str, key: str) -> None:
        chains = self._chains

        def keep(answer: Mapping[str, Any]) -> None:
            if self._chains is chains:
                self._num_asked = max(0, self._num_asked - 1)
            text = str(answer.get(key, ""))
            if answer.get("base64Encoded"):
                text = base64.b64decode(text).decode("utf-8", "replace")
            setattr(hop, attribute, text[:MAX_BODY])

        self._num_asked += 1
        self._ask(method, {"requestId": number}, keep)

    def entries(self) -> list[dict[str, Any]]:
        """The log's entries, in the order in which they were asked."""
        found = []
        places = dict.fromkeys(self._chains, 0)
        for number, hop in self._order:
            chain, place = self._chains[number], places[number]
            has_extra = hop.has_extra or hop.response is None
            sent = chain.sent[place] if has_extra and place < len(chain.sent) else {}
            received = chain.received[place] if has_extra and place < len(chain.received) else {}
            places[number] += has_extra
            found.append(_entry(hop, sent, received))
        return found


def _body(request: Mapping[str, Any]) -> str | None:
    """A request's body, where the browser told it with the request."""
    if "postData" in request:
        return str(request["postData"])[:MAX_BODY]
    parts = [part.get("bytes", "") for part in request.get("postDataEntries", ())]
    return b"".join(map(base64.b64decode, parts)).decode("utf-8", "replace")[:MAX_BODY] if any(parts) else None


def log(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A whole archive of these entries."""
    return {"log": {"version": "1.2", "creator": {"name": "anyorder_jax", "version": "1"}, "entries": list(entries)}}


def blank() -> dict[str, Any]:
    """The entry of a blank page."""
    request = {"method": "GET", "url": "about:blank", "headers": {}}
    return _entry(_Hop(request, 0.0, 0.0, False, response={"status": 200}, ended=0.0), {}, {})


def _entry(hop: _Hop, sent: Mapping[str, Any], received: Mapping[str, Any]) -> dict[str, Any]:
    response = hop.response or {}
    asked = {**hop.request.get("headers", {})} | dict(sent.get("headers", {}))
    told = {**response.get("headers", {})} | dict(received.get("headers", {}))
    protocol = str(response.get("protocol") or "HTTP/1.1")
    milliseconds = max(0.0, ((hop.ended or hop.began) - hop.began) * 1000)
    began = datetime.datetime.fromtimestamp(hop.wall_time, datetime.UTC)
    url = str(hop.request["url"])
    request: dict[str, Any] = {
        "method": hop.request["method"],
        "url": url,
        "httpVersion": protocol,
        "cookies": _cookies(_header(asked, "cookie").split(";")),
        "headers": _headers(asked),
        "queryString": [{"name": k, "value": v} for k, v in parse_qsl(urlsplit(url).query, keep_blank_values=True)],
        "headersSize": -1,
        "bodySize": len((hop.body or "").encode()),
    }
    if hop.body is not None:
        request["postData"] = {"mimeType": _header(asked, "content-type"), "text": hop.body}
    content: dict[str, Any] = {"size": len((hop.content or "").encode()), "mimeType": _header(told, "content-type")}
    content["mimeType"] = content["mimeType"] or response.get("mimeType", "")
    return {
        "startedDateTime": began.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "time": milliseconds,
        "request": request,
        "response": {
            "status": received.get("statusCode", response.get("status", 0)),
            "statusText": response.get("statusText", "") or hop.error,
            "httpVersion": protocol,
            "cookies": _cookies(_header(told, "set-cookie").split("\n"), is_set=True),
            "headers": _headers(told),
            "content": content if hop.content is None else {**content, "text": hop.content},
            "redirectURL": hop.redirect_url,
            "headersSize": -1,
            "bodySize": -1,
        },
        "cache": {},
        "timings": {"send": 0, "wait": milliseconds, "receive": 0},
    }


def _header(headers: Mapping[str, Any], name: str) -> str:
    """The value of a header, whatever its case; the one told last counts."""
    return next((str(value) for key, value in reversed(list(headers.items())) if key.lower() == name), "")


def _headers(headers: Mapping[str, Any]) -> list[dict[str, str]]:
    """As an archive lists them; one that stands there twice, in two cases, counts once."""
    by_name = {key.lower(): {"name": key, "value": str(value)} for key, value in headers.items()}
    return list(by_name.values())


def _cookies(parts: Sequence[str], is_set: bool = False) -> list[dict[str, str]]:
    """Of a Cookie header's parts, or of Set-Cookie lines."""
    pairs = ((part.split(";")[0] if is_set else part).strip().partition("=") for part in parts if part.strip())
    return [{"name": name, "value": value} for name, _, value in pairs]
