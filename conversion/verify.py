"""Runs our model on given arrays and compares every number with those of another implementation."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from anyorder_jax import loss, run_directory, weights
from anyorder_jax.model import lora, transformer
from anyorder_jax.model.attention import BlockDiffusion, Full, can_attend
from anyorder_jax.model.config import ModelConfig
from anyorder_jax.pretrained.directory import open_model
from anyorder_jax.pretrained.load import load_params, read_model_config
from conversion import gradients, norms
from conversion.arrays import IGNORED_LABEL, INPUTS, check_inputs, check_outputs, read_arrays, write_arrays
from conversion.comparison import compare, some


def masked_cross_entropy(logits: jax.Array, labels: jax.Array | np.ndarray) -> jax.Array:
    """Mean cross-entropy of logits [B, L, V] where a label [B, L] is not -100; NaN where none is, as in dFactory."""
    is_target = labels != IGNORED_LABEL
    nll = loss.cross_entropy(logits, jnp.where(is_target, labels, 0))
    return (nll * is_target).sum() / is_target.sum()


def shifted(labels: np.ndarray) -> np.ndarray:
    """Labels for logits that predict the token after them (dFactory, `same_token_labels` false): [B, L]."""
    return np.concatenate([labels[:, 1:], np.full_like(labels[:, :1], IGNORED_LABEL)], axis=1)


def _positions(tokens: np.ndarray) -> np.ndarray:
    return np.broadcast_to(np.arange(tokens.shape[1], dtype=np.int32), tokens.shape)


def compute(
    model_config: ModelConfig,
    params: transformer.Params,
    inputs: Mapping[str, np.ndarray],
    *,
    dtype: str,
    block_size: int,
) -> dict[str, np.ndarray]:
    """Everything that the arrays in `inputs` (`arrays.check_inputs`) allow, by name.

    `input_ids` int32 [B, L]: full_logits [B, L, V], full_hidden [N + 2, B, L, D], full_router_logits,
    full_topk_idx, full_topk_weight [moe layers, B, L, E or k]. `noisy_ids` [B, L]: noisy_full_logits; with
    `labels` [B, L] also loss_same_full_attention. `bd_input_ids`, `bd_position_ids` [B, 2L]: bd_allowed [2L, 2L],
    bd_logits, bd_topk_idx, bd_topk_weight; with `labels` also loss_same, loss_shift.

    Args:
      model_config: the model's shape. params: its weights.
      inputs: arrays by name.
      dtype: of the computation.
      block_size: of the block-diffusion attention.
    """
    found: dict[str, Any] = {}

    @functools.cache
    def forward(attention: Any) -> Any:
        return jax.jit(
            lambda params, tokens, positions: transformer.apply(
                model_config,
                params,
                tokens,
                positions,
                attention,
                transformer.Computation(jnp.dtype(dtype)),
                collect=True,
            )
        )

    def run(tokens: np.ndarray, positions: np.ndarray, attention: Any) -> Any:
        output = forward(attention)(params, tokens, positions)
        assert output.trace is not None
        return output.logits_BLV, output.trace

    if "input_ids" in inputs:
        tokens = inputs["input_ids"]
        found["full_logits"], trace = run(tokens, _positions(tokens), Full())
        found["full_hidden"], found["full_router_logits"] = trace.hidden_NBLD, trace.router_logits_NBLE
        found["full_topk_idx"], found["full_topk_weight"] = trace.expert_NBLK, trace.weight_NBLK
    if "noisy_ids" in inputs:
        tokens = inputs["noisy_ids"]
        found["noisy_full_logits"], _ = run(tokens, _positions(tokens), Full())
        if "labels" in inputs:
            found["loss_same_full_attention"] = masked_cross_entropy(found["noisy_full_logits"], inputs["labels"])
    if "bd_input_ids" in inputs:
        tokens, attention = inputs["bd_input_ids"], BlockDiffusion(block_size)
        found["bd_logits"], trace = run(tokens, inputs["bd_position_ids"], attention)
        found["bd_topk_idx"], found["bd_topk_weight"] = trace.expert_NBLK, trace.weight_NBLK
        allowed = can_attend(attention, *tokens.shape)
        assert allowed is not None
        found["bd_allowed"] = allowed[0]
        if "labels" in inputs:
            noisy_half = found["bd_logits"][:, : tokens.shape[1] // 2]
            found["loss_same"] = masked_cross_entropy(noisy_half, inputs["labels"])
            found["loss_shift"] = masked_cross_entropy(noisy_half, shifted(inputs["labels"]))
    return {
        name: np.asarray(value.astype(jnp.float32) if jnp.issubdtype(value.dtype, jnp.floating) else value)
        for name, value in found.items()
    }


def gradients_of(
    model_config: ModelConfig,
    params: transformer.Params,
    inputs: Mapping[str, np.ndarray],
    block_size: int,
    param_names: list[str],
) -> dict[str, np.ndarray]:
    """Gradients of both losses under block diffusion, and AdamW steps (`conversion/gradients.py`).

    Args:
      model_config: the model's shape. params: its weights.
      inputs: arrays by name.
      block_size: of the block-diffusion attention.
      param_names: the order of the norms; empty: our own.
    """
    tokens, positions = jnp.asarray(inputs["bd_input_ids"]), jnp.asarray(inputs["bd_position_ids"])

    def loss_of(params: transformer.Params, labels: jax.Array) -> jax.Array:
        logits = transformer.apply(model_config, params, tokens, positions, BlockDiffusion(block_size)).logits_BLV
        return masked_cross_entropy(logits[:, : labels.shape[1]], labels)

    labels = {"same": inputs["labels"], "shift": shifted(inputs["labels"])}
    return gradients.compute(model_config, params, loss_of, labels, param_names)


def _is_model_directory(path: str | Path) -> bool:
    return (Path(path) / "config.json").is_file() and not run_directory.is_run(path)


def _load(model: str | Path, dtype: str) -> tuple[ModelConfig, transformer.Params, str]:
    """(the model, its weights in `dtype`, the directory that they came from unchanged: "" where there is none)."""
    if _is_model_directory(model):
        model_config = read_model_config(model)
        return model_config, load_params(model, model_config, None, dtype, show_progress=True), str(model)
    config, model_config, params, _ = weights.load_for_inference(model, dtype=dtype)
    params = lora.fold(params, config.lora)
    origin = config.model.path if run_directory.find(model)[1] == 0 else ""
    is_there = bool(origin) and _is_model_directory(origin) and read_model_config(origin) == model_config
    if origin and not is_there:
        print(f"norms are not compared: {origin}, which step 0 was made from, is no longer there")
    return model_config, params, origin if is_there else ""


def _model_config(model: str | Path) -> ModelConfig:
    if not Path(model).is_dir():
        raise ValueError(f"--model: {model} is not there. Name a split or merged directory, or a run.")
    if _is_model_directory(model):
        open_model(model)  # refuses a bad one
    elif not run_directory.is_run(model):
        raise ValueError(f"--model: {model} has neither a config.json nor checkpoints/: it is no model and no run.")
    return weights.read_model_config(model)


class Checks(NamedTuple):
    """against: a .npz file with what was expected; see `compute` for the names. tolerance: 0 takes that of each array.
    with_gradients: also for large models (small ones in float32 always have them). with_norms: also prints the norm of
    every tensor, as it is stored and as the model holds it."""

    against: str | Path | None = None
    tolerance: float = 0.0
    with_gradients: bool = False
    with_norms: bool = False


def verify(
    model: str | Path,
    inputs: str | Path,
    outputs: str | Path,
    *,
    dtype: str,
    block_size: int,
    checks: Checks = Checks(),  # noqa: B008 (a tuple)
    is_dry_run: bool = False,
) -> int:
    """Computes what `inputs` allows with the model, writes it to `outputs`, and compares it.

    Args:
      is_dry_run: says what would be computed, and stops.
      checks: what it is compared with.
      model: a split or merged directory, a run, or one of its checkpoints.
      inputs, outputs: .npz files; see `compute` for the names.
      dtype: "float32" or "bfloat16", of weights and computation.
      block_size: of the block-diffusion attention.

    Returns:
      0, or 1 when a difference or a norm is past the tolerance.

    Raises:
      ValueError: for a bad model, files that cannot be read or written, and arrays that do not fit the model.
    """
    arrays = read_arrays(inputs, "--inputs")
    expected = read_arrays(checks.against, "--against") if checks.against is not None else None
    check_outputs(outputs)
    model_config = _model_config(model)
    checked = check_inputs(arrays, model_config.vocab_size)
    if block_size < 1:
        raise ValueError(f"--block_size: expected a number of tokens >= 1, got {block_size}.")
    if is_dry_run:
        print(f"would run {model} in {dtype} on {', '.join(checked)}, and write {outputs}")
        return 0
    model_config, params, origin = _load(model, dtype)
    found = compute(model_config, params, checked, dtype=dtype, block_size=block_size)
    num_parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
    if dtype == "float32" and {"labels", "bd_input_ids"} <= checked.keys():
        if checks.with_gradients or num_parameters <= gradients.MAX_PARAMETERS:
            order = [str(name) for name in arrays.get("param_names", ())]
            found |= gradients_of(model_config, params, checked, block_size, order)
        else:
            print(f"gradients of {num_parameters:,} parameters are left out; --gradients asks for them")
    compared = norms.compare_norms(origin, params) if origin else {}
    found |= compared
    write_arrays(outputs, found)  # before anything of it is printed
    is_good = norms.report(compared, dtype, shows_all=checks.with_norms) if compared else True
    shown = [name for name in found if ":" not in name]
    print(f"wrote {', '.join(shown)} and {len(found) - len(shown)} gradients to {outputs}")
    unused = [name for name in arrays if name not in INPUTS and name not in found]
    if unused:
        print(f"not used of --inputs: {some(unused)}")
    if expected is not None:
        is_good &= compare(found, expected, dtype, checks.tolerance)
    return 0 if is_good else 1
