"""Viewer: test windows as words, and what the model puts into a hole that a reader makes.

    window    {"title", "environment", "units": [{"kind", "step", "cells": [word, ...]}]}; a cell: its words
    hole      [unit, cell]; cell -1: the whole unit
    answers   {"unit.cell": [[word, probability], ...]}       the TOP most probable words of each hidden cell

A cell of several words (profile `attributes`), or a word of several tokens, is answered by the most probable token at
each place, and its probability is their product; without such, by the TOP words.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from anyorder_jax.evaluation import page
from anyorder_jax.evaluation.held_out import HeldOut
from anyorder_jax.evaluation.likelihood import Model
from anyorder_jax.types import Field, Kind, Tokenised

TOP = 4
NUM_WINDOWS = 3
WHOLE = -1

Hole = tuple[int, int]


def windows(held_out: HeldOut, seed: int, num: int = NUM_WINDOWS) -> list[Tokenised]:
    """Test windows that show much: what `strip` would draw, of different episodes."""
    from anyorder_jax.evaluation import strip  # late: it needs the extra `report`

    step = max(1, len(held_out.examples) // num)
    parts = [held_out.examples[i : i + step] for i in range(0, len(held_out.examples), step)][:num]
    return [strip.choose(part, held_out.num_steps, seed).example for part in parts]


class Reader:
    """Reads windows and answers holes in them.

    Args:
      held_out: its vocabulary and grid words.
      model: fills holes.
      examples: the windows.
    """

    def __init__(self, held_out: HeldOut, model: Model, examples: Sequence[Tokenised]) -> None:
        self._vocabulary, self._model, self._examples = held_out.task.vocabulary, model, examples
        self._environment = held_out.task.environment
        self._titles = [f"{self._environment}, window {i + 1}" for i in range(len(examples))]
        self._places = [self._cells(example) for example in examples]

    @staticmethod
    def _cells(example: Tokenised) -> list[list[np.ndarray]]:
        """Positions of each cell of each unit, without filler."""
        cells: list[list[np.ndarray]] = []
        for unit in range(len(example.kind_U)):
            places = np.flatnonzero((example.slots_GL[0] == unit) & (example.field_L != Field.FILLER))
            cells.append(np.split(places, np.flatnonzero(np.diff(example.slots_GL[1, places])) + 1))
        return cells

    def page(self, title: str) -> str:
        """The page that a server sends, and answers."""
        return page.viewer_page(title, self.described())

    def written(self, title: str) -> str:
        """A page of its own: the answer of every single hole is in it."""
        return page.viewer_page(title, self.answered(), is_live=False)

    def answered(self) -> list[dict[str, Any]]:
        """Every window as it is described, and "answers": that of every single hole by its key "unit.cell"."""
        found = self.described()
        for number, window in enumerate(found):
            holes = single_holes(window)
            answers = self.answer((number, hole) for hole in holes)
            names = [f"{u}.{c}" for u, c in itertools.chain.from_iterable(holes)]
            window["answers"] = dict(zip(names, answers, strict=True))
        return found

    def described(self) -> list[dict[str, Any]]:
        """Every window, as the page draws it."""
        found = []
        for title, example, cells in zip(self._titles, self._examples, self._places, strict=True):
            units = [
                {
                    "kind": Kind(int(kind)).name.lower(),
                    "step": int(step),
                    "cells": [self._word(example, example.tokens_L[places], places) for places in own],
                    "is_asked": bool(is_expert),
                }
                for kind, step, is_expert, own in zip(
                    example.kind_U, example.step_U, example.is_expert_U, cells, strict=True
                )
            ]
            found.append({"title": title, "environment": self._environment, "units": units})
        return found

    def _word(self, example: Tokenised, ids_K: np.ndarray, places_K: np.ndarray) -> str:
        """A cell's words (an end token is ∅), split where a new attribute begins."""
        starts = np.flatnonzero(np.diff(example.slots_GL[2, places_K])) + 1
        parts = [part.tolist() for part in np.split(ids_K, starts)]
        return " ".join("∅" if ids == [self._vocabulary.end_id] else self._read(ids) for ids in parts)

    def _read(self, ids: list[int]) -> str:
        return self._vocabulary.decode_slot(ids)

    def answer(
        self, questions: Iterable[tuple[int, Sequence[Sequence[int]]]], sees: str = ""
    ) -> list[dict[str, list[list[Any]]]]:
        """The model's words in each question's holes, all of a question hidden together.

        Args:
          questions: (window, holes) each.
          sees: nothing: a hole sees all else of its window.

        Raises:
          ValueError: for a window, unit or cell that is not there, or no hole.
        """
        if sees:
            raise ValueError(f"viewer: a hole of a grid sees all else of its window; expected no choice, got {sees!r}.")
        asked = [(window, self._expand(window, holes)) for window, holes in questions]
        rows, places = [], []
        for window, cells in asked:
            places.append(np.concatenate([self._places[window][u][c] for u, c in cells]))
            row = self._examples[window].tokens_L.copy()
            row[np.concatenate([self._hidden(window, *cell) for cell in cells])] = self._vocabulary.mask_id
            rows.append(row)
        found = []
        for (window, cells), logits_HV in zip(asked, self._model.logits(rows, places), strict=True):
            places_of = {f"{u}.{c}": self._places[window][u][c] for u, c in cells}
            of_cells = np.split(logits_HV, np.cumsum([len(own) for own in places_of.values()])[:-1])
            own = zip(places_of.items(), of_cells, strict=True)
            found.append({name: self._top(window, place_K, logits_KV) for (name, place_K), logits_KV in own})
        return found

    def _hidden(self, window: int, unit: int, cell: int) -> np.ndarray:
        """Positions of the cell, its filler included."""
        slot_L = self._examples[window].slots_GL[1]
        return np.flatnonzero(slot_L == slot_L[self._places[window][unit][cell][0]])

    def _expand(self, window: int, holes: Sequence[Sequence[int]]) -> list[Hole]:
        if any(len(hole) != 2 for hole in holes):
            raise ValueError("viewer: expected holes [unit, cell], got one of another length.")
        if not 0 <= window < len(self._examples):
            raise ValueError(f"viewer: expected a window of 0..{len(self._examples) - 1}, got {window}.")
        units = self._places[window]
        cells: list[Hole] = []
        for unit, cell in holes:
            if not (0 <= unit < len(units) and WHOLE <= cell < len(units[unit])):
                raise ValueError(f"viewer: window {window} has no unit {unit} with a cell {cell}.")
            cells += [(unit, c) for c in range(len(units[unit]))] if cell == WHOLE else [(unit, cell)]
        if not cells:
            raise ValueError("viewer: expected one hole at least, got none.")
        return list(dict.fromkeys(cells))

    def _top(self, window: int, places_K: np.ndarray, logits_KV: np.ndarray) -> list[list[Any]]:
        logits_KV = logits_KV.astype(np.float64)
        p_KV = np.exp(logits_KV - logits_KV.max(-1, keepdims=True))
        p_KV /= p_KV.sum(-1, keepdims=True)
        example = self._examples[window]
        if len(places_K) > 1:
            ids_K = p_KV.argmax(-1)
            return [[self._word(example, ids_K, places_K), round(float(p_KV.max(-1).prod()), 4)]]
        best = np.argsort(-p_KV[0])[:TOP].tolist()
        return [[self._word(example, np.array([i]), places_K), round(float(p_KV[0, i]), 4)] for i in best]


def single_holes(described: dict[str, Any]) -> list[list[Hole]]:
    """Every unit alone, and every cell of units that have several, alone."""
    units = [[(u, WHOLE)] for u in range(len(described["units"]))]
    cells = [
        [(u, c)]
        for u, unit in enumerate(described["units"])
        if len(unit["cells"]) > 1
        for c in range(len(unit["cells"]))
    ]
    return [*units, *cells]


def precomputed(held_out: HeldOut, model: Model, seed: int) -> dict[str, Any]:
    """The windows, and the answer of every single hole under its key "unit.cell"."""
    return {"windows": Reader(held_out, model, windows(held_out, seed)).answered()}
