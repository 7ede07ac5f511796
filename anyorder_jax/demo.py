"""Demo: hide what you click in a test episode and see what a checkpoint puts there, in the browser, on this machine.

    python -m anyorder_jax.demo --checkpoint=runs/any_order [--port=8100 --idle_minutes=30 --num_windows=6 --seed=0]
    python -m anyorder_jax.demo --checkpoint=runs/own_data [--input=logs.jsonl --record=0]

Of a run of grids the page shows windows of test episodes, of a run of text whole episodes: its held-out ones, or those
of --input, a shard or a log in any of the formats that ingest reads (docs/own_data.md), from number --record on.

Serves 127.0.0.1 only, and stops by itself when nobody has asked for a while.
"""

from __future__ import annotations

if __name__ == "__main__":
    from anyorder_jax import command

    command.begin("demo")  # imports take seconds

import argparse
import contextlib
import itertools
import json
import math
import re
import socket
import sys
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from anyorder_jax import command, keys, paths, process, run_directory, terminal, weights
from anyorder_jax.acting.generator import Generator
from anyorder_jax.asking.evaluation import choose_split
from anyorder_jax.asking.run import is_of_text
from anyorder_jax.config import Config
from anyorder_jax.data import sources
from anyorder_jax.evaluation import reading, viewer
from anyorder_jax.evaluation.held_out import open_held_out
from anyorder_jax.evaluation.likelihood import Model
from anyorder_jax.ingestion import episodes
from anyorder_jax.model.config import ModelConfig
from anyorder_jax.provenance import with_data_of
from anyorder_jax.task import config_of_part, open_task, source_configs

HOST = "127.0.0.1"
MAX_REQUEST_BYTES = 100_000
TIMEOUT_SECONDS = 20
"""How long a request may take to arrive."""
EPISODES = 60
"""Test episodes that the windows are chosen from."""


class Reader(Protocol):
    """Windows and a model that fills holes in them: `evaluation.viewer.Reader` of grids, `evaluation.reading.Reader` of
    text."""

    def page(self, title: str) -> str:
        """What is sent to the browser."""
        ...

    def answer(self, questions: Sequence[tuple[int, Sequence[tuple[int, ...]]]], sees: str) -> list[dict[str, Any]]:
        """An answer to the holes of each question, (window, holes); ValueError where there are none such."""
        ...


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

    def __init__(self, reader: Reader | None, title: str, port: int) -> None:
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

    def show(self, reader: Reader) -> None:
        """Takes the windows and the model that answer from now on."""
        self.reader = reader
        self.page = reader.page(self.title).encode(errors="surrogateescape")
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
                (answers,) = self.server.reader.answer([(window, holes)], sees)
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


class Wanted(NamedTuple):
    """What the page offers: `num` windows or episodes, drawn with `seed`; or those of the file `input`, from number
    `record` on."""

    num: int
    seed: int
    input: str = ""
    record: int = 0


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
    run, step = run_directory.find(path)
    title = f"{run.name}, step {step}" if Path(paths.absolute(path)) != run else run.name
    server = Server(None, title, port)  # first: a taken port is told before a model is loaded
    try:
        loaded = weights.load_for_inference(path)
        config = with_data_of(loaded[0], run, run_directory.read_meta(path)["data"])
        wanted = Wanted(num_windows, seed, input_path, record)
        of_text = _text_of_input if wanted.input else _text_held_out if is_of_text(_shown_source(config)) else None
        server.show(of_text(config, *loaded[1:], wanted) if of_text else _grids(config, *loaded[1:], wanted))
    except BaseException:
        server.server_close()
        raise
    return server


def _shown_source(config: Config) -> Config:
    """The configuration of a mixture's first source of grids, or else of its first one, by itself; any other as it
    is."""
    parts = list(source_configs(config).values()) if config.data.sources else [config]
    return next((one for one in parts if not is_of_text(one)), parts[0])


def _grids(config: Config, model_config: ModelConfig, params: Any, tokenizer: Path, wanted: Wanted) -> Reader:
    config = _shown_source(config)
    held_out = open_held_out(config, tokenizer, EPISODES, None)
    model = Model(config, model_config, params, held_out.task.vocabulary, held_out.actions, held_out.row_length)
    return viewer.Reader(held_out, model, viewer.windows(held_out, wanted.seed, wanted.num))


def _text_held_out(config: Config, model_config: ModelConfig, params: Any, tokenizer: Path, wanted: Wanted) -> Reader:
    """Episodes drawn from the first ones of the split that is asked about."""
    config = _shown_source(config)
    task = open_task(config, tokenizer)
    split, _ = choose_split(task.directory)
    first = sources.iterate_trajectories(task.directory, split, on_bad=lambda _: None)
    known = list(itertools.islice(first, EPISODES))
    if not known:
        raise ValueError(f"{task.directory}: the {split} split has no episode to show. Name a log: --input=logs.jsonl.")
    drawn = keys.generator(wanted.seed, "demo").permutation(len(known))[: wanted.num]
    chosen = [known[i] for i in sorted(drawn.tolist())]
    about = f"{len(chosen)} episodes of the {split} split of {task.environment or task.directory}."
    return reading.Reader(Generator(config, model_config, params, task), chosen, about)


def _text_of_input(config: Config, model_config: ModelConfig, params: Any, tokenizer: Path, wanted: Wanted) -> Reader:
    """Episodes of a file."""
    chosen = episodes.read(wanted.input, wanted.record, wanted.num)
    task = open_task(config, tokenizer)
    if task.parts:
        task = task.part_of(chosen[0].source.get("environment", ""))
        config = config_of_part(config, task)
    if not task.codec.is_running_text:
        raise ValueError("--input: this run's episodes are grids, and the page shows those of its data. Leave it out.")
    last = wanted.record + len(chosen) - 1
    about = f"Episodes {wanted.record} to {last} of {wanted.input}."
    return reading.Reader(Generator(config, model_config, params, task), chosen, about)


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
    options = parser.parse_args(arguments)
    if not 0 <= options.port <= 65_535:
        parser.error(f"--port: expected 0..65535, got {options.port}")
    if not (math.isfinite(options.idle_minutes) and options.idle_minutes > 0):
        parser.error(f"--idle_minutes: expected a number > 0, got {options.idle_minutes}")
    for name, least in (("num_windows", 1), ("record", 0)):
        if getattr(options, name) < least:
            parser.error(f"--{name}: expected at least {least}, got {getattr(options, name)}")
    with command.door("demo"):
        try:
            shown = options.num_windows, options.seed, options.input, options.record
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
