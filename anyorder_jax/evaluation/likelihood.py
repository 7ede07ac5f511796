"""Likelihood: the model's probabilities of hidden tokens, in batches of one fixed shape, on the mesh of its weights.

Only what is asked goes through the head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from anyorder_jax import sharding
from anyorder_jax.asking.scorer import Rows, hidden_states, make_score, noisy_and_clean
from anyorder_jax.config import Config
from anyorder_jax.data.tokenization import Vocabulary
from anyorder_jax.evaluation.questions import Ask
from anyorder_jax.evaluation.targets import Prediction, Targets
from anyorder_jax.model import transformer
from anyorder_jax.model.config import ModelConfig

MAX_ROWS = 16
"""Rows of a batch, or one for each part of the mesh. More are not faster on a CPU, and a few unfinished episodes would
pay for a large batch at every step."""

LENGTH_STEP = 64
"""Rows longer than the model's row length are padded to a multiple of this, so that few shapes are
compiled."""


class Model:
    """A trained model that answers questions about token rows, each row one window.

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
        if vocabulary.size > model_config.vocab_size:
            raise ValueError(
                f"evaluation: the tokenizer needs {vocabulary.size} embedding rows, but the checkpoint's "
                f"model has {model_config.vocab_size}: they do not belong together. Use the tokenizer "
                "saved beside the model."
            )
        self._params, self._vocabulary, self._row_length = params, vocabulary, row_length
        words = [vocabulary.encode_slot(word) for word in actions]
        width = max(map(len, words))
        self._word_width = width
        self._word_ids_AK = np.array([ids + [-1] * (width - len(ids)) for ids in words], np.int32)

        self._mesh = mesh = sharding.mesh_of(params)
        shards = sharding.num_row_shards(mesh)
        self._num_rows = -(-MAX_ROWS // shards) * shards

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

        self._score = jax.jit(make_score(config, model_config, mesh, self._num_rows // shards))
        self._score_actions, self._logits = jax.jit(score_actions), jax.jit(logits_of)

    def predict(self, asks: Sequence[Ask], targets: Targets) -> Prediction:
        """-log p, the argmax (over the whole vocabulary) and its probability of every target, all hidden tokens at
        once."""
        mask_id = self._vocabulary.mask_id
        rows = [noisy_and_clean(ask.example, ask.hidden, mask_id) for ask in asks]
        nll_T, confidence_T = np.zeros((2, len(targets.truth_T)))
        chosen_T = np.zeros(len(targets.truth_T), np.int64)
        start_A = np.searchsorted(targets.ask_T, np.arange(len(asks) + 1))
        for chosen, tokens_BL, lengths_B in self._batches([noisy for noisy, _ in rows]):
            clean_BL = np.full_like(tokens_BL, self._vocabulary.pad_id)
            place_BL, truth_BL = np.zeros((2, *tokens_BL.shape), np.int32)
            count_B = np.zeros_like(lengths_B)
            for b, a in enumerate(chosen):
                mine, clean_L = slice(start_A[a], start_A[a + 1]), rows[a][1]
                clean_BL[b, : len(clean_L)] = clean_L
                count_B[b] = mine.stop - mine.start
                place_BL[b, : count_B[b]] = targets.position_T[mine]
                truth_BL[b, : count_B[b]] = targets.truth_T[mine]
            found = self._ask(self._score, tokens_BL, clean_BL, lengths_B, place_BL, truth_BL, count_B)
            for b, a in enumerate(chosen):
                mine = slice(start_A[a], start_A[a + 1])
                nll_T[mine], chosen_T[mine], confidence_T[mine] = (x_BL[b, : count_B[b]] for x_BL in found)
        return Prediction(nll_T, chosen_T, confidence_T)

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
            logits_BHV = self._ask(self._logits, tokens_BL, lengths_B, place_BH)
            for b, i in enumerate(chosen):
                found[i] = logits_BHV[b, : len(places[i])]
        return found

    def _ask(self, program: Any, *arrays: np.ndarray) -> Any:
        """What a program says of rows, on the host."""
        return jax.device_get(program(self._params, *sharding.place_batch(arrays, self._mesh)))

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
            scores_BA = self._ask(self._score_actions, tokens_BL, lengths_B, first_B)
            out_NA[chosen] = scores_BA[: len(chosen)]
        return out_NA

    def _batches(self, rows: Sequence[np.ndarray]) -> Iterator[tuple[list[int], np.ndarray, np.ndarray]]:
        """(which rows, tokens_BL, lengths_B) of full batches; rows of a like length go together."""
        by_length: dict[int, list[int]] = {}
        for i, row in enumerate(rows):
            over = -(-max(len(row) - self._row_length, 0) // LENGTH_STEP) * LENGTH_STEP
            by_length.setdefault(self._row_length + over, []).append(i)
        for length, members in sorted(by_length.items()):
            num_rows = self._num_rows
            for first in range(0, len(members), num_rows):
                chosen = members[first : first + num_rows]
                tokens_BL = np.full((num_rows, length), self._vocabulary.pad_id, np.int32)
                lengths_B = np.zeros(num_rows, np.int32)
                for b, i in enumerate(chosen):
                    tokens_BL[b, : len(rows[i])], lengths_B[b] = rows[i], len(rows[i])
                yield chosen, tokens_BL, lengths_B
