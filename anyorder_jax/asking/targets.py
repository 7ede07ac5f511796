"""Targets: all tokens that one question asks, as a flat table, and what a predictor says about them.

End tokens after a unit's first are hidden too, but not asked: they say nothing that the first did not say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from anyorder_jax.asking.questions import Ask
from anyorder_jax.data.tokenization import Vocabulary
from anyorder_jax.data.units import text_of
from anyorder_jax.types import EVIDENCE, Field, Tokenised

LINE = 1
"""Row of `Tokenised.slots_GL` that numbers lines (and arguments of calls)."""


class Prediction(NamedTuple):
    """For each target: nll_T, float [T], -log p(truth) in nats (None: no probabilities); chosen_T, int [T], the token
    that it would write there, -1 for none; confidence_T, float [T], the probability of that (None: not known)."""

    nll_T: np.ndarray | None
    chosen_T: np.ndarray
    confidence_T: np.ndarray | None = None


class Spans(NamedTuple):
    """S units or lines that are asked as a whole, in order. of_T: int [T], the span of each target, -1 for none.
    episode_S, kind_S: of each."""

    of_T: np.ndarray
    episode_S: np.ndarray
    kind_S: np.ndarray

    @property
    def num(self) -> int:
        """How many spans there are, S."""
        return len(self.episode_S)


@dataclass(frozen=True)
class Asked:
    """T asked tokens of `asks`: all that a predictor is told.

    ask_T, unit_T, position_T: where each stands, int [T], in order. offset_T: its place in its unit. truth_T: the id.
    kind_T: `Kind` of its unit. episode_T.
    """

    asks: Sequence[Ask]
    ask_T: np.ndarray
    unit_T: np.ndarray
    position_T: np.ndarray
    offset_T: np.ndarray
    truth_T: np.ndarray
    kind_T: np.ndarray
    episode_T: np.ndarray


@dataclass(frozen=True)
class Targets(Asked):
    """Asked tokens of text, and what they make up.

    is_changed_T: in a line of evidence that is not in the unit of that kind before it. num_characters_T: of the text of
    a run of asked tokens, at the run's first one, else 0. units, lines: those that are asked whole; a line holds more
    than an end token. text_S: of each of these units.
    """

    is_changed_T: np.ndarray
    num_characters_T: np.ndarray
    units: Spans
    lines: Spans
    text_S: Sequence[str]


def is_asked(ask: Ask) -> np.ndarray:
    """bool [L]: the targets without the ends that only fill a block."""
    return ask.hidden.is_target_L & (ask.example.field_L != Field.END)


Of = Callable[[Ask, np.ndarray], np.ndarray]
"""(ask, the places that it asks) -> a value for each."""


def positions_of(asks: Sequence[Ask]) -> list[np.ndarray]:
    """int [n] of each ask: the places that it asks, in order."""
    return [np.flatnonzero(is_asked(ask)) for ask in asks]


def gather(asks: Sequence[Ask], positions_A: Sequence[np.ndarray], of: Of, dtype: type = np.int64) -> np.ndarray:
    """[T]: what `of` says of each ask's places, one ask after the other.

    Args:
      asks: what is asked.
      positions_A: the places of each (`positions_of`).
      of: a value for each place.
      dtype: of the values.
    """
    parts: list[np.ndarray] = [np.asarray(of(ask, p), dtype) for ask, p in zip(asks, positions_A, strict=True)]
    return np.concatenate(parts) if parts else np.zeros(0, dtype)


def collect_asked(asks: Sequence[Ask]) -> Asked:
    """The table of all asked tokens."""
    positions_A = positions_of(asks)

    def column(of: Of) -> np.ndarray:
        return gather(asks, positions_A, of)

    return Asked(
        asks=asks,
        ask_T=np.repeat(np.arange(len(asks)), list(map(len, positions_A))).astype(np.int64),
        unit_T=column(lambda ask, p: ask.example.slots_GL[0][p]),
        position_T=column(lambda ask, p: p),
        offset_T=column(lambda ask, p: p - first_places(ask.example)[ask.example.slots_GL[0][p]]),
        truth_T=column(lambda ask, p: ask.example.tokens_L[p]),
        kind_T=column(lambda ask, p: ask.example.kind_U[ask.example.slots_GL[0][p]]),
        episode_T=column(lambda ask, p: np.full(len(p), ask.episode)),
    )


def collect_targets(asks: Sequence[Ask], vocabulary: Vocabulary) -> Targets:
    """The table of all targets of the asks, of text."""
    asked, positions_A = collect_asked(asks), positions_of(asks)
    truth_T, place = asked.truth_T, (asks, positions_A)
    units = _spans(*place, 0, asked.kind_T, asked.episode_T, np.ones(len(truth_T), bool))
    starts = np.searchsorted(units.of_T[units.of_T >= 0], np.arange(units.num + 1))
    ids = np.split(truth_T[units.of_T >= 0], starts[1:-1]) if units.num else []
    return Targets(
        **vars(asked),
        is_changed_T=gather(*place, lambda ask, p: changed_lines(ask.example, p, vocabulary)[p], bool),
        num_characters_T=gather(*place, lambda ask, p: _run_lengths(ask.example, p, vocabulary)),
        units=units,
        lines=_spans(*place, LINE, asked.kind_T, asked.episode_T, truth_T != vocabulary.end_id),
        text_S=[text_of(span.tolist(), vocabulary) for span in ids],
    )


def first_places(example: Tokenised) -> np.ndarray:
    """int [U]: where each unit's first token (after its frame) stands."""
    unit_L = example.slots_GL[0]
    first_U = np.full(len(example.kind_U), len(example), np.int64)
    places = np.flatnonzero(unit_L >= 0)
    np.minimum.at(first_U, unit_L[places], places)
    return first_U


def changed_lines(example: Tokenised, places: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """bool [L]: tokens of those lines of the units at `places` (int [n]) that the unit of the same kind before them in
    the context does not contain: all of them, where there is none before. Of evidence only, False elsewhere."""
    is_changed_L = np.zeros(len(example), bool)
    units = np.unique(example.slots_GL[0, places])
    for unit in units[np.isin(example.kind_U[units], EVIDENCE)].tolist():
        before = np.flatnonzero(example.kind_U[:unit] == example.kind_U[unit])
        known = {text for _, text in _lines(example, before[-1], vocabulary)} if len(before) else set()
        for line, text in _lines(example, unit, vocabulary):
            is_changed_L[line] = text not in known
    return is_changed_L


def _lines(example: Tokenised, unit: int, vocabulary: Vocabulary) -> list[tuple[np.ndarray, str]]:
    """(places, text without white space around it) of each line of a unit."""
    places = np.flatnonzero((example.slots_GL[0] == unit) & (example.tokens_L != vocabulary.end_id))
    lines = np.split(places, np.flatnonzero(np.diff(example.slots_GL[LINE, places])) + 1) if len(places) else []
    return [(line, vocabulary.decode_text(example.tokens_L[line].tolist()).strip()) for line in lines]


def _run_lengths(example: Tokenised, places: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """int [n]: at the first place of each run of asked tokens of one unit the characters of its text, else 0."""
    found = np.zeros(len(places), np.int64)
    is_first = (np.diff(places, prepend=-2) > 1) | (np.diff(example.slots_GL[0, places], prepend=-1) != 0)
    firsts = np.flatnonzero(is_first)
    for first, run in zip(firsts, np.split(places, firsts[1:]), strict=True) if len(firsts) else ():
        found[first] = len(text_of(example.tokens_L[run].tolist(), vocabulary))
    return found


def _spans(
    asks: Sequence[Ask], positions_A: Sequence[np.ndarray], row: int, kind_T: np.ndarray, episode_T: np.ndarray,
    is_content_T: np.ndarray,
) -> Spans:  # fmt: skip
    """The spans of a granularity that are asked whole and hold a token of `is_content_T`."""
    is_whole_T = np.zeros(len(kind_T), bool)
    slot_T = np.zeros(len(kind_T), np.int64)
    start = num = 0
    for ask, places in zip(asks, positions_A, strict=True):
        slots_L = ask.example.slots_GL[row]
        is_own_L = (slots_L >= 0) & (ask.example.field_L != Field.END)
        full = np.bincount(slots_L[is_own_L], minlength=slots_L.max(initial=-1) + 1)
        mine = slice(start, start + len(places))
        asked = np.bincount(slots_L[places], minlength=len(full))
        is_whole_T[mine] = (asked == full)[slots_L[places]]
        slot_T[mine] = slots_L[places] + num
        start, num = mine.stop, num + len(full)
    counts = np.bincount(slot_T, weights=is_content_T, minlength=num) if num else np.zeros(0)
    is_in_T = is_whole_T & (counts[slot_T] > 0)
    _, first_S, of = np.unique(slot_T[is_in_T], return_index=True, return_inverse=True)
    of_T = np.full(len(kind_T), -1)
    of_T[is_in_T] = of
    return Spans(of_T, episode_T[is_in_T][first_S], kind_T[is_in_T][first_S])
