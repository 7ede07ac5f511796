"""The golden models through every kernel: the reference's numbers, and the same bits twice."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from anyorder_jax import sharding
from anyorder_jax.model import attention, moe, transformer
from anyorder_jax.pretrained.load import load_params, read_model_config
from gpu_parts.kernels import grouped_backends
from gpu_parts.measuring import ROOT, Size, are_bits_equal, error_of
from gpu_parts.rows import Rows

BLOCK = 4
"""Of the golden files' block diffusion."""
LARGEST = 2e-5
"""Of float32, as a share of the largest logit: the references differ by 1e-5 in logits of up to 8."""
MEDIAN = {"a": 0.1, "b": 2 * 0.0168}
"""Of logits in 16 bits and TF32. b: twice how far the reference's own bfloat16 model is from its float32 one. a has
near ties: some tokens meet other experts (0.054 on a CPU)."""
GRADIENT = 0.2
"""Of the head's gradient, as a norm, likewise (0.12 and 0.07 on a CPU)."""
EXPERTS = 0.3
"""Of the last layer's gate projections, likewise."""


@contextlib.contextmanager
def chosen(grouped_backend: str, attention_backend: str) -> Iterator[None]:
    """Makes the model use these kernels, whatever it would choose for the platform; layers compile as one."""
    with (
        mock.patch.object(moe, "best_backend", lambda platform, dtype: grouped_backend),
        mock.patch.object(attention, "best_backend", lambda platform, q: attention_backend),
        mock.patch.object(transformer, "MAX_UNROLLED_LAYERS", 0),
    ):
        yield


def program(config: Any, expected: dict[str, np.ndarray], dtype: str) -> Any:
    """Parameters -> logits of full attention, block diffusion's loss and the gradient of it."""
    tokens, noisy, places = (jnp.asarray(expected[k]) for k in ("input_ids", "bd_input_ids", "bd_position_ids"))
    labels = jnp.asarray(expected["labels"])
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1], dtype=jnp.int32), tokens.shape)

    def loss(params: Any) -> jax.Array:
        output = transformer.apply(
            config, params, noisy, places, attention.BlockDiffusion(BLOCK), transformer.Computation(jnp.dtype(dtype))
        )
        log_p = jax.nn.log_softmax(output.logits_BLV[:, : labels.shape[1]])
        nll = -jnp.take_along_axis(log_p, jnp.maximum(labels, 0)[..., None], -1)[..., 0]
        return jnp.where(labels >= 0, nll, 0).sum() / (labels >= 0).sum()

    def everything(params: Any) -> dict[str, Any]:
        full = transformer.apply(
            config, params, tokens, positions, attention.Full(), transformer.Computation(jnp.dtype(dtype))
        ).logits_BLV
        value, grads = jax.value_and_grad(loss)(params)
        return {"logits": full, "loss": value, "gradient": grads}

    return jax.jit(everything)


def variants(platform: str) -> list[tuple[str, str, str, str]]:
    """(dtype, precision of products, grouped back-end, attention back-end), each back-end of the platform once."""
    found = []
    for backend, dtype in grouped_backends(platform)[:2]:
        flash = "flash" if platform == "hopper" and dtype == "bfloat16" else "xla"
        found += [(dtype, precision, backend, flash) for precision in _precisions(platform, dtype)]
    return found


def _precisions(platform: str, dtype: str) -> tuple[str, ...]:
    """A GPU multiplies float32 as TF32 unless it is told otherwise: both are looked at."""
    return ("highest", "default") if platform != "cpu" and dtype == "float32" else ("highest",)


def run(rows: Rows, size: Size) -> None:
    """Every variant of both models, TF32 of one (a rehearsal: the last)."""
    every = [pair for pair in itertools.product(variants(sharding.platform(None)), "ba") if pair[0][1] == "highest"]
    every += [(variant, "b") for variant in variants(sharding.platform(None)) if variant[1] != "highest"]
    for variant, name in size.of(every, toy=every[-1:]):
        dtype, precision, backend, flash = variant
        with rows.attempt(f"golden {name}, {backend} and {flash}, {dtype}, products {precision}"):
            check(rows, name, *variant)


def check(rows: Rows, name: str, dtype: str, precision: str, backend: str, flash: str) -> None:
    """One golden model through one set of kernels."""
    what = f"golden {name}, {backend} and {flash}, {dtype}, products {precision}"
    folder = ROOT / "tests" / "golden" / name
    config = read_model_config(folder / "split_bf16")
    params = load_params(folder / "split_bf16", config)
    expected = dict(np.load(folder / "expected.npz"))
    with chosen(backend, flash), jax.default_matmul_precision("highest" if precision == "highest" else None):
        compute = program(config, expected, dtype)
        found = compute(params)
        again = compute(params)
    rows.judge(what, "bits of two runs are equal", are_bits_equal(found, again))
    away = np.abs(np.asarray(found["logits"], np.float64) - expected["full_logits"])
    is_exact = dtype == "float32" and precision == "highest"
    if is_exact:
        error = error_of(found["logits"], expected["full_logits"])
        rows.add(what, "largest error of logits", error.largest, at_most=LARGEST)
    rows.add(what, "median error of logits", float(np.median(away)), at_most=MEDIAN[name])
    loss = float(expected["loss_same"])
    rows.add(what, "error of the loss", abs(float(found["loss"]) / loss - 1), at_most=1e-5 if is_exact else 2e-2)
    error = error_of(found["gradient"]["head"].T, expected["grad_same:lm_head.weight"])
    rows.add(what, "norm of the error of the head's gradient", error.norm, at_most=2e-5 if is_exact else GRADIENT)
    own = np.asarray(found["gradient"]["moe"]["expert_gate_up"], np.float32)[3 - config.first_k_dense_replace, :, :, 0]
    error = error_of(own.swapaxes(1, 2), expected["grad_same:model.layers.3.mlp.experts.gate_proj"])
    rows.add(what, "norm of the error of the experts' gradient", error.norm, at_most=2e-5 if is_exact else EXPERTS)
