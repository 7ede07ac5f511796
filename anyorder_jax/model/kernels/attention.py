"""Softmax attention over positions that are already known: dense for XLA, Tokamax and cuDNN on a GPU, splash on a TPU.

`attention.py` says who may attend to whom and calls these. All take q [B, Q, H, C], k and v [B, S, K, C]; query heads
j*H/K to (j+1)*H/K - 1 share key and value head j, which are never repeated; the scale is 1/sqrt(C).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

# No query sees all of an interval that is empty; its part of the softmax is weighed with exp(-inf).
_NOTHING = -jnp.inf


def _grouped(q_BQHC: jax.Array, num_kv_heads: int) -> jax.Array:
    """[B, Q, H, C] -> [B*K, Q*G, C]: the query heads of a kv-head next to each other (with K = 1 nothing moves)."""
    B, Q, H, C = q_BQHC.shape
    G = H // num_kv_heads
    return q_BQHC.reshape(B, Q, num_kv_heads, G, C).transpose(0, 2, 1, 3, 4).reshape(B * num_kv_heads, Q * G, C)


def _ungrouped(x_NMC: jax.Array, num_rows: int, num_heads: int) -> jax.Array:
    """The inverse of `_grouped`."""
    N, M, C = x_NMC.shape
    K = N // num_rows
    G = num_heads // K
    return x_NMC.reshape(num_rows, K, M // G, G, C).transpose(0, 2, 1, 3, 4).reshape(num_rows, M // G, num_heads, C)


def _by_kv_head(x_BSKC: jax.Array) -> jax.Array:
    """[B, S, K, C] -> [B*K, C, S]. With S last a CPU multiplies faster, most of all in the gradient."""
    B, S, K, C = x_BSKC.shape
    return x_BSKC.transpose(0, 2, 3, 1).reshape(B * K, C, S)


def _from_kv_head(x_NCS: jax.Array, num_rows: int) -> jax.Array:
    N, C, S = x_NCS.shape
    return x_NCS.reshape(num_rows, N // num_rows, C, S).transpose(0, 3, 1, 2)


def _dot(pattern: str, *x: jax.Array) -> jax.Array:
    return jnp.einsum(pattern, *x, preferred_element_type=jnp.float32)


def _scores(q_NMC: jax.Array, k_NCS: jax.Array, allowed_BQS: jax.Array | None) -> jax.Array:
    """float32 [B*K, Q*G, S], -inf where a query must not look."""
    scores = _dot("nmc,ncs->nms", q_NMC, k_NCS) / math.sqrt(q_NMC.shape[-1])
    if allowed_BQS is None:
        return scores
    rows, Q, S = allowed_BQS.shape
    G = scores.shape[1] // Q
    by_head = scores.reshape(rows, len(scores) // rows, Q, G, S)
    return jnp.where(allowed_BQS[:, None, :, None], by_head, _NOTHING).reshape(scores.shape)


@jax.custom_vjp
def dense(q_BQHC: jax.Array, k_BSKC: jax.Array, v_BSKC: jax.Array, allowed_BQS: jax.Array | None) -> jax.Array:
    """Attention with scores [B, H, Q, S] in memory. Every query must see something.

    One plain batched product per kv-head, its query heads side by side: 1.8 times faster on a CPU than the einsum over
    b, k and g. The gradient is written out: exp(scores) is kept as it is, and sums over S become sums over C.

    Args:
      q_BQHC, k_BSKC, v_BSKC: queries, keys and values, H / K query heads to a kv-head.
      allowed_BQS: bool, who may attend to whom.
    """
    return _dense_forward(q_BQHC, k_BSKC, v_BSKC, allowed_BQS)[0]


def _dense_forward(q_BQHC: Any, k_BSKC: Any, v_BSKC: Any, allowed_BQS: Any) -> tuple[jax.Array, tuple]:
    B, _, H, _ = q_BQHC.shape
    q_NMC = _grouped(q_BQHC, k_BSKC.shape[2])
    k_NCS, v_NCS = _by_kv_head(k_BSKC), _by_kv_head(v_BSKC)
    scores_NMS = _scores(q_NMC, k_NCS, allowed_BQS)
    exp_NMS = jnp.exp(scores_NMS - scores_NMS.max(-1, keepdims=True))
    share_NM1 = 1 / exp_NMS.sum(-1, keepdims=True)
    exp_NMS = exp_NMS.astype(v_BSKC.dtype)
    mixed_NMC = _dot("nms,ncs->nmc", exp_NMS, v_NCS) * share_NM1
    return _ungrouped(mixed_NMC.astype(q_BQHC.dtype), B, H), (q_NMC, k_NCS, v_NCS, exp_NMS, share_NM1, mixed_NMC)


def _dense_backward(saved: tuple, grad_BQHC: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, None]:
    """With P = exp * share, o = P v:  dv = P^T do,  ds = P (do v^T - sum_c do o),  dq = ds k,  dk = ds^T q."""
    q_NMC, k_NCS, v_NCS, exp_NMS, share_NM1, mixed_NMC = saved
    B, _, H, C = grad_BQHC.shape
    grad_NMC = _grouped(grad_BQHC, len(q_NMC) // B).astype(jnp.float32) * share_NM1
    delta_NM1 = (grad_NMC * mixed_NMC).sum(-1, keepdims=True)
    grad_NMC = grad_NMC.astype(q_NMC.dtype)
    grad_scores_NMS = (exp_NMS * (_dot("nmc,ncs->nms", grad_NMC, v_NCS) - delta_NM1)).astype(q_NMC.dtype)
    grad_q_NMC = _dot("nms,ncs->nmc", grad_scores_NMS, k_NCS) / math.sqrt(C)
    grad_k_NCS = _dot("nms,nmc->ncs", grad_scores_NMS, q_NMC) / math.sqrt(C)
    grad_v_NCS = _dot("nms,nmc->ncs", exp_NMS, grad_NMC)
    dtype = grad_BQHC.dtype
    grads = _ungrouped(grad_q_NMC, B, H), _from_kv_head(grad_k_NCS, B), _from_kv_head(grad_v_NCS, B)
    return grads[0].astype(dtype), grads[1].astype(dtype), grads[2].astype(dtype), None


dense.defvjp(_dense_forward, _dense_backward)


def dense_forward(q_BQHC: Any, k_BSKC: Any, v_BSKC: Any, allowed_BQS: Any) -> tuple[jax.Array, jax.Array]:
    """(what the allowed keys say [B, Q, H, C] float32, log-sum-exp of their scores [B, Q, H] float32).

    A query that sees nothing gets 0 and -inf.

    Args:
      q_BQHC, k_BSKC, v_BSKC: queries, keys and values, H / K query heads to a kv-head.
      allowed_BQS: bool, who may attend to whom.
    """
    B, _, H, _ = q_BQHC.shape
    K = k_BSKC.shape[2]
    scores_NMS = _scores(_grouped(q_BQHC, K), _by_kv_head(k_BSKC), allowed_BQS)
    top_NM1 = scores_NMS.max(-1, keepdims=True)
    top_NM1 = jnp.where(jnp.isfinite(top_NM1), top_NM1, 0)
    exp_NMS = jnp.exp(scores_NMS - top_NM1)
    total_NM1 = exp_NMS.sum(-1, keepdims=True)
    weight_NMS = (exp_NMS / jnp.where(total_NM1 > 0, total_NM1, 1)).astype(v_BSKC.dtype)
    mixed = _dot("nms,ncs->nmc", weight_NMS, _by_kv_head(v_BSKC))
    return _ungrouped(mixed, B, H), _ungrouped(top_NM1 + jnp.log(total_NM1), B, H)[..., 0]


def dense_backward(
    q_BQHC: Any, k_BSKC: Any, v_BSKC: Any, allowed_BQS: Any, lse_BQH: Any, delta_BQH: Any, grad_BQHC: Any
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients of q, k, v, float32, through these keys' part of a softmax.

    Args:
      q_BQHC, k_BSKC, v_BSKC: queries, keys and values, H / K query heads to a kv-head.
      allowed_BQS: bool, who may attend to whom.
      lse_BQH: log-sum-exp over all parts. delta_BQH: sum over C of grad * the merged output. grad_BQHC: of the merged
        output. With both global, parts need not know of one another (FlashAttention-2, arXiv 2307.08691, eq. 13-16).
    """
    B, _, H, C = q_BQHC.shape
    K = k_BSKC.shape[2]
    q_NMC, grad_NMC = _grouped(q_BQHC, K), _grouped(grad_BQHC, K)
    k_NCS, v_NCS = _by_kv_head(k_BSKC), _by_kv_head(v_BSKC)
    lse_NM1, delta_NM1 = (_grouped(x[..., None], K) for x in (lse_BQH, delta_BQH))
    weight_NMS = jnp.exp(_scores(q_NMC, k_NCS, allowed_BQS) - lse_NM1)
    grad_weight_NMS = _dot("nmc,ncs->nms", grad_NMC, v_NCS)
    grad_scores_NMS = (weight_NMS * (grad_weight_NMS - delta_NM1) / math.sqrt(C)).astype(q_BQHC.dtype)
    grad_q = _ungrouped(_dot("nms,ncs->nmc", grad_scores_NMS, k_NCS), B, H)
    grad_k = _from_kv_head(_dot("nms,nmc->ncs", grad_scores_NMS, q_NMC), B)
    grad_v = _from_kv_head(_dot("nms,nmc->ncs", weight_NMS.astype(grad_BQHC.dtype), grad_NMC), B)
    return grad_q, grad_k, grad_v


def _inside(start_BQ: jax.Array, end_BQ: jax.Array, num_keys: int) -> jax.Array:
    key_S = jnp.arange(num_keys, dtype=start_BQ.dtype)[None, None]
    return (key_S >= start_BQ[:, :, None]) & (key_S < end_BQ[:, :, None])


class Merged(NamedTuple):
    """Of a softmax whose parts were computed apart: out [B, Q, H, C] and its gradient `grad`; lse, delta [B, Q, H]: see
    `dense_backward`."""

    out: Any
    lse: Any
    delta: Any
    grad: Any


class XlaIntervals:
    """Query i attends to keys start[i] .. end[i] - 1 (none when end <= start); scores stand in memory."""

    @staticmethod
    def forward(q: Any, k: Any, v: Any, start_BQ: Any, end_BQ: Any) -> tuple[jax.Array, jax.Array]:
        """As `dense_forward`.

        Args:
          q, k, v: [B, Q, H, C] and [B, S, K, C], as in `dense_forward`.
          start_BQ, end_BQ: int32, each query's first key and the end of its keys.
        """
        return dense_forward(q, k, v, _inside(start_BQ, end_BQ, k.shape[1]))

    @staticmethod
    def backward(
        q: Any, k: Any, v: Any, start_BQ: Any, end_BQ: Any, merged: Merged
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """As `dense_backward`.

        Args:
          q, k, v: [B, Q, H, C] and [B, S, K, C], as in `dense_forward`.
          start_BQ, end_BQ: int32, each query's first key and the end of its keys.
          merged: of all parts.
        """
        return dense_backward(q, k, v, _inside(start_BQ, end_BQ, k.shape[1]), *merged[1:])


class MosaicIntervals:
    """The same by Tokamax's Hopper kernel, which skips keys outside in the forward pass. 16-bit inputs."""

    @staticmethod
    def _mask(start_BQ: jax.Array, end_BQ: jax.Array) -> tuple[Any, jax.Array]:
        """(Tokamax's mask, which queries see something). An empty interval becomes one key, and is told apart
        afterwards: what the kernel makes of it is its own affair."""
        from tokamax._src.ops.attention.base import Mask  # public functions take no intervals

        is_seeing_BQ = end_BQ > start_BQ
        start_BQ = jnp.where(is_seeing_BQ, start_BQ, 0)
        end_BQ = jnp.where(is_seeing_BQ, end_BQ, 1)
        return Mask(k_start=start_BQ[:, None], k_end=end_BQ[:, None]), is_seeing_BQ

    @classmethod
    def attend(cls, q: Any, k: Any, v: Any, start_BQ: Any, end_BQ: Any) -> jax.Array:
        """[B, Q, H, C] with Tokamax's own gradient; every query must see something.

        Args:
          q, k, v: [B, Q, H, C] and [B, S, K, C], as in `dense_forward`.
          start_BQ, end_BQ: int32, each query's first key and the end of its keys.
        """
        from tokamax._src.ops.attention.pallas_mosaic_gpu import PallasMosaicGpuFlashAttention

        return PallasMosaicGpuFlashAttention()(q, k, v, mask=cls._mask(start_BQ, end_BQ)[0])

    @classmethod
    def forward(cls, q: Any, k: Any, v: Any, start_BQ: Any, end_BQ: Any) -> tuple[jax.Array, jax.Array]:
        """As `dense_forward`.

        Args:
          q, k, v: [B, Q, H, C] and [B, S, K, C], as in `dense_forward`.
          start_BQ, end_BQ: int32, each query's first key and the end of its keys.
        """
        from tokamax._src.ops.attention.pallas_mosaic_gpu import PallasMosaicGpuFlashAttention

        mask, is_seeing_BQ = cls._mask(start_BQ, end_BQ)
        out, (top_BHQ, total_BHQ) = PallasMosaicGpuFlashAttention()(q, k, v, mask=mask, return_residuals=True)
        lse_BQH = (top_BHQ + jnp.log(total_BHQ)).transpose(0, 2, 1)
        lse_BQH = jnp.where(is_seeing_BQ[:, :, None], lse_BQH, _NOTHING)
        return jnp.where(is_seeing_BQ[:, :, None, None], out, 0).astype(jnp.float32), lse_BQH

    @classmethod
    def backward(
        cls, q: Any, k: Any, v: Any, start_BQ: Any, end_BQ: Any, merged: Merged
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """As `dense_backward`; the kernel makes its own delta from `out` and `grad`.

        Args:
          q, k, v: [B, Q, H, C] and [B, S, K, C], as in `dense_forward`.
          start_BQ, end_BQ: int32, each query's first key and the end of its keys.
          merged: of all parts.
        """
        from tokamax._src.ops.attention.pallas_mosaic_gpu import PallasMosaicGpuFlashAttention
        from tokamax._src.ops.attention.pallas_mosaic_gpu_vjp import PallasMosaicGpuFlashAttentionVjp

        out, lse, _, grad = merged
        mask, is_seeing_BQ = cls._mask(start_BQ, end_BQ)
        lse_BHQ = jnp.where(is_seeing_BQ[:, :, None], lse, 1e30).transpose(0, 2, 1)  # exp(score - 1e30) = 0
        residuals = (lse_BHQ, jnp.ones_like(lse_BHQ))  # (maximum, sum): their product is exp(lse)
        bound = PallasMosaicGpuFlashAttention().bind(q, k, v, mask=mask)
        settings = {name: value for name, value in bound.kwargs.items() if name != "return_residuals"}
        grads = PallasMosaicGpuFlashAttentionVjp()(residuals, out, grad, *bound.args, **settings)
        return grads["q"], grads["k"], grads["v"]


def cudnn(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Everybody sees everybody, by cuDNN's flash attention. 16-bit inputs."""
    return jax.nn.dot_product_attention(q, k, v, implementation="cudnn")


def splash(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    can_attend: Callable[[Any, Any], Any] | None = None,
    segment_ids_BS: jax.Array | None = None,
    *,
    interpret: bool = False,
) -> jax.Array:
    """Flash attention of a TPU: tiles that nobody may look at are skipped, in both directions.

    Args:
      q, k, v: as above, Q = S a multiple of 128.
      can_attend: (query positions, key positions) -> booleans, computed inside the kernel; None: everybody.
      segment_ids_BS: int32; also only within the same id.
      interpret: run it slowly on a CPU, for tests.
    """
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernel
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    class Computed(masks._ComputableMask):  # the only door for a mask that is computed tile by tile
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Computed) and self.shape == other.shape

        def __hash__(self) -> int:
            return hash((type(self), self.shape))

    _, L, H, C = q.shape
    relation = masks.FullMask((L, L)) if can_attend is None else Computed((L, L), can_attend)
    block = math.gcd(L, 512)
    sizes = kernel.BlockSizes(
        block_q=block, block_kv=block, block_kv_compute=block, block_q_dkv=block, block_kv_dkv=block,
        block_kv_dkv_compute=block, block_q_dq=block, block_kv_dq=block,
    )  # fmt: skip
    run = kernel.make_splash_mha(
        mask=masks.MultiHeadMask([relation] * H), head_shards=1, q_seq_shards=1, block_sizes=sizes, interpret=interpret
    )

    def one_row(q_LHC: Any, k_LKC: Any, v_LKC: Any, ids_S: Any) -> jax.Array:
        q_HLC, k_KLC, v_KLC = (x.transpose(1, 0, 2) for x in (q_LHC / math.sqrt(C), k_LKC, v_LKC))
        ids = None if ids_S is None else kernel.SegmentIds(q=ids_S, kv=ids_S)
        return run(q_HLC.astype(q.dtype), k_KLC, v_KLC, ids).transpose(1, 0, 2)

    return jax.vmap(one_row, in_axes=(0, 0, 0, None if segment_ids_BS is None else 0))(q, k, v, segment_ids_BS)
