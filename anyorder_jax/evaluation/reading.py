"""Reading: episodes of text as a page draws them, and what the model puts into holes that a reader makes.

    window    {"title", "levels", "units": [{"kind", "step", "is_asked", "num_arguments", "lines": [[[token, ...]]]}]}
    hole      a place (`acting.filling`): [unit], [unit, line] or [unit, line, word]
    answer    {"holes": [{"place", "tokens", "text", "was", "is_equal", "p"}], "seen", "passes"}
    token     [text (None: the unit ends here), probability when it was accepted, first look]

A unit's lines hold its words, and those the texts of their tokens: what is hidden is tokens, so they are what is drawn.
num_arguments: of a tool call; its lines 1, 2, ... are the arguments. The first look is what the model says while every
hole is open: its TOP likeliest tokens [[text, probability], ...], and last the one that stood there.

`reading.html` draws it.
"""

from __future__ import annotations

import html
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anyorder_jax.acting import filling
from anyorder_jax.acting.generator import Answer, Generator
from anyorder_jax.data import units
from anyorder_jax.data.tokenization import Vocabulary
from anyorder_jax.evaluation import page
from anyorder_jax.rendering.text import TextRenderer
from anyorder_jax.types import Field, Kind, Tokenised, Trajectory

TOP = 3
MAX_LOG_P = 2**26
"""Numbers (256 MB) of the first look; a hole with more of them goes without."""

FRAGMENT = Path(__file__).with_name("reading.html")

Place = tuple[int, ...]


class Reader:
    """Reads episodes and answers holes in them.

    Args:
      generator: fills holes.
      episodes: of its task.
      about: where they are from, for the page.

    Raises:
      ValueError: an episode that the run's renderer cannot write, by its id.
    """

    def __init__(self, generator: Generator, episodes: Sequence[Trajectory], about: str) -> None:
        self._generator, self._episodes, self._about = generator, episodes, about
        self._vocabulary, task = generator.task.vocabulary, generator.task
        self._examples = []
        for episode in episodes:
            try:
                self._examples.append(units.tokenise(episode, task.codec, task.vocabulary, task.layout))
            except ValueError as error:
                raise ValueError(f"episode {episode.id}: {error}") from error

    def page(self, title: str) -> str:
        """The page that a server sends, and answers."""
        return reading_page(title, self._about, self.described())

    def written(self, title: str) -> str:
        """A page of its own: the answers of every unit that is asked in training, and every line of it, are in it."""
        windows = self.described()
        for number, window in enumerate(windows):
            window["answers"] = {}
            for place in single_places(window):
                try:
                    (answer,) = self.answer([(number, [place])])
                except ValueError as error:  # it does not fit into a context
                    answer = {"error": str(error)}
                window["answers"][".".join(map(str, place))] = answer
        return reading_page(title, self._about, windows, is_live=False)

    def described(self) -> list[dict[str, Any]]:
        """Every episode, as the page draws it."""
        found = []
        for number, (episode, example) in enumerate(zip(self._episodes, self._examples, strict=True), start=1):
            found.append({
                "title": f"{number}. {_title(episode)}", "id": episode.id, "levels": example.levels,
                "units": [self._unit(example, u) for u in range(len(example.kind_U))],
            })  # fmt: skip
        return found

    def _unit(self, example: Tokenised, unit: int) -> dict[str, Any]:
        codec, (line_L, word_L) = self._generator.task.codec, example.slots_GL[1:3]
        is_end_L = np.isin(example.tokens_L, list(self._vocabulary.frames.end_ids)) | (example.field_L == Field.END)
        places = np.flatnonzero((example.slots_GL[0] == unit) & ~is_end_L)
        texts = token_texts(example.tokens_L[places].tolist(), self._vocabulary)
        pieces = zip(line_L[places].tolist(), word_L[places].tolist(), texts, strict=True)
        lines = [
            [[text for _, _, text in word] for _, word in itertools.groupby(line, key=lambda piece: piece[1])]
            for _, line in itertools.groupby(pieces, key=lambda piece: piece[0])
        ]
        kind, step = Kind(int(example.kind_U[unit])), int(example.step_U[unit])
        parts: list[str] = []
        if isinstance(codec, TextRenderer):
            text = units.text_of(example.tokens_L[places].tolist(), self._vocabulary)
            parts = codec.call_parts(codec.unit(kind, step, [text]))
        return {
            "kind": kind.name.lower(), "step": step, "is_asked": bool(example.is_expert_U[unit]),
            "num_arguments": min(max(len(parts) - 2, 0), len(lines) - 1), "is_call": bool(parts), "lines": lines,
        }  # fmt: skip

    def answer(self, questions: Sequence[tuple[int, Sequence[Place]]], sees: str = "") -> list[dict[str, Any]]:
        """What the model writes into each question's holes, all of a question hidden together.

        Args:
          questions: (window, places) each.
          sees: what a hole may see, see `filling`; empty: everything.

        Raises:
          ValueError: for a window or place that is not there, no hole, or more than a context of the run holds.
        """
        if sees not in ("", filling.EVERYTHING, filling.PAST):
            raise ValueError(f"expected what is seen to be {filling.EVERYTHING!r} or {filling.PAST!r}, got {sees!r}.")
        asked = []
        for window, places in questions:
            if not 0 <= window < len(self._examples):
                raise ValueError(f"expected an episode of 0..{len(self._examples) - 1}, got {window}.")
            example = self._examples[window]
            holes = {place: filling.hidden_at(example, place) for place in outermost(places)}
            is_asked_L = np.logical_or.reduce([*holes.values(), np.zeros(len(example), bool)])
            shown = filling.shown_around(example, is_asked_L, self._generator.budget, sees)
            if sees == filling.PAST:  # whole units
                hidden = np.unique(example.slots_GL[0][shown.place_L[shown.is_hidden_L]]).tolist()
                holes = {(u,): filling.hidden_at(example, (u,)) for u in hidden}
            asked.append((holes, shown))
        layout = self._generator.task.layout
        answers = self._generator.fill([filling.question(shown, layout) for _, shown in asked])
        return [self._told(*one, answer) for one, answer in zip(asked, answers, strict=True)]

    def _told(self, holes: dict[Place, np.ndarray], shown: filling.Shown, answer: Answer) -> dict[str, Any]:
        looks = self._first_look(shown)
        end_ids = list(self._vocabulary.frames.end_ids)
        found = []
        for place, is_hole_L in holes.items():
            places = np.flatnonzero(is_hole_L[shown.place_L])
            ids, truth = answer.tokens_L[places], shown.example.tokens_L[places]
            text, was = (self._text(one) for one in (ids, truth))
            stop = int(np.argmax(np.append(np.isin(ids, end_ids), True))) + 1  # the first end is told
            sure_K, look_K = answer.probability_L[places[:stop]], [looks.get(i, []) for i in places[:stop].tolist()]
            found.append({
                "place": place, "text": text, "was": was, "is_equal": text == was,
                "p": _short(sure_K.prod()), "tokens": self._tokens(ids[:stop], sure_K, look_K),
            })  # fmt: skip
        return {"holes": found, "seen": shown.number_U.tolist(), "passes": answer.num_passes}

    def _text(self, ids: np.ndarray) -> str:
        end_ids = self._vocabulary.frames.end_ids
        return self._vocabulary.decode_text(list(itertools.takewhile(lambda i: i not in end_ids, ids.tolist())))

    def _tokens(self, ids: np.ndarray, sure_K: np.ndarray, look_K: Sequence[list[Any]]) -> list[list[Any]]:
        """The tokens of a hole; those that are only together a character are one."""
        is_end = bool(len(ids)) and int(ids[-1]) in self._vocabulary.frames.end_ids
        texts: list[str | None] = [*token_texts(ids[: len(ids) - is_end].tolist(), self._vocabulary), *[None] * is_end]
        found: list[list[Any]] = []
        for text, p, look in zip(texts, sure_K.tolist(), look_K, strict=True):
            if text == "" and found:
                found[-1][1] = _short(found[-1][1] * p)
            else:
                found.append([text, _short(p), look])
        return found

    def _first_look(self, shown: filling.Shown) -> dict[int, list[Any]]:
        """{position in the context: likeliest tokens, and what stood there} of what is hidden."""
        places = np.flatnonzero(shown.is_hidden_L)
        if len(places) * self._vocabulary.size > MAX_LOG_P:
            return {}
        question = filling.question(shown, self._generator.task.layout)
        (log_p_HV,) = self._generator.log_p([question], [np.ones(len(shown.example), bool)])
        best_HK = np.argpartition(-log_p_HV, TOP, axis=-1)[:, :TOP]
        order_HK = np.argsort(-np.take_along_axis(log_p_HV, best_HK, -1), axis=-1)
        best_HK = np.take_along_axis(best_HK, order_HK, -1)
        found = {}
        for place, log_p_V, best_K in zip(places.tolist(), log_p_HV, best_HK.tolist(), strict=True):
            ids = [*best_K, int(shown.example.tokens_L[place])]
            found[place] = [[self._word(i), _short(np.exp(log_p_V[i]))] for i in ids]
        return found

    def _word(self, token: int) -> str | None:
        """A token by itself: None for an end, and of a part of a character the tokenizer's name."""
        if token in self._vocabulary.frames.end_ids:
            return None
        text = self._vocabulary.decode_text([token])
        return text if text and "\ufffd" not in text else str(self._vocabulary.tokenizer.convert_ids_to_tokens(token))


def single_places(window: Mapping[str, Any]) -> list[Place]:
    """Every unit of an episode but system text, and every line with a word of units that have several."""
    shown = [(u, unit["lines"]) for u, unit in enumerate(window["units"]) if unit["kind"] != "system"]
    lines = [
        (u, number)
        for u, lines in shown
        if len(lines) > 1
        for number, line in enumerate(lines)
        if "".join(itertools.chain.from_iterable(line)).strip()
    ]
    return [*((u,) for u, _ in shown), *lines]


def outermost(places: Sequence[Place]) -> list[Place]:
    """Each place once, without those inside another one."""
    given = set(places)
    return sorted(place for place in given if not any(place[:n] in given for n in range(1, len(place))))


def token_texts(ids: Sequence[int], vocabulary: Vocabulary) -> list[str]:
    """The text that each token adds, which joined is that of all. A character of several tokens is the first one's, and
    the others add nothing."""
    whole, texts, start = vocabulary.decode_text(ids), [], 0
    while start < len(ids):
        end = start + 1
        while "\ufffd" in (text := vocabulary.decode_text(ids[start:end])) and end < min(start + 8, len(ids)):
            end += 1
        texts += [text, *[""] * (end - start - 1)]
        start = end
    if "".join(texts) == whole:
        return texts
    texts, told = [], 0  # a tokenizer whose tokens read differently by themselves
    for n in range(1, len(ids) + 1):
        seen = len(_common(vocabulary.decode_text(ids[:n]), whole)) if n < len(ids) else len(whole)
        texts.append(whole[told:seen])
        told = max(told, seen)
    return texts


def _common(first: str, second: str) -> str:
    """The beginning that two texts share."""
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))
    return "".join(letter for letter, _ in same)


def _short(p: float) -> float:
    """A probability in four figures."""
    return float(f"{p:.4g}")


def _title(episode: Trajectory) -> str:
    """The goal's first words, and how it went."""
    goal = next((unit.text or "" for unit in episode.units if unit.kind == Kind.GOAL), "") or episode.id
    short = " ".join(goal.split())
    short = short if len(short) <= 70 else f"{short[:67].rstrip()}..."
    success = episode.outcome.get("success")
    return short + ("" if success is None else " (reached)" if success else " (not reached)")


def reading_page(run: str, about: str, windows: Sequence[Mapping[str, Any]], is_live: bool = True) -> str:
    """The page of some episodes, whose answers come from the server that sends it, or are in it.

    Args:
      run: the name of what answers.
      about: where the episodes are from.
      windows: as `Reader.described` says them, one at least; with their "answers" where nobody serves.
      is_live: whether a server answers.
    """
    content = FRAGMENT.read_text(encoding="utf-8")
    title = f"What “{run}” puts into a hole"
    content = content.replace("@@TITLE@@", html.escape(title)).replace("@@ABOUT@@", html.escape(about))
    return page.fill_template(title, content, {"reading": {"live": is_live, "windows": windows}})
