"""Folds: the kinds of tasks of MiniWoB++, the ids of its worlds, and their lists of tasks."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from anyorder_jax.environments import options

PREFIX = "MiniWoB-"
_NAMES = """
    ascending-numbers bisect-angle book-flight-nodelay book-flight button-delay buy-ticket chase-circle
    choose-date-easy choose-date-medium choose-date-nodelay choose-date choose-list circle-center
    click-button-sequence click-button click-checkboxes-large click-checkboxes-soft click-checkboxes-transfer
    click-checkboxes click-collapsible-2-nodelay click-collapsible-2 click-collapsible-nodelay
    click-collapsible click-color click-dialog-2 click-dialog click-link click-menu-2 click-menu click-option
    click-pie-nodelay click-pie click-scroll-list click-shades click-shape click-tab-2-easy click-tab-2-hard
    click-tab-2-medium click-tab-2 click-tab click-test-2 click-test-transfer click-test click-widget
    copy-paste-2 copy-paste count-shape count-sides daily-calendar drag-box drag-circle drag-cube
    drag-items-grid drag-items drag-shapes-2 drag-shapes drag-single-shape drag-sort-numbers draw-circle
    draw-line email-inbox-delete email-inbox-forward-nl-turk email-inbox-forward-nl email-inbox-forward
    email-inbox-important email-inbox-nl-turk email-inbox-noscroll email-inbox-reply email-inbox-star-reply
    email-inbox enter-date enter-password enter-text-2 enter-text-dynamic enter-text enter-time find-greatest
    find-midpoint find-word focus-text-2 focus-text form-sequence-2 form-sequence-3 form-sequence
    generate-number grid-coordinate guess-number highlight-text-2 highlight-text hot-cold hover-shape
    identify-shape login-user-popup login-user moving-items multi-layouts multi-orderings navigate-tree
    number-checkboxes odd-or-even order-food phone-book read-table-2 read-table resize-textarea right-angle
    scroll-text-2 scroll-text search-engine sign-agreement simon-says simple-algebra simple-arithmetic
    social-media-all social-media-some social-media stock-market terminal text-editor text-transform
    tic-tac-toe unicode-test use-autocomplete-nodelay use-autocomplete use-colorwheel-2 use-colorwheel
    use-slider-2 use-slider use-spinner visual-addition
    """
KINDS = tuple(_NAMES.split())
"""The pages of the package."""

HELD_OUT = (
    "click-button-sequence", "click-checkboxes-transfer", "click-collapsible-2", "click-tab-2-hard",
    "email-inbox-star-reply", "enter-text-2", "enter-time", "focus-text-2", "form-sequence-2", "login-user-popup",
    "read-table-2", "use-slider-2",
)  # fmt: skip
"""Kinds with an expert that are kept for tests: similar ones are trained, these never."""

SEEDS = {"train": range(1000), "validation": range(10_000, 10_100), "test": range(20_000, 20_100)}
"""Of every kind. Any other number is a task too, but of no split."""


class Options(NamedTuple):
    """How a page is shown and disturbed. is_difference: observations after the first say what changed. distractors:
    elements without use that are added. is_renumbered: elements have drawn numbers. dropped: share of lines that are
    left out of each observation, in [0, 1). has_popup: a notice covers the page after a few actions, until it is
    closed. click_fails: one of the first clicks does nothing."""

    is_difference: bool = False
    distractors: int = 0
    is_renumbered: bool = False
    dropped: float = 0.0
    has_popup: bool = False
    click_fails: bool = False


OPTIONS: options.Known = {
    "difference": options.FLAG, "distractors": ("3", "6", "12"), "renumbered": options.FLAG,
    "dropped": ("5", "10", "20"), "popup": options.FLAG, "failing_click": options.FLAG,
}  # fmt: skip
"""What may stand behind an id; `dropped` in per cent."""


def groups() -> Mapping[str, tuple[str, ...]]:
    """Name in an id -> kinds: all, those with an expert, the same without the held-out ones, these, and each alone."""
    from anyorder_jax.environments.miniwob.experts import EXPERTS

    solved = tuple(kind for kind in KINDS if kind in EXPERTS)
    trained = tuple(kind for kind in solved if kind not in HELD_OUT)
    return {"all": KINDS, "experts": solved, "trained": trained, "held_out": HELD_OUT, **{k: (k,) for k in KINDS}}


def ids() -> tuple[str, ...]:
    """MiniWoB-all, -experts, -trained, -held_out, -click-button, ..."""
    return tuple(f"{PREFIX}{group}" for group in groups())


def split_id(environment_id: str) -> tuple[tuple[str, ...], Options]:
    """The kinds and the options of an id. Raises ValueError for options that a page has not."""
    found = options.read(environment_id, OPTIONS)
    group = options.plain(environment_id).removeprefix(PREFIX)
    return groups()[group], Options(
        is_difference="difference" in found,
        distractors=int(found.get("distractors", 0)),
        is_renumbered="renumbered" in found,
        dropped=int(found.get("dropped", 0)) / 100,
        has_popup="popup" in found,
        click_fails="failing_click" in found,
    )


def tasks(environment_id: str) -> Mapping[str, Sequence[str]]:
    """The tasks of every split, in the order in which they are collected: the first seed of each kind, then the second
    of each, so that a few episodes are of all kinds."""
    kinds, _ = split_id(environment_id)
    return {
        split: [f"{kind}/{seed}" for seed, kind in itertools.product(seeds, kinds)] for split, seeds in SEEDS.items()
    }


def split_task(environment_id: str, task: str) -> tuple[str, int]:
    """Kind and seed of a task. Raises ValueError for a text that is none of this id."""
    kind, _, seed = task.partition("/")
    kinds, _ = split_id(environment_id)
    if kind in kinds and seed.isascii() and seed.isdecimal() and len(seed) < 10:
        return kind, int(seed)
    shown = ", ".join(kinds[:3]) + (", ..." if len(kinds) > 3 else "")
    raise ValueError(f"miniwob: expected KIND/SEED of {shown} as task, such as {kinds[0]}/0, got {task!r}")
