"""Serving: a site on this machine alone: its routes, its store, and the threads that answer.

    site = Site("forum", ROUTES, seed)
    with site.started() as url: ...     http://127.0.0.1:PORT, until then
    site.reset()                        the store is as it was at first, within milliseconds

A site is threads of the process that started it: nothing is left when that process ends. Its store is an SQLite
database in memory.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

from anyorder_jax.environments.webarena.sites.markup import Markup, escaped

MAX_BODY = 1 << 20
"""Bytes of a request."""
SOCKET_SECONDS = 60.0
"""How long a connection may be silent."""
Store = sqlite3.Connection


class Request(NamedTuple):
    """query, form: the first value of each name. body: of a request in JSON, else None. referer: a path."""

    method: str
    path: str
    query: Mapping[str, str]
    form: Mapping[str, str]
    body: Any
    referer: str


class Response(NamedTuple):
    text: str
    status: int = 200
    kind: str = "text/html"
    headers: tuple[tuple[str, str], ...] = ()


class MissingError(LookupError):
    """There is no such page; the sentence is shown."""


def redirect(url: str, *headers: tuple[str, str]) -> Response:
    return Response("", 302, headers=(("Location", url), *headers))


def answer(value: Any, status: int = 200) -> Response:
    """In JSON."""
    return Response(json.dumps(value), status, "application/json")


def one(store: Store, query: str, *values: Any) -> sqlite3.Row:
    """The first row of an answer. Raises MissingError."""
    row: sqlite3.Row | None = store.execute(query, values).fetchone()
    if row is None:
        raise MissingError("there is nothing here")
    return row


def insert(store: Store, table: str, **columns: Any) -> int:
    """Writes a row. Returns its number."""
    marks = ", ".join("?" * len(columns))
    query = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"
    return int(store.execute(query, tuple(columns.values())).lastrowid or 0)


Handler = Callable[..., "Response | Markup"]
AnyHandler = TypeVar("AnyHandler", bound=Handler)


@dataclass
class Routes:
    """Pairs of a pattern and what answers it: `{name}` is a part of a path, `{name:path}` the rest of it."""

    found: list[tuple[str, re.Pattern[str], Handler]] = field(default_factory=list)

    def __call__(self, method: str, *templates: str) -> Callable[[AnyHandler], AnyHandler]:
        def keep(handler: AnyHandler) -> AnyHandler:
            for template in templates:
                parts = re.split(r"\{(\w+)(:path)?\}", template)
                pattern = re.escape(parts[0])
                for name, is_rest, after in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
                    pattern += f"(?P<{name}>{'.+' if is_rest else '[^/]+'})" + re.escape(after)
                self.found.append((method, re.compile(pattern + "/?"), handler))
            return handler

        return keep

    def handler(self, method: str, path: str) -> tuple[Handler, dict[str, str]]:
        """Raises MissingError."""
        for wanted, pattern, handler in self.found:
            match = pattern.fullmatch(path) if wanted == method else None
            if match:
                return handler, {name: unquote(value) for name, value in match.groupdict().items()}
        raise MissingError(f"there is no page {path}")


class Site:
    """A site with its store. routes' handlers take (store, request, **parts of the path).

    Args:
      name: for errors.
      routes: what answers.
      seed: writes the store as it is at first.
    """

    def __init__(self, name: str, routes: Routes, seed: Callable[[Store], None]) -> None:
        self.name, self._routes = name, routes
        self._lock = threading.Lock()
        self.store = sqlite3.connect(":memory:", check_same_thread=False, isolation_level=None)
        self.store.row_factory = sqlite3.Row
        with contextlib.closing(sqlite3.connect(":memory:")) as first:
            seed(first)
            first.commit()
            self._first = first.serialize()
        self.reset()
        self.failures: list[str] = []
        """Of handlers of ours."""

    def reset(self) -> None:
        """Puts the store back."""
        with self._lock:
            self.store.deserialize(self._first)

    def respond(self, request: Request) -> Response:
        """What is answered, one request at a time."""
        try:
            handler, parts = self._routes.handler(request.method, request.path)
            with self._lock:
                found = handler(self.store, request, **parts)
        except MissingError as error:
            return Response(f"<!doctype html><title>Not Found</title><h1>404</h1><p>{escaped(error)}", 404)
        except sqlite3.IntegrityError as error:
            return Response(f"<!doctype html><title>Conflict</title><h1>409</h1><p>{escaped(error)}", 409)
        except KeyError as error:
            return Response(f"<!doctype html><title>Bad request</title><h1>400</h1><p>no field {escaped(error)}", 400)
        return Response(found) if isinstance(found, str) else found

    @contextlib.contextmanager
    def started(self) -> Iterator[str]:
        """Its address, while it answers there."""
        server = _Server(("127.0.0.1", 0), _Connection)
        server.site = self
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            server.server_close()
            server.hang_up()
            thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a browser keeps connections open
    request_queue_size = 64
    site: Site

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._held = set[socket.socket]()
        self._lock = threading.Lock()

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        with self._lock:
            self._held.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._held.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """Ends the connections that browsers keep open: a site that is closed answers nobody."""
        with self._lock:
            for connection in self._held:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = SOCKET_SECONDS
    server: _Server

    def do_GET(self) -> None:
        self._respond()

    do_POST = do_PUT = do_DELETE = do_GET

    def _respond(self) -> None:
        try:
            request = self._request()
            response = self.server.site.respond(request)
        except ValueError as error:
            response = Response(str(error), 400, "text/plain")
        except Exception as error:
            self.server.site.failures.append(f"{self.command} {self.path}: {error!r}")
            response = Response(f"{type(error).__name__}: {error}", 500, "text/plain")
        body = response.text.encode()
        kind = f"{response.kind}; charset=utf-8"
        head = [*response.headers, ("Content-Type", kind), ("Content-Length", len(body)), ("Cache-Control", "no-store")]
        lines = [f"HTTP/1.1 {response.status} {self.responses.get(response.status, ('',))[0]}"]
        lines += [f"{name}: {value}" for name, value in head]
        with contextlib.suppress(OSError):  # the browser has gone
            self.wfile.write("\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n" + body)

    def _request(self) -> Request:
        length = self.headers.get("Content-Length") or "0"
        if not length.isdecimal() or int(length) > MAX_BODY:
            self.close_connection = True
            if length.isdecimal():  # who still sends would not hear the answer
                self.rfile.read(min(int(length), 8 * MAX_BODY))
            raise ValueError(f"a request has {MAX_BODY} bytes at most, got {length}")
        text = self.rfile.read(int(length)).decode("utf-8", "replace")
        kind = self.headers.get("Content-Type") or ""
        body = json.loads(text) if text and "json" in kind else None
        split = urlsplit(self.path)
        return Request(
            self.command,
            split.path,
            dict(reversed(parse_qsl(split.query, keep_blank_values=True))),
            {} if body is not None else dict(reversed(parse_qsl(text, keep_blank_values=True))),
            body,
            urlsplit(self.headers.get("Referer") or "").path,
        )

    def log_message(self, *_: Any) -> None:
        """Nothing is written anywhere."""
