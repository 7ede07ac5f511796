"""Likelihood: a scorer of windows of a grid, in batches of one fixed shape, that also scores action words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from anyorder_jax import sharding
from anyorder_jax.asking.scorer import Rows, Scorer, Shapes, hidden_states
from anyorder_jax.config import Config
from anyorder_jax.data.tokenization import Vocabulary
from anyorder_jax.model import transformer
from anyorder_jax.model.config import ModelConfig

MAX_ROWS = 16
"""Rows of a batch, or one for each part of the mesh. More are not faster on a CPU, and a few unfinished episodes would
pay for a large batch at every step."""

LENGTH_STEP = 64
"""Rows longer than the model's row length are padded to a multiple of this, so that few shapes are
compiled."""


def shapes_of(row_length: int, num_shards: int) -> Shapes:
    """Batches of MAX_ROWS rows of `row_length` tokens, longer rows in steps of LENGTH_STEP."""
    per_shard = -(-MAX_ROWS // num_shards)
    return Shapes(
        lambda length: row_length + -(-max(length - row_length, 0) // LENGTH_STEP) * LENGTH_STEP, lambda _: per_shard
    )


class Model(Scorer):
    """A trained model that answers questions about token rows, each row one window, and scores actions.

    Args:
      config: of the run (its compute type, LoRA and objective).
      model_config, params: the model; rows are split over the mesh of its weights.
      vocabulary: its tokenizer.
      actions: the words a policy may choose.
      row_length: L, what rows are padded to; longer ones work, in batches of a larger shape.

    Raises:
      ValueError: when the vocabulary does not belong to the model.
    """

    def __init__(
        self,
        config: Config,
        model_config: ModelConfig,
        params: Any,
        vocabulary: Vocabulary,
        actions: Sequence[str],
        row_length: int,
    ) -> None:
        mesh = sharding.mesh_of(params)
        shapes = shapes_of(row_length, sharding.num_row_shards(mesh))
        super().__init__(config, model_config, params, vocabulary, mesh, shapes)
        words = [vocabulary.encode_slot(word) for word in actions]
        width = max(map(len, words))
        self._word_ids_AK = np.array([ids + [-1] * (width - len(ids)) for ids in words], np.int32)

        def logits_of(params: Any, tokens_BL: jax.Array, lengths_B: jax.Array, place_BH: jax.Array) -> jax.Array:
            rows = Rows(tokens_BL, lengths_B, place_BH, jnp.ones(place_BH.shape, bool))
            hidden_BLD = hidden_states(config, model_config, mesh, params, rows)
            return transformer.head(params, jnp.take_along_axis(hidden_BLD, place_BH[..., None], axis=1))

        def score_actions(params: Any, tokens_BL: jax.Array, lengths_B: jax.Array, first_B: jax.Array) -> jax.Array:
            places_BK = first_B[:, None] + jnp.arange(width)[None]
            log_p_BKV = jax.nn.log_softmax(logits_of(params, tokens_BL, lengths_B, places_BK))
            ids_KA = jnp.asarray(self._word_ids_AK.T)
            picked_BKA = log_p_BKV[:, jnp.arange(width)[:, None], jnp.maximum(ids_KA, 0)]
            return jnp.where(ids_KA[None] >= 0, picked_BKA, 0).sum(1)

        self._score_actions, self._logits = jax.jit(score_actions), jax.jit(logits_of)

    def logits(self, rows: Sequence[np.ndarray], places: Sequence[np.ndarray]) -> list[np.ndarray]:
        """float32 [H, V] at some places (int [H], at least one) of each row of tokens (int32 [length], with mask tokens
        in the holes)."""
        found: list[np.ndarray] = [np.zeros(0, np.float32)] * len(rows)
        num_places = 1 << (max(map(len, places), default=1) - 1).bit_length()  # few shapes are compiled
        for chosen, tokens_BL, lengths_B in self._batches(rows):
            place_BH = np.zeros((len(tokens_BL), num_places), np.int32)
            for b, i in enumerate(chosen):
                place_BH[b] = places[i][0]
                place_BH[b, : len(places[i])] = places[i]
            logits_BHV = self._run(self._logits, tokens_BL, lengths_B, place_BH)
            for b, i in enumerate(chosen):
                found[i] = logits_BHV[b, : len(places[i])]
        return found

    def action_logits(self, rows: Sequence[np.ndarray], first_hidden: int) -> np.ndarray:
        """log p of each action word in the hole at the end of each row.

            l_a = sum_k log p(k-th token of word a | the row)     over the word's own tokens, without filler

        Args:
          rows: int32 [length], with mask tokens in the hole.
          first_hidden: where the hole begins, counted from the end of the row (negative).

        Returns:
          float32 [rows, A].
        """
        out_NA = np.zeros((len(rows), len(self._word_ids_AK)), np.float32)
        for chosen, tokens_BL, lengths_B in self._batches(rows):
            # padding rows (length 0) point somewhere; nothing reads what they say
            first_B = np.maximum(lengths_B + first_hidden, 0)
            scores_BA = self._run(self._score_actions, tokens_BL, lengths_B, first_B)
            out_NA[chosen] = scores_BA[: len(chosen)]
        return out_NA
