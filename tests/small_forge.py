"""A small site on this machine, in the place of WebArena's code forge: who is signed in has todos, a status, a star to
give."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_MENU = (
    "<a href=/dashboard/todos target=_blank>To-Do List</a> <a href=/repo>Most starred</a> <a href=/status>Status</a>"
)
_SEND = """<script>
const send = (method, path, body) => fetch(path, {method, headers: {'Content-Type': 'application/json'},
  body: JSON.stringify(body)}).then(told => told.json()).then(told => setTimeout(() => {
    document.querySelector('output').textContent = JSON.stringify(told) }, 60));
</script><output></output>"""
PAGES = {
    "/": f"<title>Projects</title>{_MENU}",
    "/dashboard/todos": f"<title>Todos</title><h1>To-Do List</h1>{_MENU}",
    "/repo": f"<title>Repo</title>{_MENU}<button onclick=\"send('POST', "
    f"'/umano/AndroidSlidingUpPanel/toggle_star.json', {{}})\">Star</button>{_SEND}",
    "/slow": "<title>Slow</title><script>fetch('/never')</script><a href=/repo>Starred</a>",
    "/status": f"<title>Status</title>{_MENU}<input aria-label=message id=m><button onclick=\"send('PUT', "
    "'/api/v4/user/status', {message: m.value, availability: 'busy', clear_status_after: null})\">Set status</button>"
    f"{_SEND}<form method=post action=/old><input name=note value='a b'><button>Note</button></form>",
    "/users/sign_in": "<title>Sign in</title><form action=/users/sign_in method=post><input name='user[login]'>"
    "<input name='user[password]' type=password><button type=submit>Sign in</button></form>",
}


@dataclass
class Forge:
    """url: where it answers. seen: (method, path, body) of requests of who is signed in. is_over: /never answers."""

    url: str = ""
    password: str = "hello1234"
    seen: list[tuple[str, str, str]] = field(default_factory=list)
    is_over: threading.Event = field(default_factory=threading.Event)


@contextlib.contextmanager
def running(forge: Forge) -> Iterator[Forge]:
    """The site, until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            if path == "/favicon.ico":
                return self._say(404, "")
            if path == "/never":
                forge.is_over.wait()
            if path == "/users/sign_in" and self.command == "POST":
                is_known = f"%5D=byteblaze&user%5Bpassword%5D={forge.password}" in body
                cookie = {"Set-Cookie": "session=1; Path=/; HttpOnly"} if is_known else {}
                return self._say(302, "", {"Location": "/" if is_known else "/users/sign_in", **cookie})
            if "session=1" not in (self.headers.get("Cookie") or "") and path != "/users/sign_in":
                return self._say(302, "", {"Location": "/users/sign_in"})
            forge.seen.append((self.command, self.path, body))
            if path == "/old":
                return self._say(302, "", {"Location": "/repo"})
            if self.command != "GET":
                return self._say(200, json.dumps({"star_count": 56}), kind="application/json")
            return self._say(200 if path in PAGES else 404, PAGES.get(path, "<title>Gone</title>"))

        do_POST = do_PUT = do_GET

        def _say(self, status: int, text: str, headers: Any = (), kind: str = "text/html") -> None:
            content = text.encode()
            self.send_response(status)
            for name, value in {"Content-Type": kind, "Content-Length": len(content), **dict(headers)}.items():
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    forge.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield forge
    finally:
        forge.is_over.set()
        server.shutdown()
        server.server_close()
