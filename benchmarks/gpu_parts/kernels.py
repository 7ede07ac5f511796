"""Every kernel against its definition in float64: grouped products and attention, forward and all gradients."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from anyorder_jax import sharding
from anyorder_jax.model import attention
from anyorder_jax.model.kernels import attention as kernels
from anyorder_jax.model.kernels import grouped
from gpu_parts.measuring import Error, Size, are_bits_equal, error_of, seconds_of, worst
from gpu_parts.rows import Rows

BOUNDS = {"bfloat16": Error(2e-2, 1e-2), "float32": Error(2e-3, 1e-3)}
"""Of 16-bit operands, and of products of float32 as a GPU makes them (TF32 keeps 10 bits: about 3e-4)."""
TILE = 8
GRADIENTS = ("gradient of q", "gradient of k", "gradient of v")


def judge(rows: Rows, name: str, dtype: str, run: Callable[[], Any], expected: dict[str, Any]) -> None:
    """Runs twice (the bits must be equal) and compares every array with its reference, by name."""
    found = run()
    rows.judge(name, "bits of two runs are equal", are_bits_equal(found, run()))
    errors = {key: error_of(found[key], reference) for key, reference in expected.items()}
    which, error = worst(errors)
    rows.add(name, "largest error", error.largest, at_most=BOUNDS[dtype].largest, note=f"of {which}")
    rows.add(name, "norm of the error", error.norm, at_most=BOUNDS[dtype].norm)


def loads(kind: str, num_experts: int, num_rows: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of each expert, int32 [E], multiples of TILE that sum to at most `num_rows`."""
    tiles = num_rows // TILE
    match kind:
        case "even":
            share = np.full(num_experts, 1 / num_experts)
        case "one expert takes all":
            share = np.eye(num_experts)[num_experts * 3 // 4]
        case _:  # "empty experts": the first, the last and every other one
            share = np.arange(num_experts) % 2 * (np.arange(num_experts) < num_experts - 1)
            share = share / share.sum()
    return (rng.multinomial(tiles, share) * TILE).astype(np.int32)


@functools.partial(jax.jit, static_argnames="largest")
def grouped_definition(x: Any, w: Any, start: Any, sizes: Any, grad: Any, largest: int) -> tuple[Any, Any, Any]:
    """Expert by expert, in the inputs' float64: y, the gradients of x and w (float32, 0 where nobody's)."""
    x, grad = (jnp.pad(a, ((0, largest), (0, 0))) for a in (x, grad))

    def one(found: tuple[Any, Any], expert: tuple[Any, Any, Any]) -> tuple[tuple[Any, Any], Any]:
        own_w, first, number = expert
        is_own = (jnp.arange(largest) < number)[:, None]
        own_x, own_grad = (jnp.where(is_own, jax.lax.dynamic_slice_in_dim(a, first, largest), 0) for a in (x, grad))
        rows = own_x @ own_w, own_grad @ own_w.T
        kept = [jax.lax.dynamic_slice_in_dim(a, first, largest) for a in found]
        new = [jnp.where(is_own, row.astype(jnp.float32), old) for row, old in zip(rows, kept, strict=True)]
        found = tuple(jax.lax.dynamic_update_slice_in_dim(a, n, first, 0) for a, n in zip(found, new, strict=True))
        return found, (own_x.T @ own_grad).astype(jnp.float32)

    empty = jnp.zeros((len(x), w.shape[2]), jnp.float32), jnp.zeros(x.shape, jnp.float32)
    (y, grad_x), grad_w = jax.lax.scan(one, empty, (w, start, sizes))
    return y, grad_x, grad_w


def grouped_reference(x: Any, w: Any, sizes: np.ndarray, grad: Any) -> dict[str, jax.Array]:
    """`grouped_definition` in float64 on the device."""
    filled = int(sizes.sum())
    with jax.enable_x64(True):
        wide = [jnp.asarray(np.asarray(a.astype(jnp.float32)), jnp.float64) for a in (x, w, grad)]
        start = jnp.asarray(np.cumsum(sizes) - sizes, jnp.int32)
        largest = 1 << max(int(sizes.max()) - 1, 1).bit_length()
        y, grad_x, grad_w = grouped_definition(wide[0], wide[1], start, jnp.asarray(sizes), wide[2], largest)
        return {"y": y[:filled], "gradient of x": grad_x[:filled], "gradient of w": grad_w}


@functools.partial(jax.jit, static_argnames=("backend", "num_filled"))
def grouped_ours(x: Any, w: Any, sizes: Any, grad: Any, backend: str, num_filled: int) -> dict[str, jax.Array]:
    """As the reference, by `grouped.grouped_dot`; rows behind the last group may hold anything and are cut off."""
    y, gradient = jax.vjp(lambda x, w: grouped.grouped_dot(x, w, sizes, TILE, backend), x, w)
    grad_x, grad_w = gradient(grad)
    return {"y": y[:num_filled], "gradient of x": grad_x[:num_filled], "gradient of w": grad_w}


def grouped_backends(platform: str) -> list[tuple[str, str]]:
    """(back-end, dtype) of this platform, what it prefers first."""
    match platform:
        case "hopper":
            return [("mosaic", "bfloat16"), ("tiles", "float32")]
        case "cpu":
            return [("pieces", "float32"), ("tiles", "bfloat16"), ("ragged", "float32")]
    return [("tiles", "bfloat16"), ("tiles", "float32")]


def check_grouped(rows: Rows, size: Size, platform: str) -> None:
    """The shapes of mini's experts with three kinds of load, and an odd one."""
    R, E, D, F = size.of((32_768, 256, 2048, 512), toy=(128, 6, 24, 16))
    shapes = [("gate and up", R, E, D, 2 * F), ("down", R, E, F, D), ("odd", 1000, 7, 192, 320)]
    for backend, dtype in grouped_backends(platform):
        for what, R, E, D, F in shapes:
            rng = np.random.default_rng(0)
            normal = lambda *s: jnp.asarray(rng.standard_normal(s, np.float32)).astype(dtype)  # noqa: B023, E731
            x, w, grad = normal(R, D), normal(E, D, F), normal(R, F)
            kinds = ("even", "one expert takes all", "empty experts") if what != "down" else ("even",)
            for kind in kinds:
                name = f"grouped {backend} {dtype}, {what}, {kind}"
                with rows.attempt(name):
                    sizes = loads(kind, E, R - (R // 10 if what == "odd" else 0), rng)
                    filled = int(sizes.sum())
                    once = lambda: grouped_ours(x, w, jnp.asarray(sizes), grad, backend, filled)  # noqa: B023, E731
                    judge(rows, name, dtype, once, grouped_reference(x, w, sizes, grad))
                    if kind == "even":
                        rate = 6 * filled * D * F / seconds_of(once, size.of(10, toy=1)) / 1e12
                        rows.add(name, "rate", rate, "TFLOP/s", note="forward and both gradients")


@functools.partial(jax.jit, static_argnames="with_lse")
def definition(q: Any, k: Any, v: Any, allowed: Any, grad: Any, with_lse: bool = False) -> dict[str, jax.Array]:
    """softmax(q k^T / sqrt(C)) v and its gradients, in the inputs' float64, a head at a time.

    Args:
      q [B, Q, H, C], k and v [B, S, K, C], allowed bool [B, Q, S], grad as q. A query that sees nothing gets 0.
      with_lse: also the log-sum-exp [B, Q, H].
    """
    B, Q, H, C = q.shape
    G = H // k.shape[2]

    @jax.checkpoint
    def head(n: Any, q: Any, k: Any, v: Any) -> tuple[jax.Array, jax.Array]:
        b, h = n // H, n % H
        seen = allowed[b]
        scores = jnp.where(seen, q[b, :, h] @ k[b, :, h // G].T / math.sqrt(C), -1e300)
        top = scores.max(-1, keepdims=True)
        weight = jnp.where(seen, jnp.exp(scores - top), 0)
        total = weight.sum(-1, keepdims=True)
        return weight / jnp.where(total > 0, total, 1) @ v[b, :, h // G], (top + jnp.log(total))[:, 0]

    def every(q: Any, k: Any, v: Any) -> tuple[jax.Array, jax.Array]:
        out, lse = jax.lax.map(lambda n: head(n, q, k, v), jnp.arange(B * H))
        return out.reshape(B, H, Q, C).transpose(0, 2, 1, 3), lse.reshape(B, H, Q).transpose(0, 2, 1)

    out, gradient, lse = jax.vjp(every, q, k, v, has_aux=True)
    found = {"out": out, **dict(zip(GRADIENTS, gradient(grad), strict=True))}
    return {**found, "log-sum-exp": lse} if with_lse else found


def reference(arrays: tuple[Any, ...], allowed: Any, with_lse: bool = False) -> dict[str, np.ndarray]:
    """`definition` in float64 on the device, of arrays (q, k, v, grad)."""
    host = [np.asarray(a.astype(jnp.float32)) for a in arrays]
    with jax.enable_x64(True):
        q, k, v, grad = (jnp.asarray(a, jnp.float64) for a in host)
        B = q.shape[0]
        allowed = jnp.broadcast_to(jnp.asarray(allowed), (B, q.shape[1], k.shape[1]))
        return jax.tree.map(np.asarray, definition(q, k, v, allowed, grad, with_lse))


def heads(B: int, Q: int, S: int, H: int, K: int, C: int, dtype: str) -> tuple[jax.Array, ...]:
    """Random (q, k, v, gradient of the output)."""
    rng = np.random.default_rng(1)
    shapes = [(B, Q, H, C), (B, S, K, C), (B, S, K, C), (B, Q, H, C)]
    return tuple(jnp.asarray(rng.standard_normal(s, np.float32)).astype(dtype) for s in shapes)


def segment_ids(length: int, lengths: list[int], padding: int) -> jax.Array:
    """int32 [1, L]: documents 1, 2, ... as long as `lengths` has it, over and over, then padding (0)."""
    ids = np.repeat(np.arange(1, length + 1), np.resize(lengths, length))[: length - padding]
    return jnp.asarray(np.concatenate([ids, np.zeros(padding, int)])[None], jnp.int32)


def attend_ours(kind: Any, backend: str) -> Callable[..., dict[str, jax.Array]]:
    """(q, k, v, grad) -> as `definition`, by `attention.attend`."""

    @jax.jit
    def run(q: Any, k: Any, v: Any, grad: Any) -> dict[str, jax.Array]:
        out, gradient = jax.vjp(lambda *x: attention.attend(*x, kind, backend=backend), q, k, v)
        return {"out": out, **dict(zip(GRADIENTS, gradient(grad), strict=True))}

    return run


def check_attention(rows: Rows, size: Size, platform: str) -> None:
    """Everybody, packed documents and block diffusion, at mini's shape and at odd ones."""
    L, H, K, C, block = size.of((4096, 16, 4, 128, 32), toy=(64, 4, 2, 16, 8))
    odd = size.of(1000, toy=44)
    packed = segment_ids(L, [L // 4], L // 16)
    ragged = segment_ids(odd, [1, 7, 130, 64], 3)
    blocks = segment_ids(odd // 2, [3 * block, block], 3)
    cases: list[tuple[str, Any, int]] = [
        ("everybody", attention.Full(), L),
        ("packed documents", attention.Segments(packed), L),
        ("block diffusion", attention.BlockDiffusion(block), 2 * L),
        ("block diffusion of packed documents", attention.BlockDiffusion(block, blocks), odd // 2 * 2),
        ("documents of one token and more", attention.Segments(ragged), odd),
        ("everybody, odd length", attention.Full(), odd),
    ]
    backends = [("flash", "bfloat16")] if platform == "hopper" else []
    for backend, dtype in [*backends, ("xla", "float32")]:
        for what, kind, length in cases:
            if backend == "xla" and length > odd and not size.is_toy:
                continue  # its scores stand in memory: checked at the odd length
            name = f"attention {backend} {dtype}, {what}"
            with rows.attempt(name):
                arrays = heads(1, length, length, H, K, C, dtype)
                allowed = attention.can_attend(kind, 1, length)
                once = functools.partial(attend_ours(kind, backend), *arrays)
                everything = np.ones((1, length, length), bool)
                judge(rows, name, dtype, once, reference(arrays, everything if allowed is None else allowed))
                if length >= L:
                    seconds = seconds_of(once, size.of(10, toy=1))
                    rows.add(name, "time", seconds * 1e3, "ms", note="forward and gradients")


def check_intervals(rows: Rows, size: Size, platform: str) -> None:
    """The two halves of block diffusion's kernel alone: intervals of keys, a quarter of them empty."""
    B, Q, S, H, K, C = size.of((2, 2048, 1024, 16, 4, 128), toy=(2, 24, 16, 4, 2, 16))
    rng = np.random.default_rng(2)
    start, length = rng.integers(0, S, (B, Q)), rng.integers(1, S, (B, Q)) * (rng.random((B, Q)) > 0.25)
    start, end = start.astype(np.int32), np.minimum(start + length, S).astype(np.int32)
    key = np.arange(S)
    allowed = (key >= start[..., None]) & (key < end[..., None])
    kinds: list[tuple[Any, str]] = [(kernels.XlaIntervals, "float32")]
    if platform == "hopper":
        kinds.insert(0, (kernels.MosaicIntervals, "bfloat16"))
    for kind, dtype in kinds:
        name = f"intervals {kind.__name__} {dtype}, a quarter empty"
        with rows.attempt(name):
            arrays = heads(B, Q, S, H, K, C, dtype)
            expected = reference(arrays, allowed, with_lse=True)
            is_seeing = allowed.any(-1)[..., None]
            expected["log-sum-exp"] = np.where(is_seeing, expected["log-sum-exp"], 0)

            @jax.jit
            def ours(q: Any, k: Any, v: Any, grad: Any, kind: Any = kind) -> dict[str, jax.Array]:
                out, lse = kind.forward(q, k, v, start, end)
                lse = jnp.where(jnp.isneginf(lse), 0, lse)  # of all parts: a query sees something in another one
                delta = (grad.astype(jnp.float32) * out).sum(-1)
                grads = kind.backward(q, k, v, start, end, kernels.Merged(out.astype(q.dtype), lse, delta, grad))
                return {"out": out, **dict(zip(GRADIENTS, grads, strict=True)), "log-sum-exp": lse}

            judge(rows, name, dtype, lambda: ours(*arrays), expected)  # noqa: B023


def run(rows: Rows, size: Size) -> None:
    """What training calls most often first."""
    platform = sharding.platform(None)
    rows.add("kernels", "platform", platform)
    check_grouped(rows, size, platform)
    check_attention(rows, size, platform)
    check_intervals(rows, size, platform)
