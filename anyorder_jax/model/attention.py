"""Who may attend to whom, said in words, and the attention that follows from it."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from anyorder_jax import sharding
from anyorder_jax.model.kernels import attention as kernels


class Full(NamedTuple):
    """Every position attends to every position of its row (bidirectional)."""


class Segments(NamedTuple):
    """Packed examples: a position attends to those with its own id.

        segment_ids  1 1 1 2 2 0        attends   1 1 1 . . .     (query position 0)
                                                  . . . 2 2 .     (query position 3)
                                                  . . . . . 0     (padding, id 0, sees padding only)

    segment_ids_BL: int32 [B, L]; each id stands in one run (kernels see it as an interval of keys).
    """

    segment_ids_BL: jax.Array


class BlockDiffusion(NamedTuple):
    """Rows [noisy ; clean] of 2L positions, in blocks (LLaDA2.0 report, eq. 3).

    A noisy position attends to its own noisy block and to the earlier clean blocks; a clean position to its
    own and the earlier clean blocks; clean never sees noisy. With L = 4 and block_size = 2 (o: may attend):

                     noisy    clean
        noisy 0 1    o o . .  . . . .
              2 3    . . o o  o o . .
        clean 0 1    . . . .  o o . .
              2 3    . . . .  o o o o

    block_size: positions in a block; the last block of a row may be shorter. Blocks count from the start of
      the row, so a packed example starts at a multiple of block_size.
    segment_ids_BL: int32 [B, L] of one half, or None for one example a row.
    """

    block_size: int
    segment_ids_BL: jax.Array | None = None


class BlockCausal(NamedTuple):
    """A position attends to its own block and the earlier ones of its example: the clean half of `BlockDiffusion`, and
    what a model so trained sees while it writes. What finished blocks hold never changes (`cache.py`).

    block_size: as there. segment_ids_BL: int32 [B, L]; each example starts at a multiple of block_size.
    """

    block_size: int
    segment_ids_BL: jax.Array


Attention = Full | Segments | BlockDiffusion | BlockCausal


def can_attend(attention: Attention, num_rows: int, length: int) -> jax.Array | None:
    """The relation as booleans [B or 1, length, length], query by key; None when everything may be seen.

    Args:
      num_rows, length: of the queries; `length` is 2L for `BlockDiffusion`.

    Raises:
      ValueError: when the segment ids do not fit the rows.
    """
    _check(attention, num_rows, length)
    match attention:
        case Segments(segment_ids_BL=ids_BL):
            return ids_BL[:, :, None] == ids_BL[:, None, :]
        case BlockCausal(block_size=block_size, segment_ids_BL=ids_BL):
            place = jnp.arange(length)
            allowed = _is_no_later_block(block_size, place[:, None], place[None])[None]
            return allowed & (ids_BL[:, :, None] == ids_BL[:, None, :])
        case BlockDiffusion(block_size=block_size, segment_ids_BL=ids_BL):
            place = jnp.arange(length)
            allowed = _block_relation(block_size, length // 2, place[:, None], place[None])[None]
            if ids_BL is None:
                return allowed
            ids_B2L = jnp.concatenate([ids_BL, ids_BL], axis=1)
            return allowed & (ids_B2L[:, :, None] == ids_B2L[:, None, :])
    return None


def places(attention: Attention, num_rows: int, length: int) -> jax.Array:
    """Every position's place in its document: int32 [num_rows, length].

        segment_ids  1 1 1 2 2 0      places  0 1 2 0 1 0

    Those of [noisy ; clean] start again in the clean half.
    """
    is_twice = isinstance(attention, BlockDiffusion)
    ids_BL = getattr(attention, "segment_ids_BL", None)
    if ids_BL is None:
        ids_BL = jnp.zeros((num_rows, length // 2 if is_twice else length), jnp.int32)
    if is_twice:
        ids_BL = jnp.concatenate([ids_BL, ~ids_BL], axis=1)  # no run goes on in the other half
    return jnp.arange(length, dtype=jnp.int32)[None] - runs(ids_BL)[0]


def _block_relation(block_size: int, half: int, query: Any, key: Any) -> Any:
    """Whether positions `query` see positions `key` of [noisy ; clean], documents apart. Arrays or integers."""
    is_clean_q, is_clean_k = query >= half, key >= half
    block_q = (query - half * is_clean_q) // block_size
    block_k = (key - half * is_clean_k) // block_size
    earlier_clean = is_clean_k & (block_k < block_q)
    own = (is_clean_q == is_clean_k) & (block_k == block_q)
    return earlier_clean | own


def _is_no_later_block(block_size: int, query: Any, key: Any) -> Any:
    """Whether positions `query` see positions `key` of a row, documents apart. Arrays or integers."""
    return key // block_size <= query // block_size


def _check(attention: Attention, num_rows: int, length: int) -> None:
    """Raises for a description that does not fit the rows."""
    match attention:
        case Full():
            return
        case Segments(segment_ids_BL=ids_BL) | BlockCausal(segment_ids_BL=ids_BL):
            _check_shape(ids_BL, (num_rows, length))
        case BlockDiffusion(block_size=block_size, segment_ids_BL=ids_BL):
            if length % 2 or block_size < 1:
                raise ValueError(
                    "BlockDiffusion: expected [noisy ; clean] of even length and block_size >= 1, "
                    f"got length {length} and block_size {block_size}."
                )
            if ids_BL is not None:
                _check_shape(ids_BL, (num_rows, length // 2))
        case _:
            raise TypeError(
                f"attention: expected Full, Segments, BlockDiffusion or BlockCausal, got {type(attention).__name__}."
            )


def _check_shape(ids: jax.Array, expected: tuple[int, int]) -> None:
    if ids.shape != expected:
        raise ValueError(f"attention: segment ids are {ids.shape}, the rows they describe are {expected}.")


def attend(
    q_BLHC: jax.Array,
    k_BLKC: jax.Array,
    v_BLKC: jax.Array,
    attention: Attention,
    *,
    mesh: Mesh | None = None,
    backend: str | None = None,
) -> jax.Array:
    """softmax(q k^T / sqrt(C)) v over the positions that `attention` allows; softmax in float32.

    Query heads j*H/K to (j+1)*H/K - 1 share key and value head j; keys and values are not repeated. Every
    position attends at least to itself, so no row of the softmax is empty.

        "xla"     scores stand in memory: [L, L], for `BlockDiffusion` [2L, L] and the blocks themselves
        "flash"   Hopper (16 bit): cuDNN, for segments and block diffusion Tokamax over intervals of keys
        "splash"  TPU (128 dims a head, L a multiple of 128)

    Args:
      q_BLHC: queries.
      k_BLKC: keys.
      v_BLKC: values.
      attention: who sees whom.
      mesh: every device attends for its own rows and, along `tensor`, its own heads. None: one device.
      backend: one of the above; None: the best that the mesh's devices, the shapes and dtypes allow.

    Returns:
      [B, L, H, C] in q's dtype.
    """
    B, L, H, _ = q_BLHC.shape
    K = k_BLKC.shape[2]
    ids = getattr(attention, "segment_ids_BL", None)
    _check(attention, B, L)
    backend = backend or best_backend(sharding.platform(mesh), q_BLHC)
    if backend == "xla" or mesh is None:
        return _attend_here(backend, q_BLHC, k_BLKC, v_BLKC, attention)
    head_parts = mesh.shape["tensor"]
    if H % head_parts or K % head_parts:
        raise ValueError(f"config.mesh: tensor={head_parts} does not divide {H} heads and {K} kv-heads.")

    def here(q: jax.Array, k: jax.Array, v: jax.Array, *own_ids: jax.Array) -> jax.Array:
        own: Any = attention
        return _attend_here(backend, q, k, v, own._replace(segment_ids_BL=own_ids[0]) if own_ids else own)

    arrays = (q_BLHC, k_BLKC, v_BLKC) + (() if ids is None else (ids,))
    heads, rows = sharding.attention_specs()
    in_specs = (heads,) * 3 + (() if ids is None else (rows,))
    return sharding.on_devices(here, mesh, in_specs, heads)(*arrays)


def best_backend(platform: str, q_BLHC: jax.Array) -> str:
    """What `attend` chooses for queries like these on one of `sharding.platform`'s devices."""
    _, L, _, C = q_BLHC.shape
    if platform == "hopper" and q_BLHC.dtype in (jnp.bfloat16, jnp.float16) and C % 8 == 0:
        return "flash"
    if platform == "tpu" and C % 128 == 0 and L % 128 == 0:
        return "splash"
    return "xla"


def _attend_here(backend: str, q: jax.Array, k: jax.Array, v: jax.Array, attention: Attention) -> jax.Array:
    """`attend` on one device."""
    B, L, _, _ = q.shape
    match backend, attention:
        case "xla", Full() | Segments() | BlockCausal():
            return kernels.dense(q, k, v, can_attend(attention, B, L))
        case "xla", BlockDiffusion():
            return _block_diffusion(attention.block_size, kernels.XlaIntervals, q, k, v, attention.segment_ids_BL)
        case "flash", Full():
            return kernels.cudnn(q, k, v)
        case "flash", Segments():
            return kernels.MosaicIntervals.attend(q, k, v, *runs(attention.segment_ids_BL))
        case "flash", BlockCausal(block_size, ids_BL):
            intervals = (x[:, L:] for x in _clean_intervals(block_size, ids_BL, (B, L)))
            return kernels.MosaicIntervals.attend(q, k, v, *intervals)
        case "flash", BlockDiffusion():
            return _block_diffusion(attention.block_size, kernels.MosaicIntervals, q, k, v, attention.segment_ids_BL)
        case "splash" | "splash-interpret", _:
            relation: Any = None
            ids = getattr(attention, "segment_ids_BL", None)
            if isinstance(attention, BlockCausal):
                relation = functools.partial(_is_no_later_block, attention.block_size)
            if isinstance(attention, BlockDiffusion):
                relation = functools.partial(_block_relation, attention.block_size, L // 2)
                ids = None if ids is None else jnp.concatenate([ids, ids], axis=1)
            return kernels.splash(q, k, v, relation, ids, interpret=backend == "splash-interpret")
    raise ValueError(f"attention: unknown back-end {backend!r}; known: xla, flash, splash.")


def runs(ids_BL: jax.Array) -> tuple[jax.Array, jax.Array]:
    """First position of every position's run of equal ids, and one past its last: int32 [B, L] each.

    ids    1 1 1 2 2 0      start  0 0 0 3 3 5      end  3 3 3 5 5 6
    """
    L = ids_BL.shape[1]
    place_BL = jnp.broadcast_to(jnp.arange(L, dtype=jnp.int32), ids_BL.shape)
    is_other_BL = ids_BL[:, 1:] != ids_BL[:, :-1]
    edge_B1 = jnp.ones_like(is_other_BL, shape=(ids_BL.shape[0], 1))
    is_first_BL, is_last_BL = (jnp.concatenate(x, axis=1) for x in ((edge_B1, is_other_BL), (is_other_BL, edge_B1)))
    start_BL = jax.lax.cummax(jnp.where(is_first_BL, place_BL, 0), axis=1)
    end_BL = jax.lax.cummin(jnp.where(is_last_BL, place_BL + 1, L), axis=1, reverse=True)
    return start_BL, end_BL


def _clean_intervals(block_size: int, ids_BL: jax.Array | None, shape: tuple[int, int]) -> tuple[jax.Array, jax.Array]:
    """Which clean keys each of the 2L queries sees: from its document's start to its block's start (noisy) or end
    (clean). int32 [B, 2L] each."""
    B, L = shape
    place_BL = jnp.broadcast_to(jnp.arange(L, dtype=jnp.int32), (B, L))
    first_BL, past_BL = (jnp.zeros_like(place_BL), jnp.full_like(place_BL, L)) if ids_BL is None else runs(ids_BL)
    block_BL = place_BL // block_size * block_size
    end_BL = jnp.minimum(block_BL + block_size, past_BL)
    return jnp.concatenate([first_BL, first_BL], axis=1), jnp.concatenate([block_BL, end_BL], axis=1)


def _own_blocks(block_size: int, ids_BL: jax.Array | None, *arrays: jax.Array) -> tuple[list[jax.Array], jax.Array]:
    """Rows [B, L, ...] -> rows [B * blocks, block_size, ...], and who of a block may see whom.

    A last shorter block is filled up with positions of a document of their own.
    """
    B, L = arrays[0].shape[:2]
    rest = -L % block_size
    ids_BL = jnp.zeros((B, L), jnp.int32) if ids_BL is None else ids_BL
    ids_BL = jnp.pad(ids_BL, ((0, 0), (0, rest)), constant_values=-1)
    ids = ids_BL.reshape(-1, block_size)
    cut = [
        jnp.pad(x, ((0, 0), (0, rest)) + ((0, 0),) * (x.ndim - 2)).reshape(-1, block_size, *x.shape[2:]) for x in arrays
    ]
    return cut, ids[:, :, None] == ids[:, None, :]


def _uncut(x: jax.Array, num_rows: int, length: int) -> jax.Array:
    """The inverse of `_own_blocks` for one array."""
    return x.reshape(num_rows, -1, *x.shape[2:])[:, :length]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _block_diffusion(
    block_size: int, intervals: Any, q: jax.Array, k: jax.Array, v: jax.Array, ids_BL: jax.Array | None
) -> jax.Array:
    """`BlockDiffusion` as two parts of one softmax, each with its own kernel, merged by their log-sum-exps:

        clean   all 2L queries over an interval of the L clean keys      (kernels.XlaIntervals, MosaicIntervals)
        own     noisy queries over their own noisy block                 (dense products of block_size)

    The gradient is written out because kernels give none for their log-sum-exp: with the merged output and
    log-sum-exp each part's gradient is that of ordinary flash attention.
    """
    return _block_diffusion_forward(block_size, intervals, q, k, v, ids_BL)[0]


def _block_diffusion_forward(
    block_size: int, intervals: Any, q: jax.Array, k: jax.Array, v: jax.Array, ids_BL: jax.Array | None
) -> tuple[jax.Array, tuple]:
    B, L = q.shape[0], q.shape[1] // 2
    start, end = _clean_intervals(block_size, ids_BL, (B, L))
    out, lse = intervals.forward(q, k[:, L:], v[:, L:], start, end)
    cut, allowed = _own_blocks(block_size, ids_BL, q[:, :L], k[:, :L], v[:, :L])
    own_out, own_lse = (_uncut(x, B, L) for x in kernels.dense_forward(cut[0], cut[1], cut[2], allowed))
    noisy_lse = jnp.logaddexp(lse[:, :L], own_lse)
    noisy_out = (
        out[:, :L] * jnp.exp(lse[:, :L] - noisy_lse)[..., None] + own_out * jnp.exp(own_lse - noisy_lse)[..., None]
    )
    out = jnp.concatenate([noisy_out, out[:, L:]], axis=1).astype(q.dtype)
    return out, (q, k, v, ids_BL, out, jnp.concatenate([noisy_lse, lse[:, L:]], axis=1))


def _block_diffusion_backward(block_size: int, intervals: Any, saved: tuple, grad: jax.Array) -> tuple:
    q, k, v, ids_BL, out, lse = saved
    B, L = q.shape[0], q.shape[1] // 2
    start, end = _clean_intervals(block_size, ids_BL, (B, L))
    delta = (grad.astype(jnp.float32) * out.astype(jnp.float32)).sum(-1)
    clean = intervals.backward(q, k[:, L:], v[:, L:], start, end, kernels.Merged(out, lse, delta, grad))
    noisy = (x[:, :L] for x in (q, k, v, lse, delta, grad))
    (q_own, k_own, v_own, *others), allowed = _own_blocks(block_size, ids_BL, *noisy)
    own = kernels.dense_backward(q_own, k_own, v_own, allowed, *others)
    grad_q, grad_k, grad_v = (_uncut(x, B, L) for x in own)
    grad_q = jnp.concatenate([clean[0][:, :L] + grad_q, clean[0][:, L:]], axis=1).astype(q.dtype)
    grad_k = jnp.concatenate([grad_k, clean[1].astype(jnp.float32)], axis=1).astype(k.dtype)
    grad_v = jnp.concatenate([grad_v, clean[2].astype(jnp.float32)], axis=1).astype(v.dtype)
    return grad_q, grad_k, grad_v, None


_block_diffusion.defvjp(_block_diffusion_forward, _block_diffusion_backward)
