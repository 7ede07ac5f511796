"""Paths as people type them: one rule, applied at the door of every command, and commands to copy.

    typed                          means
    ~/runs/x                       HOME/runs/x (bash expands no ~ behind "=")
    runs/x, ../runs/x              from the working directory, and absolute from there on
    gs://BUCKET/x, any other URL   as it is where a bucket will do, else refused (it would become a folder "gs:")

What a run remembers is absolute, so that it is found from any directory. What was moved along with a run is looked for
beside it (`find`).
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
from collections.abc import Callable
from pathlib import Path

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a URL (gs://...), which is left alone."""
    return _URL.match(os.fspath(path)) is not None


def absolute(path: str | os.PathLike[str]) -> str:
    """The path with ~ expanded, from the root, without "." and ".."; "" and URLs as they are.

    ".." behind a link is the parent of where the link leads, as the file system sees it; other links stay.

    Raises:
      ValueError: for the ~ of a user that there is not.
    """
    text = os.fspath(path)
    if not text or is_remote(text):
        return text
    expanded = os.path.expanduser(text)
    if expanded.startswith("~"):
        user = expanded.partition("/")[0]
        raise ValueError(
            f"{text}: expected ~ (your own directory) or ~NAME of a user of this machine, got {user}. A directory of "
            f"that name is written ./{text}."
        )
    parts = Path(os.getcwd(), expanded).parts
    if ".." in parts:
        end = len(parts) - parts[::-1].index("..")
        parts = (*Path(os.path.realpath(Path(*parts[:end]))).parts, *parts[end:])
    return str(Path(*parts))


def on_disk(path: str | os.PathLike[str]) -> str:
    """`absolute`, of what must lie on a disk.

    Raises:
      ValueError: as `absolute`, and for a URL.
    """
    if is_remote(path):
        raise ValueError(f"{path}: expected a path on a disk of this machine, got a URL. Copy it here, or mount it.")
    return absolute(path)


def typed(text: str) -> str:
    """`on_disk`, as the `type=` of an argparse option."""
    try:
        return on_disk(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def shown(path: str | os.PathLike[str]) -> str:
    """The path as it is short: from the working directory when it lies below it."""
    try:
        return os.fspath(Path(path).relative_to(os.getcwd())) if not is_remote(path) else os.fspath(path)
    except (ValueError, OSError):
        return os.fspath(path)


def command(module: str, *arguments: str) -> str:
    """A command line to copy, quoted where a shell needs it."""
    return shlex.join(["python", "-m", module, *arguments])


def can_be_made(path: str | os.PathLike[str]) -> bool:
    """Whether something is there, or its nearest folder that is there may be written."""
    place = Path(absolute(path))
    there = next((folder for folder in (place, *place.parents) if folder.exists()), place)
    return there == place or os.access(there, os.W_OK)


def find(
    path: str | os.PathLike[str], run: str | os.PathLike[str], is_it: Callable[[Path], bool] = os.path.exists
) -> str:
    """Where something that a run remembers lies now: the place itself, else the same one beside the run.

        remembered  /old/project/data/goto     run  /new/project/runs/x
        tried       /old/project/data/goto, /new/project/runs/ + old/project/data/goto, ..., data/goto, goto,
                    then the same below /new/project/, where data/goto is found

    Args:
      path: as the run's configuration has it (relative in runs of version 0.1.0: from the working directory).
      run: the run directory.
      is_it: whether a place beside the run is the one that is meant.

    Returns:
      The place, absolute; the remembered one when it is nowhere.
    """
    here = absolute(path)
    if not here or is_remote(here) or os.path.exists(here):
        return here
    parts = [part for part in Path(path).parts if part not in ("/", "..")]
    for folder in Path(absolute(run)).parents:
        for start in range(len(parts) if folder != folder.parent else 0):
            candidate = folder.joinpath(*parts[start:])
            if is_it(candidate):
                return str(candidate)
    return here
