"""Measures of any text: how probable, and how right, what one question asks is, by the role of the asked unit.

Each is a ratio of two sums over an episode, so episodes, questions or roles can be pooled by adding. All hidden tokens
are predicted at once: what stands in a unit is the likeliest token of each place, not a text that was generated.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from anyorder_jax.asking.targets import Prediction, Spans, Targets
from anyorder_jax.data.tokenization import Vocabulary
from anyorder_jax.data.units import text_of
from anyorder_jax.types import EVIDENCE, ROLES


class Measure(NamedTuple):
    """What a measure is. is_proportion: the numerator counts some of the things that the denominator counts."""

    is_proportion: bool
    about: str


MEASURES: Mapping[str, Measure] = {
    "nll_per_token": Measure(False, "nats, by asked token (a unit's first end token counts, later ones do not)"),
    "nll_per_character": Measure(False, "nats, by character of the asked text; any tokenizer's can be compared"),
    "nll_per_unit": Measure(False, "nats, by unit that is asked whole"),
    "token_accuracy": Measure(True, "asked tokens that are the likeliest"),
    "exact_line": Measure(True, "lines (or arguments of calls) that are asked whole and all right"),
    "exact_unit": Measure(True, "units that are asked whole and all right, end included"),
    "changed_line_nll_per_token": Measure(False, "of lines that the evidence of that role before does not contain"),
    "changed_line_token_accuracy": Measure(True, "of the same lines"),
    "changed_line_exact_line": Measure(True, "of the same lines"),
    "call_exact": Measure(True, "tool calls that are asked whole and equal as JSON, whatever the order of keys"),
    "call_name_accuracy": Measure(True, "those with the right name"),
    "call_argument_accuracy": Measure(True, "their arguments with the right value"),
}


class Measured(NamedTuple):
    """One measure of one role: its sums over each episode, float [E] each."""

    measure: str
    role: str
    numerator_E: np.ndarray
    denominator_E: np.ndarray


def measure(targets: Targets, prediction: Prediction, vocabulary: Vocabulary) -> list[Measured]:
    """Every measure that these targets and this predictor have, by role; one that counts nothing is left out.

    Args:
      targets: of one question.
      prediction: of one predictor; without probabilities it has no nll.
      vocabulary: turns its tokens into text.
    """
    num_episodes = int(targets.episode_T.max(initial=-1)) + 1
    calls = _calls(targets, prediction, vocabulary)
    found = []
    for kind in np.unique(targets.kind_T).tolist():
        sums = [*_of_tokens(targets, prediction, kind), *_of_spans(targets, prediction, kind)]
        sums += [call for call in calls if call[3] == kind]
        for name, top, bottom, _, episode in sums:
            parts = (np.bincount(episode, weights=x, minlength=num_episodes) for x in (top, bottom))
            measured = Measured(name, ROLES[kind], *parts)
            if measured.denominator_E.any():
                found.append(measured)
    return found


_Sums = tuple[str, np.ndarray, np.ndarray, int, np.ndarray]
"""(measure, numerators, denominators, kind, episodes): of single things, float or int [n] each."""


def _of_tokens(targets: Targets, prediction: Prediction, kind: int) -> Iterator[_Sums]:
    is_kind_T = targets.kind_T == kind
    is_right_T = prediction.chosen_T == targets.truth_T
    is_changed_T = is_kind_T & targets.is_changed_T

    def of(name: str, top_T: np.ndarray, bottom_T: np.ndarray, chosen_T: np.ndarray) -> _Sums:
        return name, top_T[chosen_T], bottom_T[chosen_T], kind, targets.episode_T[chosen_T]

    one_T = np.ones(len(is_kind_T))
    yield of("token_accuracy", is_right_T, one_T, is_kind_T)
    if kind in EVIDENCE:
        yield of("changed_line_token_accuracy", is_right_T, one_T, is_changed_T)
    if prediction.nll_T is not None:
        yield of("nll_per_token", prediction.nll_T, one_T, is_kind_T)
        yield of("nll_per_character", prediction.nll_T, targets.num_characters_T, is_kind_T)
        if kind in EVIDENCE:
            yield of("changed_line_nll_per_token", prediction.nll_T, one_T, is_changed_T)


def _of_spans(targets: Targets, prediction: Prediction, kind: int) -> Iterator[_Sums]:
    is_wrong_T = prediction.chosen_T != targets.truth_T

    def of(name: str, spans: Spans, top_S: np.ndarray, chosen_S: np.ndarray) -> _Sums:
        is_kind_S = (spans.kind_S == kind) & chosen_S
        return name, top_S[is_kind_S], np.ones(is_kind_S.sum()), kind, spans.episode_S[is_kind_S]

    for name, spans in (("exact_unit", targets.units), ("exact_line", targets.lines)):
        is_exact_S = _sum(spans, is_wrong_T) == 0
        yield of(name, spans, is_exact_S, np.ones(spans.num, bool))
        if name == "exact_line" and kind in EVIDENCE:
            yield of("changed_line_exact_line", spans, is_exact_S, _sum(spans, targets.is_changed_T) > 0)
    if prediction.nll_T is not None:
        yield of("nll_per_unit", targets.units, _sum(targets.units, prediction.nll_T), np.ones(targets.units.num, bool))


def _sum(spans: Spans, values_T: np.ndarray) -> np.ndarray:
    """float [S]: the sum over each span's tokens."""
    is_in_T = spans.of_T >= 0
    return np.bincount(spans.of_T[is_in_T], weights=values_T[is_in_T], minlength=spans.num)


def _calls(targets: Targets, prediction: Prediction, vocabulary: Vocabulary) -> list[_Sums]:
    """The measures of the tool calls among the units that are asked whole."""
    is_in_T = targets.units.of_T >= 0
    starts = np.searchsorted(targets.units.of_T[is_in_T], np.arange(1, targets.units.num))
    written_S = np.split(prediction.chosen_T[is_in_T], starts)
    columns: dict[tuple[str, int], list[tuple[int, int, int]]] = {}
    for s, text in enumerate(targets.text_S):
        call = parse_call(text)
        if call is None:
            continue
        ids = [i for i in written_S[s].tolist() if i >= 0]
        written = parse_call(text_of(ids, vocabulary))
        kind, episode = int(targets.units.kind_S[s]), int(targets.units.episode_S[s])
        for name, top, bottom in compare_calls(call, written):
            columns.setdefault((name, kind), []).append((top, bottom, episode))
    found = []
    for (name, kind), rows in columns.items():
        top_C, bottom_C, episode_C = np.array(rows).T
        found.append((name, top_C, bottom_C, kind, episode_C))
    return found


class Call(NamedTuple):
    """A tool call: its name, and each argument's value as JSON with sorted keys. rest: all else that it holds."""

    name: str
    arguments: Mapping[str, str]
    rest: str


def parse_call(text: str) -> Call | None:
    """The call that `{"name": ..., "arguments": {...}}` is; None for any other text."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content.get("name"), str) or not isinstance(content.get("arguments"), dict):
        return None
    arguments = {name: _canonical(value) for name, value in content["arguments"].items()}
    rest = {name: value for name, value in content.items() if name not in ("name", "arguments")}
    return Call(content["name"], arguments, _canonical(rest))


def compare_calls(truth: Call, written: Call | None) -> Sequence[tuple[str, int, int]]:
    """(measure, right, of how many) of one call; what is no call has nothing right."""
    num_right = sum(written.arguments.get(k) == v for k, v in truth.arguments.items()) if written else 0
    return (
        ("call_exact", int(written == truth), 1),
        ("call_name_accuracy", int(written is not None and written.name == truth.name), 1),
        ("call_argument_accuracy", num_right, len(truth.arguments)),
    )


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
