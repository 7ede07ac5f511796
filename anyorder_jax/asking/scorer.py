"""Scorer: the model's probabilities of asked tokens, in batches of a few shapes, on a mesh.

    tokens       [B, L] rows over the mesh     one forward pass, hidden states [B, L, D]
    asked        [B, C] places at a time       C of a row's asked places go through the head together: [B, C, V]

So logits of a whole row, [B, L, V], never exist; a chunk of places without an asked one is not computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from anyorder_jax import decode, sharding
from anyorder_jax.asking.targets import Asked, Prediction
from anyorder_jax.config import Config, MeshConfig
from anyorder_jax.data.tokenization import Vocabulary
from anyorder_jax.loss import cross_entropy
from anyorder_jax.model import transformer
from anyorder_jax.model.attention import BlockDiffusion
from anyorder_jax.model.config import ModelConfig
from anyorder_jax.model.kernels.counting import argmax
from anyorder_jax.types import Hidden, Tokenised

MAX_CHUNK, LOGIT_BYTES = 32, 2**28
"""Places of a chunk at most, and the size of its logits on one device."""

LENGTH_STEP = 64
"""Rows are padded to multiples of this, longer ones than 8 of it to an eighth of the next power of two, so that few
shapes are compiled."""


def padded_length(length: int) -> int:
    """What a row of `length` tokens is padded to."""
    step = max(LENGTH_STEP, 2 ** math.ceil(math.log2(max(length, 1))) // 8)
    return -(-length // step) * step


class Shapes(NamedTuple):
    """The shapes of batches. length_of: tokens of a row -> L that it is padded to. rows_of: L -> rows that one part of
    the mesh gets."""

    length_of: Callable[[int], int] = padded_length
    rows_of: Callable[[int], int] = sharding.rows_per_shard


def chunk_of(num_rows: int, length: int, vocab_size: int) -> int:
    """C: how many places of each row go through the head together; it divides a padded length."""
    room = max(1, LOGIT_BYTES // (4 * num_rows * vocab_size))
    return math.gcd(min(MAX_CHUNK, 2 ** int(math.log2(room))), length)


class Rows(NamedTuple):
    """Rows of one example each, with what is asked of them.

    tokens_BL: int32, the mask id in the holes. lengths_B: int32, tokens of each row; 0 for rows of padding. place_BH:
    int32, positions that are asked. is_entry_BH: bool, which of them are meant. clean_BL: int32, the rows with the
    truth in the asked holes, and the mask id in those that are hidden only (None: not known).
    """

    tokens_BL: jax.Array
    lengths_B: jax.Array
    place_BH: jax.Array
    is_entry_BH: jax.Array
    clean_BL: jax.Array | None = None


def hidden_states(config: Config, model_config: ModelConfig, mesh: Mesh, params: Any, rows: Rows) -> jax.Array:
    """The hidden states [B, L, D] of rows; those of places that are not asked mean nothing.

    A run of block diffusion is asked as it was trained. With the truth known, the model reads [noisy ; clean]: a hole
    sees its own block with the holes in it, and the earlier blocks with the truth in theirs, so that -log p of a hole
    over several blocks adds up to that of the whole; a token that is chosen there follows the truth, not what the model
    chose before. Without, it sees the earlier blocks as they stand.

    Args:
      config: of the run (its compute type, LoRA and objective).
      model_config: the model's shape.
      mesh: where the weights lie and rows are split.
      params: the model's tree.
      rows: what is asked.
    """
    tokens_BL, lengths_B, place_BH, is_entry_BH, clean_BL = rows
    B, L = tokens_BL.shape
    positions_BL = jnp.broadcast_to(jnp.arange(L, dtype=jnp.int32), (B, L))
    ids_BL = (positions_BL < lengths_B[:, None]).astype(jnp.int32)
    is_asked_BL = jnp.zeros((B, L), bool).at[jnp.arange(B)[:, None], place_BH].max(is_entry_BH)
    attention = decode.attention_of(config, ids_BL)
    if decode.is_block_causal(config) and clean_BL is not None:
        tokens_BL = jnp.concatenate([tokens_BL, clean_BL], axis=1)
        positions_BL = jnp.concatenate([positions_BL, positions_BL], axis=1)
        is_asked_BL = jnp.concatenate([is_asked_BL, jnp.zeros_like(is_asked_BL)], axis=1)
        attention = BlockDiffusion(config.train.block_size, ids_BL)
    return transformer.hidden(
        model_config, params, tokens_BL, positions_BL, attention,
        transformer.Computation(jnp.dtype(config.model.compute_dtype), mesh=mesh, lora_config=config.lora),
        is_asked_BL=is_asked_BL,
    )[0][:, :L]  # fmt: skip


def noisy_and_clean(example: Tokenised, hidden: Hidden, mask_id: int) -> tuple[np.ndarray, np.ndarray]:
    """A question's tokens with the mask id in all its holes, and with it in those alone that are not asked; int32 [L]
    each."""
    is_unknown_L = hidden.is_hidden_L & ~hidden.is_target_L
    return np.where(hidden.is_hidden_L, mask_id, example.tokens_L), np.where(is_unknown_L, mask_id, example.tokens_L)


def make_score(config: Config, model_config: ModelConfig, mesh: Mesh, num_rows: int) -> Callable[..., Any]:
    """The scoring function, to be jitted.

    Args:
      config: of the run (its compute type, LoRA and objective).
      model_config: the model's shape.
      mesh: where the weights lie and rows are split.
      num_rows: B that one part of the mesh gets (it sets the size of a chunk).

    Returns:
      score(params, tokens_BL, clean_BL, lengths_B, place_BL, truth_BL, count_B) -> (nll_BL, chosen_BL, confidence_BL),
      in the order of `place_BL`: the first `count` entries of each row are its asked places; what follows them means
      nothing. tokens, clean: as in `Rows`. chosen: the likeliest token of the whole vocabulary; confidence: its
      probability.
    """

    def score(
        params: Any, tokens_BL: jax.Array, clean_BL: jax.Array, lengths_B: jax.Array, place_BL: jax.Array,
        truth_BL: jax.Array, count_B: jax.Array,
    ) -> tuple[jax.Array, jax.Array, jax.Array]:  # fmt: skip
        B, L = tokens_BL.shape
        is_entry_BL = jnp.arange(L)[None] < count_B[:, None]
        rows = Rows(tokens_BL, lengths_B, place_BL, is_entry_BL, clean_BL)
        hidden_BLD = hidden_states(config, model_config, mesh, params, rows)
        chunk = chunk_of(num_rows, L, model_config.vocab_size)

        def one_chunk(i: jax.Array, carry: Any) -> Any:
            def mine(x_BL: jax.Array) -> jax.Array:
                return jax.lax.dynamic_slice_in_dim(x_BL, i * chunk, chunk, axis=1)

            hidden_BCD = jnp.take_along_axis(hidden_BLD, mine(place_BL)[..., None], axis=1)
            logits_BCV = transformer.head(params, hidden_BCD)
            chosen_BC = argmax(logits_BCV)
            found = (
                cross_entropy(logits_BCV, mine(truth_BL)),
                chosen_BC,
                jnp.exp(-cross_entropy(logits_BCV, chosen_BC)),
            )
            return tuple(
                jax.lax.dynamic_update_slice_in_dim(all_BL, x_BC, i * chunk, axis=1)
                for all_BL, x_BC in zip(carry, found, strict=True)
            )

        nothing = jnp.zeros((B, L), jnp.float32)
        return jax.lax.fori_loop(0, -(-count_B.max() // chunk), one_chunk, (nothing, place_BL, nothing))

    return score


class Scorer:
    """A trained model that answers questions.

    Args:
      config: of the run.
      model_config, params: the model, its weights on `mesh`.
      vocabulary: its tokenizer.
      mesh: see `mesh_of`; None: the first device.
      shapes: of batches.

    Raises:
      ValueError: when the vocabulary does not belong to the model.
    """

    def __init__(
        self,
        config: Config,
        model_config: ModelConfig,
        params: Any,
        vocabulary: Vocabulary,
        mesh: Mesh | None = None,
        shapes: Shapes = Shapes(),  # noqa: B008 (a tuple)
    ) -> None:
        if vocabulary.size > model_config.vocab_size:
            raise ValueError(
                f"asking: the tokenizer needs {vocabulary.size} embedding rows, but the checkpoint's model has "
                f"{model_config.vocab_size}: they do not belong together. Use the tokenizer saved beside the model."
            )
        self._mesh = sharding.make_mesh(MeshConfig(), jax.local_devices()[:1]) if mesh is None else mesh
        self._config, self._model_config = config, model_config
        self._params, self._vocabulary, self._shapes = params, vocabulary, shapes
        self._score: dict[int, Any] = {}

    def predict(self, targets: Asked) -> Prediction:
        """-log p, the likeliest token and its probability of every target, all hidden tokens at once."""
        mask_id = self._vocabulary.mask_id
        rows = [noisy_and_clean(ask.example, ask.hidden, mask_id) for ask in targets.asks]
        nll_T, confidence_T = np.zeros((2, len(targets.truth_T)))
        chosen_T = np.zeros(len(targets.truth_T), np.int64)
        start_A = np.searchsorted(targets.ask_T, np.arange(len(rows) + 1))
        for members, tokens_BL, lengths_B in self._batches([noisy_L for noisy_L, _ in rows]):
            clean_BL = np.full_like(tokens_BL, self._vocabulary.pad_id)
            place_BL, truth_BL = np.zeros((2, *tokens_BL.shape), np.int32)
            count_B = np.zeros_like(lengths_B)
            for b, a in enumerate(members):
                mine, clean_L = slice(start_A[a], start_A[a + 1]), rows[a][1]
                clean_BL[b, : len(clean_L)] = clean_L
                count_B[b] = mine.stop - mine.start
                place_BL[b, : count_B[b]] = targets.position_T[mine]
                truth_BL[b, : count_B[b]] = targets.truth_T[mine]
            arrays = tokens_BL, clean_BL, lengths_B, place_BL, truth_BL, count_B
            found = self._run(self._score_of(len(tokens_BL)), *arrays)
            for b, a in enumerate(members):
                mine = slice(start_A[a], start_A[a + 1])
                nll_T[mine], chosen_T[mine], confidence_T[mine] = (x_BL[b, : count_B[b]] for x_BL in found)
        return Prediction(nll_T, chosen_T, confidence_T)

    def _score_of(self, num_rows: int) -> Any:
        """The scoring program of batches of so many rows."""
        per_shard = num_rows // sharding.num_row_shards(self._mesh)
        if per_shard not in self._score:
            self._score[per_shard] = jax.jit(make_score(self._config, self._model_config, self._mesh, per_shard))
        return self._score[per_shard]

    def _run(self, program: Any, *arrays: np.ndarray) -> Any:
        """What a program says of rows, on the host."""
        return jax.device_get(program(self._params, *sharding.place_batch(arrays, self._mesh)))

    def _batches(self, rows: Sequence[np.ndarray]) -> Iterator[tuple[list[int], np.ndarray, np.ndarray]]:
        """(which rows, tokens_BL, lengths_B) of full batches; rows of a like length go together."""
        by_length: dict[int, list[int]] = {}
        for i, row in enumerate(rows):
            by_length.setdefault(self._shapes.length_of(len(row)), []).append(i)
        for length, members in sorted(by_length.items()):
            num_rows = self._shapes.rows_of(length) * sharding.num_row_shards(self._mesh)
            for first in range(0, len(members), num_rows):
                chosen = members[first : first + num_rows]
                tokens_BL = np.full((num_rows, length), self._vocabulary.pad_id, np.int32)
                lengths_B = np.zeros(num_rows, np.int32)
                for b, i in enumerate(chosen):
                    tokens_BL[b, : len(rows[i])], lengths_B[b] = rows[i], len(rows[i])
                yield chosen, tokens_BL, lengths_B


def mesh_of(config: Config, text: str = "") -> Mesh:
    """Where a run is evaluated.

    Args:
      config: of the run.
      text: sizes of mesh axes, "data:2,expert:4", the others 1; empty: the run's own mesh where the devices for it are
        there, else the first device.

    Raises:
      ValueError: for a text that names no mesh of these devices.
    """
    devices = jax.local_devices()
    if not text:
        try:
            return sharding.make_mesh(config.mesh, devices)
        except ValueError:
            return sharding.make_mesh(MeshConfig(), devices[:1])
    sizes = dict.fromkeys(sharding.AXES, 1)
    for part in text.split(","):
        name, _, size = part.strip().partition(":")
        if name not in sizes or not size.isdigit() or int(size) < 1:
            raise ValueError(
                f"--mesh: expected AXIS:SIZE of {', '.join(sharding.AXES)}, e.g. data:2,expert:4, got {text!r}."
            )
        sizes[name] = int(size)
    num = math.prod(sizes.values())
    if num > len(devices):
        raise ValueError(f"--mesh: {text!r} needs {num} devices, and there are {len(devices)}.")
    return sharding.make_mesh(MeshConfig(**sizes), devices[:num])
