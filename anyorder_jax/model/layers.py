"""What every layer is made of: declared weights, RMSNorm, rotary positions, the gated MLP."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

Initializer = Callable[[jax.Array, Sequence[int], Any], jax.Array]
"""(key, shape, dtype) -> array."""


class Parameter(NamedTuple):
    """A declared weight: everything that sharding, initialisation, conversion and checkpoints need to know of
    it.

    axes: one logical name per dimension; `sharding.RULES` says where each lies on the mesh.
    """

    shape: tuple[int, ...]
    dtype: Any
    axes: tuple[str, ...]
    init: Initializer


def declare(sizes: dict[str, int], dtype: Any, init: Initializer) -> nnx.Param:
    """A weight of an `nnx.Module`, declared and not made: its value is a shape, its metadata the axes and
    initialiser.

    Args:
      sizes: logical axis name -> size, in the order of the dimensions.
    """
    shape = jax.ShapeDtypeStruct(tuple(sizes.values()), dtype)
    return nnx.Param(shape, axes=tuple(sizes), init=init)


def uniform(fan_in: int) -> Initializer:
    """U(+-1/sqrt(fan_in)): torch's kaiming_uniform(a=sqrt(5)); the reference's router, and PEFT's A."""

    def init(key: jax.Array, shape: Sequence[int], dtype: Any) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -(fan_in**-0.5), fan_in**-0.5)

    return init


def rms_norm(x: jax.Array, weight_D: jax.Array, eps: float) -> jax.Array:
    """x / sqrt(mean(x^2) + eps) over the last dim in float32, cast to x's dtype, then times the weight (as
    LLaDA2).

    x [..., D] any float dtype; weight_D [D] is cast to it.
    """
    wide = x.astype(jnp.float32)
    wide = wide * jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + eps)
    return wide.astype(x.dtype) * jnp.broadcast_to(weight_D.astype(x.dtype), x.shape)


class Rotary(NamedTuple):
    """cos and sin of every position's angles, [B, L, 1, rotary_dim / 2], in the activation dtype."""

    cos_BL1R: jax.Array
    sin_BL1R: jax.Array


def rotary(positions_BL: jax.Array, rotary_dim: int, theta: float, dtype: Any) -> Rotary:
    """Angles position * theta^(-2i / rotary_dim), computed in float32 and then cast (RoFormer, arXiv
    2104.09864).

    Looked up in a table of the L positions that a row of L can hold. Computed for every token, XLA would fuse sines and
    cosines into every product with them, in every layer: 4% of a CPU step of `tiny`.

    Args:
      rotary_dim: how many dims of a head are rotated. theta: the base.
      dtype: of the result.
      positions_BL: int32 [B, L], 0 to L - 1; others get NaN.
    """
    exponent_R = jnp.arange(0, rotary_dim, 2, dtype=jnp.float32) / rotary_dim
    frequency_R = 1.0 / (theta**exponent_R)
    angle_LR = jnp.arange(positions_BL.shape[1], dtype=jnp.float32)[:, None] * frequency_R[None]
    table_L2R = jnp.stack([jnp.cos(angle_LR), jnp.sin(angle_LR)], axis=1).astype(dtype)
    angles_BL2R = table_L2R.at[positions_BL].get(
        mode="fill", fill_value=jnp.nan, wrap_negative_indices=False
    )  # fmt: skip
    return Rotary(angles_BL2R[:, :, :1], angles_BL2R[:, :, 1:])


def rotate(x_BLHC: jax.Array, angles: Rotary) -> jax.Array:
    """Turns dim i with dim i + rotary_dim / 2 (half-split pairing); dims from rotary_dim on pass through."""
    half = angles.cos_BL1R.shape[-1]
    first, second, rest = jnp.split(x_BLHC, (half, 2 * half), axis=-1)
    cos, sin = angles
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin, rest], axis=-1)


@jax.custom_vjp
def gated(gate_up: jax.Array) -> jax.Array:
    """silu(gate) * up of fused projections [..., 2, F] -> [..., F].

    The gradient is written out as a stack of its two halves; JAX's own is a sum of two padded ones, each computed
    twice.
    """
    return jax.nn.silu(gate_up[..., 0, :]) * gate_up[..., 1, :]


def _gated_forward(gate_up: jax.Array) -> tuple[jax.Array, jax.Array]:
    return gated(gate_up), gate_up


def _gated_backward(gate_up: jax.Array, grad: jax.Array) -> tuple[jax.Array]:
    gate, up = gate_up[..., 0, :], gate_up[..., 1, :]
    share = jax.nn.sigmoid(gate)
    return (jnp.stack([grad * up * share * (1 + gate * (1 - share)), grad * gate * share], axis=-2),)


gated.defvjp(_gated_forward, _gated_backward)


class Pair(NamedTuple):
    """LoRA's factors of one weight in one layer, in the dtype of the activations, b times alpha / rank.

    a [in, n, r] and b [r, n, out], for n matrices that lie side by side: gate and up are 2. Experts: [E, ...] each.
    """

    a: jax.Array
    b: jax.Array


def low_rank(x: jax.Array, pair: Pair, dot: Callable[[jax.Array, jax.Array], jax.Array]) -> jax.Array:
    """(x A) B for rows x [T, in]: [T, n * out]. `dot` is what multiplies rows by the weight itself."""
    a, b = pair
    num_matrices, rank = a.shape[-2:]
    hidden = dot(x, a.reshape(*a.shape[:-2], num_matrices * rank))
    parts = jnp.split(hidden, num_matrices, axis=-1)
    return jnp.concatenate([dot(part, b[..., n, :]) for n, part in enumerate(parts)], axis=-1)


def project(x: jax.Array, weight: jax.Array, pair: Pair | None = None) -> jax.Array:
    """x [..., D] times weight [D, ...], cast to x's dtype: [..., (weight's other dims flattened)]; plus LoRA's part.

    One product of two matrices: with more dims XLA transposes the activations for the weight's gradient on a
    CPU.
    """
    D = weight.shape[0]
    rows = x.reshape(-1, D)
    y = rows @ weight.astype(x.dtype).reshape(D, -1)
    if pair is not None:
        y = y + low_rank(rows, pair, jnp.matmul)
    return y.reshape(*x.shape[:-1], y.shape[-1])


def mlp(
    x: jax.Array, gate_up_D2F: jax.Array, down_FD: jax.Array, gate_up_pair: Pair | None, down_pair: Pair | None
) -> jax.Array:
    """down(silu(gate x) * up x): [..., D] -> [..., D], gate and up in one product.

    Args:
      x: [..., D].
      gate_up_D2F, down_FD: the matrices; gate first.
      gate_up_pair, down_pair: LoRA's factors of them.
    """
    hidden = project(x, gate_up_D2F, gate_up_pair)
    return project(gated(hidden.reshape(*x.shape[:-1], *gate_up_D2F.shape[1:])), down_FD, down_pair)
