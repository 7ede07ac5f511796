"""Scores: what a model says of hidden tokens in one pass, without writing any."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from anyorder_jax import decode, sharding
from anyorder_jax.config import Config
from anyorder_jax.model.config import ModelConfig
from anyorder_jax.types import Field, Tokenised

LENGTH_STEP, HOLE_STEP = 64, 32
"""Rows and holes are padded to multiples of these, so that few shapes are compiled."""


class Hole(NamedTuple):
    """Something hidden whose own tokens are judged. is_hidden_L: bool [L]. is_unseen_L: bool [L], what else the model
    does not see; it is not asked."""

    example: Tokenised
    is_hidden_L: np.ndarray
    is_unseen_L: np.ndarray


class Judged(NamedTuple):
    """Of a hole's words, and the end that follows them. log_p_H: float64, of each token. expected_H: float64, what the
    model expects of it (minus its entropy there): the mean of `log_p_H` if what it believes is so."""

    log_p_H: np.ndarray
    expected_H: np.ndarray


class Scores:
    """The passes of one model.

    Args:
      config: of the run.
      model_config, params: the model.
      ids: the mask's and the padding's.
      allowed_V: bool, tokens that may stand in a hole.
    """

    def __init__(
        self, config: Config, model_config: ModelConfig, params: Any, ids: tuple[int, int], allowed_V: np.ndarray
    ) -> None:
        self._params, self._ids, self._allowed_V = params, ids, allowed_V
        self._mesh = sharding.mesh_of(params)
        self._log_p = decode.make_log_p(config, model_config, self._mesh)
        self._judge = decode.make_judge(config, model_config, self._mesh)

    def log_p(self, hole: Hole) -> np.ndarray:
        """Log-probabilities of every token at the hidden places, float32 [H, V], in one pass."""
        num_rows, num_places = sharding.num_row_shards(self._mesh), int(hole.is_hidden_L.sum())
        tokens_BL, lengths_B, place_BH, _ = self._rows([hole], num_rows)  # the others are padding
        rows = sharding.place_batch((tokens_BL, lengths_B, place_BH), self._mesh)
        return np.asarray(self._log_p(self._params, *rows, self._allowed_V)[0, :num_places])

    def judge(self, holes: Sequence[Hole]) -> list[Judged]:
        """What the model gives the tokens that stand there, a pass for each hole; those of a like size go together."""
        found: list[Judged | None] = [None] * len(holes)
        shapes: dict[tuple[int, int], list[int]] = {}
        for i, hole in enumerate(holes):
            shapes.setdefault(_shape(hole), []).append(i)
        for (length, _), members in sorted(shapes.items()):
            most = max_rows(length, self._mesh)
            for first in range(0, len(members), most):
                chosen = members[first : first + most]
                for i, judged in zip(chosen, self._judge_batch([holes[i] for i in chosen]), strict=True):
                    found[i] = judged
        return [judged for judged in found if judged is not None]

    def _judge_batch(self, holes: Sequence[Hole]) -> list[Judged]:
        rows = self._rows(holes, padded_rows(len(holes), self._mesh))
        placed = sharding.place_batch(rows, self._mesh)
        log_p_BH, expected_BH = jax.device_get(self._judge(self._params, *placed, self._allowed_V))
        judged = []
        for b, (example, is_hidden_L, _) in enumerate(holes):
            is_word_H = example.field_L[is_hidden_L] == Field.TEXT
            pair = (x[b, : len(is_word_H)][is_word_H].astype(np.float64) for x in (log_p_BH, expected_BH))
            judged.append(Judged(*pair))
        return judged

    def _rows(self, holes: Sequence[Hole], num_rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(tokens, lengths, places, the tokens that stand there) of holes of one shape."""
        mask_id, pad_id = self._ids
        length, num_places = _shape(holes[0])
        tokens_BL = np.full((num_rows, length), pad_id, np.int32)
        place_BH, target_BH = np.zeros((2, num_rows, num_places), np.int32)
        lengths_B = np.zeros(num_rows, np.int32)
        for b, (example, is_hidden_L, is_unseen_L) in enumerate(holes):
            places = np.flatnonzero(is_hidden_L)
            tokens_BL[b, : len(example)] = np.where(is_hidden_L | is_unseen_L, mask_id, example.tokens_L)
            lengths_B[b] = len(example)
            place_BH[b, : len(places)], target_BH[b, : len(places)] = places, example.tokens_L[places]
        return tokens_BL, lengths_B, place_BH, target_BH


def padded(length: int, step: int) -> int:
    """The next multiple of `step`."""
    return -(-length // step) * step


def padded_rows(num_rows: int, mesh: Any) -> int:
    """1, 2, 4, ... rows on each part of the mesh."""
    shards = sharding.num_row_shards(mesh)
    return shards << (-(-num_rows // shards) - 1).bit_length()


def max_rows(length: int, mesh: Any) -> int:
    """Rows that go through the model together: the largest power of two that `sharding.rows_per_shard` allows, on each
    part of the mesh."""
    per_shard = 1 << (sharding.rows_per_shard(length).bit_length() - 1)
    return per_shard * sharding.num_row_shards(mesh)


def _shape(hole: Hole) -> tuple[int, int]:
    return padded(len(hole.example), LENGTH_STEP), padded(max(int(hole.is_hidden_L.sum()), 1), HOLE_STEP)
