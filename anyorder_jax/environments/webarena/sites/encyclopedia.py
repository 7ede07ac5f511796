"""Encyclopedia: a few pages of ours in a ZIM file, served by `kiwix-serve` as WebArena's Wikipedia is.

    pages  ─zimwriterfs─►  a ZIM file in memory  ─kiwix-serve─►  http://127.0.0.1:PORT/BOOK/index.html

Both programs are Debian's (zim-tools, kiwix-tools). Where one is missing there is no encyclopedia, and the reason is
told. Nothing is left on the disk, and the server ends within a second of this process, however that ends.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path

from anyorder_jax.environments.webarena.sites import encyclopedia_facts as facts
from anyorder_jax.environments.webarena.sites.markup import Markup, link, listing, table, tag

PROGRAMS = {"zimwriterfs": "zim-tools", "kiwix-serve": "kiwix-tools"}
"""Name -> Debian's package."""
START_SECONDS, MAKE_SECONDS = 10.0, 60.0
_TRIES = 5


def missing() -> str:
    """Why there can be no encyclopedia; "" where there can be one."""
    lacking = [f"{name} (Debian: {package})" for name, package in PROGRAMS.items() if not shutil.which(name)]
    if not lacking and not hasattr(os, "memfd_create"):
        lacking = ["files in memory (Linux)"]
    return f"needs {' and '.join(lacking)}" if lacking else ""


def _pages() -> dict[str, Markup]:
    """File name -> page."""
    rows = [
        (title, year, "won" if is_winner else "no", "nominated" if is_nominated else "no")
        for title, (year, is_winner, is_nominated) in facts.FILMS.items()
    ]
    films = table(("Film", "Year", "Academy Award", "BAFTA Award"), rows)
    career = [tag("h3", one) for one in facts.CAREER]
    name = f"{facts.PERSON.replace(' ', '_')}.html"
    person = _page(
        facts.PERSON, tag("p", f"{facts.PERSON} makes films."), tag("h2", "Career"), *career, tag("h2", "Films"), films
    )
    return {"index.html": _page("Encyclopedia", listing([link(facts.PERSON, name)])), name: person}


def _page(title: str, *body: object) -> Markup:
    return tag(
        "html", tag("head", tag("meta", charset="utf-8"), tag("title", title)), tag("body", tag("h1", title), *body)
    )


def _picture(side: int = 48) -> bytes:
    """A grey square in PNG, which the format asks for."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + b"\x88" * side) * side
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@functools.cache
def zim() -> bytes:
    """The encyclopedia's file.

    Raises:
      RuntimeError: it cannot be made; says what the program said.
    """
    about = {
        "title": "Encyclopedia",
        "description": "A few pages",
        "creator": "anyorder_jax",
        "publisher": "anyorder_jax",
    }
    with tempfile.TemporaryDirectory(prefix="anyorder-zim-") as folder:
        pages = Path(folder, "pages")
        pages.mkdir()
        pages.joinpath("picture.png").write_bytes(_picture())
        for name, page in _pages().items():
            pages.joinpath(name).write_text(page, encoding="utf-8")
        options = [f"--{key}={value}" for key, value in about.items()]
        command = ["zimwriterfs", "--welcome=index.html", "--illustration=picture.png", "--language=eng", *options]
        made = Path(folder, "encyclopedia.zim")
        done = subprocess.run(
            [*command, str(pages), str(made)], capture_output=True, timeout=MAKE_SECONDS, stdin=subprocess.DEVNULL
        )
        if done.returncode or not made.is_file():
            raise RuntimeError(
                f"webarena: zimwriterfs ended with {done.returncode}: {done.stderr.decode(errors='replace')[-500:]}"
            )
        return made.read_bytes()


@contextlib.contextmanager
def started() -> Iterator[str]:
    """The address of the encyclopedia, while it is served.

    Raises:
      RuntimeError: it cannot be made, or does not start.
    """
    held = os.memfd_create("encyclopedia")
    server: subprocess.Popen[bytes] | None = None
    try:
        with open(os.dup(held), "wb") as file:
            file.write(zim())
        for _ in range(_TRIES):  # another program may take the port first
            port = _free_port()
            server = _serve(held, port)
            address = f"http://127.0.0.1:{port}/{held}"  # the book is named for its file
            if _answers(server, f"{address}/index.html"):
                break
            _end(server)
        else:
            raise RuntimeError(f"webarena: kiwix-serve does not answer within {START_SECONDS:g} seconds.")
        yield address
    finally:
        os.close(held)
        if server is not None:
            _end(server)


def _serve(file: int, port: int) -> subprocess.Popen[bytes]:
    options = ["--address=127.0.0.1", f"--port={port}", f"--attachToProcess={os.getpid()}", "--threads=2"]
    return subprocess.Popen(
        ["kiwix-serve", *options, f"/proc/self/fd/{file}"],
        pass_fds=[file],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _answers(server: subprocess.Popen[bytes], url: str) -> bool:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and server.poll() is None:
        with contextlib.suppress(OSError, urllib.error.URLError), urllib.request.urlopen(url, timeout=2) as page:
            return bool(page.status == 200)
        time.sleep(0.05)
    return False


def _end(server: subprocess.Popen[bytes]) -> None:
    server.kill()
    server.wait()
