"""The model's forward pass with one layer of weights in memory, for several readings of the same checkpoint at once."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from anyorder_jax import loss
from anyorder_jax.health.questions import Rows
from anyorder_jax.model import transformer
from anyorder_jax.model.attention import Segments
from anyorder_jax.model.config import ModelConfig
from anyorder_jax.model.kernels import counting
from anyorder_jax.model.layers import Rotary, rms_norm, rotary

LayerWeights = Mapping[str, jax.Array]


class Reading(NamedTuple):
    """One reading of a checkpoint on its way through the layers. config: which width, base and epsilon it is read with.
    x_BLD: hidden states behind the layers so far."""

    config: ModelConfig
    rows: Rows
    x_BLD: jax.Array


def begin(config: ModelConfig, rows: Rows, embedding_VD: np.ndarray, dtype: Any, shift: int = 0) -> Reading:
    """The embeddings of the rows. shift: each id's embedding is looked for so many rows further on."""
    ids = np.clip(rows.tokens + shift, 0, len(embedding_VD) - 1)
    return Reading(config, rows, jnp.asarray(embedding_VD[ids]).astype(dtype))


@functools.lru_cache(maxsize=32)
def angles_of(width: int, base: float, length: int, dtype: Any) -> Rotary:
    """Of positions 0 to length - 1: [1, L, 1, R]. Made outside of what is compiled, so that another base compiles
    nothing."""
    return rotary(jnp.arange(length)[None], width, base, dtype)


@functools.partial(jax.jit, static_argnames=("config", "group"))
def _layer(
    config: ModelConfig, group: str, weights: LayerWeights, x_BLD: jax.Array, angles: Rotary, segment_ids_BL: jax.Array
) -> tuple[jax.Array, jax.Array | None]:
    kind = transformer.DenseLayer if group == "dense" else transformer.MoELayer
    graphdef, _ = nnx.split(kind(config, 1, x_BLD.dtype))
    angles = jax.tree.map(lambda x: jnp.broadcast_to(x, (len(x_BLD), *x.shape[1:])), angles)
    x_BLD, _, load_E = nnx.merge(graphdef, dict(weights))(x_BLD, angles, Segments(segment_ids_BL), None, {}, None)
    return x_BLD, load_E


def through(reading: Reading, group: str, weights: LayerWeights) -> tuple[Reading, jax.Array | None]:
    """(the reading behind one layer more, int32 [E] tokens of each expert or None)."""
    config, length = reading.config, reading.x_BLD.shape[1]
    angles = angles_of(config.rotary_dim, config.rope_theta, length, reading.x_BLD.dtype)
    same = dataclasses.replace(config, rope_theta=1, partial_rotary_factor=1)  # neither is read in a layer
    x_BLD, load_E = _layer(same, group, weights, reading.x_BLD, angles, reading.rows.segment_ids)
    return reading._replace(x_BLD=x_BLD), load_E


CHUNK_LOGITS = 2**26


@functools.partial(jax.jit, static_argnames="eps")
def _answers(
    x_TD: jax.Array, targets_T: jax.Array, norm_D: jax.Array, head_DV: jax.Array, eps: float
) -> tuple[jax.Array, jax.Array]:
    logits = transformer.head({"head": head_DV}, rms_norm(x_TD, norm_D, eps))
    return loss.cross_entropy(logits, targets_T), counting.argmax(logits)


def answers(reading: Reading, final_norm_D: Any, head_DV: jax.Array, shift: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(nats that each asked token costs, the likeliest token there), row after row: float32 [T], int32 [T].

    shift: each id's column of the head is looked for so many columns further on.
    """
    is_asked = reading.rows.is_asked
    targets_T = np.clip(reading.rows.targets[is_asked] + shift, 0, head_DV.shape[1] - 1)
    x_TD = reading.x_BLD.reshape(-1, reading.x_BLD.shape[-1])[np.flatnonzero(is_asked)]
    step = max(1, CHUNK_LOGITS // head_DV.shape[1])
    parts = [
        _answers(x_TD[i : i + step], targets_T[i : i + step], final_norm_D, head_DV, reading.config.rms_norm_eps)
        for i in range(0, len(targets_T), step)
    ]
    nll, best = (np.concatenate([np.asarray(part[k]) for part in parts]) for k in (0, 1))
    return nll, best
