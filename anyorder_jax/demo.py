"""Demo: hide what you click in a test episode and see what a checkpoint puts there, in the browser, on this machine.

    python -m anyorder_jax.demo --checkpoint=runs/any_order [--port=8100 --idle_minutes=30 --num_windows=6 --seed=0]
    python -m anyorder_jax.demo --checkpoint=runs/own_data [--input=logs.jsonl --record=0]

Of a run of grids the page shows windows of test episodes, of a run of text whole episodes: its held-out ones, or those
of --input, a shard or a log in any of the formats that ingest reads (docs/own_data.md), from number --record on.

Serves 127.0.0.1 only, and stops by itself when nobody has asked for a while. With --output=page.html it writes a page
to keep instead, where one hole at a time is opened, whose answers are in it.
"""

from __future__ import annotations

if __name__ == "__main__":
    from anyorder_jax import command

    command.begin("demo")  # imports take seconds

import argparse
import contextlib
import json
import math
import re
import socket
import sys
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from anyorder_jax import command, files, paths, process, terminal
from anyorder_jax.evaluation import page
from anyorder_jax.evaluation.opening import Answering, Wanted, open_reader, title_of

HOST = "127.0.0.1"
MAX_REQUEST_BYTES = 100_000
TIMEOUT_SECONDS = 20
"""How long a request may take to arrive."""


class Server(ThreadingHTTPServer):
    """Answers holes of one model.

    Args:
      reader: the windows and the model; None: `show` comes before the first request is served.
      title: of the page.
      port: 0: any free one.

    Raises:
      OSError: the port is taken, or not for everybody.
    """

    daemon_threads = True

    def __init__(self, reader: Answering | None, title: str, port: int) -> None:
        try:
            super().__init__((HOST, port), Handler)
        except OSError as error:
            raise OSError(
                f"port {port} of {HOST} cannot be used ({error.strerror}). Give another --port, or --port=0 for any "
                "that is free."
            ) from error
        self.lock, self.title = threading.Lock(), title
        self.last_request = time.monotonic()
        if reader is not None:
            self.show(reader)

    def show(self, reader: Answering, content: str = "") -> None:
        """Takes the windows and the model that answer from now on, and the page that shows them (empty: the viewer of
        grids)."""
        self.reader = reader
        content = content or page.viewer_page(self.title, reader.described())
        self.page = content.encode(errors="surrogateescape")
        self.last_request = time.monotonic()

    def shutdown_request(self, request: Any) -> None:
        """Reads what is still coming, up to a limit: else the answer to a request too large would be lost with it."""
        with contextlib.suppress(OSError):
            request.shutdown(socket.SHUT_WR)
            request.settimeout(1.0)
            left = 100 * MAX_REQUEST_BYTES
            while left > 0 and (part := request.recv(MAX_REQUEST_BYTES)):
                left -= len(part)
        self.close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A tab that is closed while the page loads is nothing to tell; anything else is told in a line."""
        error = sys.exception()
        if not isinstance(error, OSError):
            print(f"demo: {type(error).__name__}: {error}", file=sys.stderr, flush=True)

    def stop_when_idle(self, seconds: float) -> None:
        """Serves until nothing has been asked for so long."""
        threading.Thread(target=self._watch, args=(seconds,), daemon=True).start()
        self.serve_forever(poll_interval=0.2)

    def _watch(self, seconds: float) -> None:
        while (left := self.last_request + seconds - time.monotonic()) > 0:
            time.sleep(min(left, 1.0))
        self.shutdown()


class Handler(BaseHTTPRequestHandler):
    """GET / is the page; POST /answer {"window": 0, "holes": [[unit, cell], ...]} is the model. A hole of text is
    [unit], [unit, line] or [unit, line, word], and "sees": "past" hides from it what comes after."""

    server: Server
    timeout = TIMEOUT_SECONDS

    def do_GET(self) -> None:
        if self._is_local():
            self._send(200, "text/html; charset=utf-8", self.server.page) if self.path == "/" else self._refuse(404)

    def do_POST(self) -> None:
        if not self._is_local():
            return
        is_json = self.headers.get_content_type() == "application/json"  # a form of another site cannot send this
        if self.path != "/answer" or not is_json:
            self._refuse(404)
            return
        length = self.headers.get("Content-Length", "").strip()
        if not re.fullmatch("[0-9]+", length):
            self._refuse(400 if length else 411)
            return
        if len(length) > len(str(MAX_REQUEST_BYTES)) or int(length) > MAX_REQUEST_BYTES:
            self._refuse(413)
            return
        try:
            window, holes, sees = read_question(self.rfile.read(int(length)))
            with self.server.lock:
                chosen = {"sees": sees} if sees else {}
                (answers,) = self.server.reader.answer([(window, holes)], **chosen)
        except ValueError as error:
            self._send(400, "text/plain; charset=utf-8", str(error).encode())
            return
        self._send(200, "application/json", json.dumps(answers).encode())

    def _is_local(self) -> bool:
        """Refuses names that merely resolve to this machine (DNS rebinding)."""
        self.server.last_request = time.monotonic()
        if re.fullmatch(rf"({re.escape(HOST)}|localhost)\.?(:[0-9]*)?", self.headers.get("Host", "").strip().lower()):
            return True
        self._refuse(403)
        return False

    def _refuse(self, status: int) -> None:
        self._send(status, "text/plain; charset=utf-8", b"refused")

    def _send(self, status: int, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Keeps requests out of the terminal."""


def read_question(body: bytes) -> tuple[int, list[tuple[int, ...]], str]:
    """(window, holes, what they see) of a request.

    Raises:
      ValueError: when it is something else.
    """
    expected = 'expected {"window": 0, "holes": [[unit, cell], ...]}'
    try:
        found = json.loads(body)
        window, holes, sees = found["window"], [tuple(hole) for hole in found["holes"]], found.get("sees", "")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"demo: {expected}, got {body[:80]!r}.") from error
    if not all(type(number) is int for number in (window, *(n for hole in holes for n in hole))):
        raise ValueError(f"demo: {expected} with integers, got {body[:80]!r}.")
    if not isinstance(sees, str):
        raise ValueError(f'demo: expected "sees" to be a word, got {body[:80]!r}.')
    return window, holes, sees


def open_server(path: str, port: int, num_windows: int, seed: int, input_path: str = "", record: int = 0) -> Server:
    """Loads a checkpoint and the episodes that are shown.

    Args:
      path: RUN or RUN/checkpoints/STEP.
      port: 0 is any free one.
      num_windows: of grids, or episodes of text, that the page offers.
      seed: chooses them.
      input_path: a file whose episodes they are; empty: the run's held-out ones.
      record: number of the first episode of that file.

    Raises:
      FileNotFoundError, ValueError: no checkpoint there, or no data. OSError: the port is taken.
    """
    server = Server(None, title_of(path), port)  # first: a taken port is told before a model is loaded
    try:
        reader = open_reader(path, Wanted(num_windows, seed, input_path, record))
        server.show(reader, reader.page(server.title))
    except BaseException:
        server.server_close()
        raise
    return server


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line and does what it asks."""
    terminal.accept_any_letter()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=paths.typed, required=True, help="run directory, or RUN/checkpoints/STEP")
    parser.add_argument("--port", type=int, default=8100, help="0: any free one")
    parser.add_argument("--idle_minutes", type=float, default=30.0, help="stops when nobody asked for so long")
    parser.add_argument("--num_windows", type=int, default=6, help="of grids, or episodes of text")
    parser.add_argument("--seed", type=int, default=0, help="chooses the windows")
    parser.add_argument("--input", type=paths.typed, default="", help="of text: a shard, or a log that ingest reads")
    parser.add_argument("--record", type=int, default=0, help="number of the first episode of it, from 0")
    parser.add_argument(
        "--output", type=paths.typed, default="", help="a page (.html) to write, answers and all; nothing is served"
    )
    options = parser.parse_args(arguments)
    if not 0 <= options.port <= 65_535:
        parser.error(f"--port: expected 0..65535, got {options.port}")
    if not (math.isfinite(options.idle_minutes) and options.idle_minutes > 0):
        parser.error(f"--idle_minutes: expected a number > 0, got {options.idle_minutes}")
    for name, least in (("num_windows", 1), ("record", 0)):
        if getattr(options, name) < least:
            parser.error(f"--{name}: expected at least {least}, got {getattr(options, name)}")
    shown = options.num_windows, options.seed, options.input, options.record
    with command.door("demo"):
        try:
            if options.output:
                title = title_of(options.checkpoint)
                files.write_whole(options.output, open_reader(options.checkpoint, Wanted(*shown)).written(title))
                return
            server = open_server(options.checkpoint, options.port, *shown)
        except (ValueError, OSError, ModuleNotFoundError) as error:
            sys.exit(f"demo: {error}")
        with server:
            print(f"http://{HOST}:{server.server_port}/   (ctrl-C ends it)", flush=True)
            server.stop_when_idle(60 * options.idle_minutes)
    print(f"Nobody asked for {options.idle_minutes:g} minutes; stopped.")


if __name__ == "__main__":
    process.prepare()
    main()
