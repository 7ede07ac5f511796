"""One MoE layer of mini, forward and backward: ours, its pieces, and PyTorch with the best fused kernels it has."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from anyorder_jax.config import Config
from anyorder_jax.model import attention, transformer
from anyorder_jax.model.config import ModelConfig
from anyorder_jax.types import Batch
from gpu_parts.measuring import FULL, Size, error_of, random_batch, recipe, seconds_of
from gpu_parts.rows import Rows, Skip, one_line

NAME = "one layer of mini"
RATIO = 1.5
"""Ours should be so many times as fast."""


def ours(config: Config, model: ModelConfig, batch: Batch, params: Any) -> tuple[Callable[[], Any], Any]:
    """(all gradients of the hidden states' sum, the hidden states)."""
    tokens, positions = jnp.asarray(batch.tokens), jnp.asarray(batch.positions)

    def loss(params: Any) -> tuple[jax.Array, jax.Array]:
        hidden, _, _ = transformer.hidden(
            model,
            params,
            tokens,
            positions,
            attention.Full(),
            transformer.Computation(jnp.dtype(config.model.compute_dtype)),
        )
        return hidden.astype(jnp.float32).sum(), hidden

    gradient, forward = jax.jit(jax.grad(lambda p: loss(p)[0])), jax.jit(lambda p: loss(p)[1])
    return lambda: gradient(params), np.asarray(forward(params).astype(jnp.float32))


def attention_backends(torch: Any) -> dict[str, Any]:
    """Name -> PyTorch's back-ends of `scaled_dot_product_attention`, fused ones first."""
    kinds = torch.nn.attention.SDPBackend
    names = ("FLASH_ATTENTION", "CUDNN_ATTENTION", "EFFICIENT_ATTENTION", "MATH")
    return {name: getattr(kinds, name) for name in names if hasattr(kinds, name)}


def fastest_attention(rows: Rows, torch: Any, shape: tuple[int, ...], device: str, repeats: int) -> Any:
    """Times every back-end alone, forward and backward; those that refuse are rows with their reason.

    Args:
      shape: (rows, length, heads, kv-heads, head width).
    """
    B, L, H, K, C = shape
    dtype = torch.bfloat16
    made = [torch.randn(B, n, L, C, device=device, dtype=dtype, requires_grad=True) for n in (H, K, K)]
    found = {}
    for name, backend in attention_backends(torch).items():

        def once(backend: Any = backend) -> None:
            with torch.nn.attention.sdpa_kernel(backend):
                out = torch.nn.functional.scaled_dot_product_attention(*made, enable_gqa=True)
                torch.autograd.grad(out.float().sum(), made)
            wait(torch, device)

        try:
            found[name] = seconds_of(once, repeats)
            rows.add(f"PyTorch attention, {name}", "time", found[name] * 1e3, "ms", note="forward and backward")
        except Exception as error:  # PyTorch refuses with many kinds
            rows.add(f"PyTorch attention, {name}", "runs", "refused", note=one_line(error))
    if not found:
        raise Skip("no back-end of PyTorch's attention runs here")
    best = min(found, key=lambda name: found[name])
    rows.add("PyTorch attention", "fastest", best)
    return attention_backends(torch)[best]


def grouped_products(rows: Rows, torch: Any, device: str) -> Callable[..., Any] | None:
    """PyTorch's grouped product, (rows, matrices, ends) -> rows, with gradients; None: products in a loop."""
    candidates = {
        "torch.nn.functional.grouped_mm": getattr(torch.nn.functional, "grouped_mm", None),
        "torch._grouped_mm": getattr(torch, "_grouped_mm", None),
    }
    for name, product in candidates.items():
        if product is None:
            rows.add("PyTorch grouped product", name, "not there")
            continue
        try:
            x = torch.randn(32, 16, device=device, dtype=torch.bfloat16, requires_grad=True)
            w = torch.randn(2, 16, 32, device=device, dtype=torch.bfloat16, requires_grad=True)
            ends = torch.tensor([16, 32], device=device, dtype=torch.int32)
            torch.autograd.grad(product(x, w, offs=ends).float().sum(), (x, w))
            rows.add("PyTorch grouped product", name, "used")
            return lambda x, w, ends: product(x, w, offs=ends)
        except Exception as error:  # PyTorch refuses with many kinds
            rows.add("PyTorch grouped product", name, "refused", note=one_line(error))
    rows.add("PyTorch grouped product", "a loop of products", "used", note="FALLBACK: no grouped product runs here")
    return None


def wait(torch: Any, device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def theirs(
    model: ModelConfig, batch: Batch, params: Any, device: str, backend: Any, product: Callable[..., Any] | None
) -> tuple[Any, Any]:
    """(the layer, `once(run)`: forward and backward of `run`). `params`: our tree as float32."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import torch
    from step_vs_torch import Torch

    class Fused(Torch):
        def mix(self, q: Any, k: Any, v: Any) -> Any:
            with torch.nn.attention.sdpa_kernel(backend):
                return super().mix(q, k, v)

        def loads(self, chosen: Any) -> Any:  # no result whose shape depends on numbers: one graph
            zeros = torch.zeros(self.model.num_experts, dtype=torch.int64, device=chosen.device)
            return zeros.scatter_add(0, chosen, torch.ones_like(chosen))

        def products(self, x: Any, layer: Any, load: Any) -> Any:
            if product is None:
                return super().products(x, layer, load)
            ends = load.cumsum(0).to(torch.int32)
            gate, up = product(x, layer["expert_gate_up"].flatten(2), ends).chunk(2, -1)
            return product(self.F.silu(gate) * up, layer["expert_down"], ends)

    layer = Fused(model, batch, params, device, torch.bfloat16)

    def once(run: Callable[[], Any]) -> None:
        for weight in layer.weights.values():
            weight.grad = None
        run().float().sum().backward()
        wait(torch, device)

    return layer, once


def compiled(rows: Rows, torch: Any, layer: Any, once: Callable[..., None], size: Size) -> dict[str, float]:
    """{"compiled": seconds} by `torch.compile`, as one graph, else in several; {} where it refuses both.

    A rehearsal only traces (back-end aot_eager): inductor's C++ takes minutes on a busy CPU.
    """
    torch._dynamo.config.suppress_errors = False  # it raises instead of running what it could not compile
    backend, repeats = size.of("inductor", toy="aot_eager"), size.of(10, toy=2)
    for is_whole in (True, False):
        what = f"{NAME}, PyTorch compiled ({backend}, {'one graph' if is_whole else 'several graphs'})"
        try:
            run = torch.compile(layer.hidden, backend=backend, fullgraph=is_whole)
            seconds = seconds_of(lambda: once(run), repeats)  # noqa: B023  (called at once)
        except Exception as error:  # PyTorch refuses with many kinds
            rows.add(what, "runs", "refused", note=one_line(error))
            torch._dynamo.reset()
            continue
        rows.add(what, "time", seconds * 1e3, "ms")
        return {"compiled": seconds}
    return {}


def run(rows: Rows, size: Size) -> None:
    """Ours first: it does not depend on PyTorch."""
    config, model = recipe(size, FULL)
    model = dataclasses.replace(model, num_hidden_layers=1, first_k_dense_replace=0)
    batch, repeats = random_batch(config, model), size.of(10, toy=2)
    params = jax.jit(lambda key: transformer.init(model, key, config.model.compute_dtype))(jax.random.key(0))
    weights = jax.tree.map(lambda x: np.asarray(x.astype(jnp.float32)), params)
    params.pop("head")
    gradient, hidden = ours(config, model, batch, params)
    our_seconds = seconds_of(gradient, repeats)
    shape = f"{config.train.batch_size} rows of {config.data.row_length}, {config.model.compute_dtype}"
    rows.add(f"{NAME}, ours", "time", our_seconds * 1e3, "ms", note=f"forward and all gradients, {shape}")
    del gradient, params
    try:
        import torch
    except ImportError as error:
        raise Skip(f"PyTorch is not installed ({error}); ours alone was measured") from None
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows.add("PyTorch", "runs on", torch.cuda.get_device_name() if device == "cuda" else "cpu")
    heads = (model.num_attention_heads, model.num_key_value_heads, model.head_dim)
    backend = fastest_attention(rows, torch, (*batch.tokens.shape, *heads), device, repeats)
    layer, once = theirs(model, batch, weights, device, backend, grouped_products(rows, torch, device))
    error = error_of(layer.hidden().detach().float().cpu().numpy(), hidden)
    rows.add(f"{NAME}, PyTorch beside ours", "norm of the difference", error.norm, at_most=5e-2)
    times = {"eager": seconds_of(lambda: once(layer.hidden), repeats)}
    rows.add(f"{NAME}, PyTorch eager", "time", times["eager"] * 1e3, "ms")
    times |= compiled(rows, torch, layer, once, size)
    best = min(times, key=lambda name: times[name])
    rows.add(
        f"{NAME}, ours beside PyTorch", "times as fast", times[best] / our_seconds, note=f"PyTorch {best}",
        at_least=RATIO if device == "cuda" else None,
    )  # fmt: skip
