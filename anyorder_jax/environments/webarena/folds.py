"""Folds: the tasks of WebArena-Verified, the ids of its worlds, and the tasks of their splits.

    WebArena-all           test: all; nothing is trained
    WebArena-lite          test: the 165 tasks of WebArena-Lite; the others are trained
    WebArena-templates     test: all tasks of every fifth template, which training never meets in other words
    WebArena-new_gitlab    test: all tasks of a site, which training never meets (new_shopping, new_reddit, ...)

A task is its number in the benchmark, 0..811. Of the others one of twenty is for validation. Lists hold the tasks alone
whose sites have an address.
"""

from __future__ import annotations

import functools
import json
import zlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from anyorder_jax.environments import options

PREFIX = "WebArena-"
_LITE = """
    4 7 15 20 23 27 33 37 43 44 48 56 58 65 69 71 75 77 82 88 93 95 96 97 98 103 109 115 117 118 123 125 127 131
    135 139 144 149 155 156 157 162 167 169 173 182 190 196 202 205 211 215 220 221 225 227 235 236 240 247 250
    254 258 259 268 270 276 283 285 287 288 296 300 311 313 318 321 324 333 335 348 349 354 357 361 367 368 369
    374 376 381 382 383 384 386 387 392 401 404 415 419 423 426 431 440 448 454 458 464 466 470 476 485 488 491
    497 505 506 509 514 516 521 524 528 534 538 548 566 567 574 577 582 599 601 605 612 619 626 631 641 645 652
    657 668 673 678 682 686 693 704 710 714 720 729 733 741 745 748 760 762 768 791 798 809 811
    """
LITE = frozenset(_LITE.split())
"""WebArena-Lite (Liu et al., VisualAgentBench, arXiv 2408.06327): `old_task_id` of each task in
VAB-WebArena-Lite/new/test_webarena_lite.raw.json of https://github.com/THUDM/VisualAgentBench at commit 9055fc2. Its
own wording and answers differ in places from those of WebArena-Verified, which are used here."""

HELD_SITES = ("gitlab", "map", "reddit", "shopping", "shopping_admin", "wikipedia")
_TEMPLATES, _VALIDATION = 5, 20  # one of so many
BUDGET = 12_000
"""Characters of a page."""

OPTIONS: options.Known = {"budget": (1000, 200_000), "difference": options.FLAG, "stand_ins": options.FLAG}
"""What may stand behind an id: characters of a page; observations after the first say what changed; the tasks are those
that an oracle solves on our own sites in the place of the real ones."""


class Task(NamedTuple):
    """number: in the benchmark. starts: URLs with marks of sites. kind: RETRIEVE, MUTATE or NAVIGATE, which an agent is
    not told. evaluators: how many the scorer asks; 1: what is said alone counts. expected: of the first of them. entry:
    all of it, as it stands in the benchmark."""

    number: str
    sites: tuple[str, ...]
    intent: str
    starts: tuple[str, ...]
    template: int
    kind: str
    evaluators: int
    expected: Mapping[str, Any]
    entry: Mapping[str, Any]


@functools.cache
def read(path: Path) -> Mapping[str, Task]:
    """The tasks of a file in the benchmark's form, by their numbers, in its order.

    Raises:
      ValueError: for a file that is none; says where.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        tasks = [_task(entry) for entry in found]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ValueError(
            f"{path}: expected a list of tasks with task_id, sites, start_urls, intent and eval "
            f"({type(error).__name__}: {error}). Is it webarena-verified.json, whole?"
        ) from None
    return {task.number: task for task in tasks}


def _task(entry: Mapping[str, Any]) -> Task:
    expected = entry["eval"][0]["expected"]
    return Task(
        str(entry["task_id"]),
        tuple(entry["sites"]),
        entry["intent"],
        tuple(entry["start_urls"]),
        int(entry["intent_template_id"]),
        str(expected["task_type"]).upper(),
        len(entry["eval"]),
        expected,
        entry,
    )


def ids() -> tuple[str, ...]:
    """WebArena-all, -lite, -templates, and one for each site."""
    return tuple(PREFIX + name for name in ("all", "lite", "templates", *(f"new_{site}" for site in HELD_SITES)))


def split(environment_id: str, tasks: Mapping[str, Task], sites: Collection[str]) -> dict[str, Sequence[str]]:
    """The tasks of an id's train, validation and test split.

    Args:
      environment_id: one of `ids`, with options or without.
      tasks: of the benchmark.
      sites: that have an address.
    """
    name = options.plain(environment_id).removeprefix(PREFIX)
    found: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for task in tasks.values():
        if set(task.sites) <= set(sites):
            rest = "train" if _share(f"task {task.number}", _VALIDATION) else "validation"
            found["test" if _is_test(name, task) else rest].append(task.number)
    return dict(found)


def _is_test(name: str, task: Task) -> bool:
    if name == "all":
        return True
    if name == "lite":
        return task.number in LITE
    if name == "templates":
        return not _share(f"template {task.template}", _TEMPLATES)
    return name.removeprefix("new_") in task.sites


def _share(text: str, of: int) -> int:
    return zlib.crc32(text.encode()) % of
