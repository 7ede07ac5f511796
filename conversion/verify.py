"""Runs our model on given arrays and compares every number with those of another implementation."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from anyorder_jax import checkpoint, loss
from anyorder_jax.model import lora, transformer
from anyorder_jax.model.attention import BlockDiffusion, Full
from anyorder_jax.model.config import ModelConfig
from anyorder_jax.pretrained.directory import open_model
from anyorder_jax.pretrained.load import load_params, read_model_config
from anyorder_jax.pretrained.tree import Leaf, leaves
from conversion import gradients
from conversion.copying import Files
from conversion.inspection import norm

IGNORED_LABEL = -100
TOLERANCES = {"float32": 1e-4, "bfloat16": 0.1}
"""float32: of the largest difference (the golden files agree to a few 1e-5 across implementations).
bfloat16: of the median one, because a token that changes its expert moves its logits by whole units."""
ADAMW_TOLERANCE = 1e-3  # relative, as the golden files' README says
_RELATIVE = ("grad_", "adamw_")
_REFERENCE_BF16 = "full_logits_bf16_model"


def masked_cross_entropy(logits: jax.Array, labels: np.ndarray, shift: int) -> jax.Array:
    """Mean cross-entropy where a label is not -100; `shift` 1: logit i predicts label i + 1 (dFactory, 0 unshifted)."""
    labels = labels[:, shift:]
    logits = logits[:, : labels.shape[1]]
    is_target = labels != IGNORED_LABEL
    nll = loss.cross_entropy(logits, jnp.where(is_target, labels, 0))
    return (nll * is_target).sum() / is_target.sum()


def _array(inputs: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    if name not in inputs:
        raise ValueError(f"--inputs: has no array {name!r}; it has {', '.join(sorted(inputs))}.")
    return inputs[name].astype(np.int32)


def compute(
    model_config: ModelConfig,
    params: transformer.Params,
    inputs: Mapping[str, np.ndarray],
    *,
    dtype: str,
    block_size: int,
) -> dict[str, np.ndarray]:
    """Everything that the arrays in `inputs` allow, by the names of the golden files' README.

    `input_ids` int [B, L]: full_logits [B, L, V], full_hidden [N + 2, B, L, D], full_router_logits,
    full_topk_idx, full_topk_weight [moe layers, B, L, E or k]. `noisy_ids` [B, L]: noisy_full_logits; with
    `labels` [B, L] also loss_same_full_attention. `bd_input_ids`, `bd_position_ids` [B, 2L]: bd_logits,
    bd_topk_idx, bd_topk_weight; with `labels` also loss_same, loss_shift.
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
                compute_dtype=jnp.dtype(dtype),
                collect=True,
            )
        )

    def run(tokens: np.ndarray, positions: np.ndarray, attention: Any) -> transformer.Output:
        return forward(attention)(params, tokens, positions)

    def trace(prefix: str, output: transformer.Output) -> None:
        assert output.trace is not None
        found[f"{prefix}_topk_idx"] = output.trace.expert_NBLK
        found[f"{prefix}_topk_weight"] = output.trace.weight_NBLK

    if "input_ids" in inputs:
        tokens = _array(inputs, "input_ids")
        output = run(tokens, _positions(tokens), Full())
        assert output.trace is not None
        found["full_logits"], found["full_hidden"] = output.logits_BLV, output.trace.hidden_NBLD
        found["full_router_logits"] = output.trace.router_logits_NBLE
        trace("full", output)
    if "noisy_ids" in inputs:
        tokens = _array(inputs, "noisy_ids")
        logits = run(tokens, _positions(tokens), Full()).logits_BLV
        found["noisy_full_logits"] = logits
        if "labels" in inputs:
            found["loss_same_full_attention"] = masked_cross_entropy(logits, _array(inputs, "labels"), 0)
    if "bd_input_ids" in inputs:
        tokens, positions = _array(inputs, "bd_input_ids"), _array(inputs, "bd_position_ids")
        output = run(tokens, positions, BlockDiffusion(block_size))
        found["bd_logits"] = output.logits_BLV
        trace("bd", output)
        if "labels" in inputs:
            labels = _array(inputs, "labels")
            noisy_half = output.logits_BLV[:, : labels.shape[1]]
            found["loss_same"] = masked_cross_entropy(noisy_half, labels, 0)
            found["loss_shift"] = masked_cross_entropy(noisy_half, labels, 1)
    if not found:
        raise ValueError(
            f"--inputs: expected input_ids, noisy_ids or bd_input_ids, found {', '.join(sorted(inputs)) or 'nothing'}."
        )
    return {
        name: np.asarray(value.astype(jnp.float32) if jnp.issubdtype(value.dtype, jnp.floating) else value)
        for name, value in found.items()
    }


def gradients_of(
    model_config: ModelConfig, params: transformer.Params, inputs: Mapping[str, np.ndarray], block_size: int
) -> dict[str, np.ndarray]:
    """Gradients of both losses under block diffusion, and AdamW steps (`conversion/gradients.py`)."""
    tokens, positions = (jnp.asarray(_array(inputs, name)) for name in ("bd_input_ids", "bd_position_ids"))
    labels = _array(inputs, "labels")

    def loss_of(shift: int) -> gradients.Loss:
        def of(params: transformer.Params) -> jax.Array:
            attention = BlockDiffusion(block_size)
            logits = transformer.apply(model_config, params, tokens, positions, attention).logits_BLV
            return masked_cross_entropy(logits[:, : labels.shape[1]], labels, shift)

        return of

    order = [str(name) for name in inputs["param_names"]] if "param_names" in inputs else []
    return gradients.compute(model_config, params, {"same": loss_of(0), "shift": loss_of(1)}, order)


def _positions(tokens: np.ndarray) -> np.ndarray:
    return np.broadcast_to(np.arange(tokens.shape[1], dtype=np.int32), tokens.shape)


def _held_norms(leaf: Leaf, array: jax.Array) -> dict[str, np.ndarray]:
    """Of each row that fills a leaf: the L2 norms of its tensors, [layers, experts] (those dims that the leaf has)."""
    found = {}
    for row in leaf.rows:
        part = array if row.half is None else array[..., row.half, :]
        axes = tuple(range(leaf.num_lead, part.ndim))
        squares = jax.jit(lambda x, axes=axes: jnp.square(x.astype(jnp.float32)).sum(axes))(part)
        found[row.hf] = np.sqrt(np.asarray(squares))
    return found


def compare_norms(
    directory: str | Path, model_config: ModelConfig, params: transformer.Params
) -> dict[str, np.ndarray]:
    """The norm of every stored tensor beside that of the part of the tree that holds it.

    Returns:
      tensor_names str [n], norm_stored float64 [n], norm_held float64 [n].
    """
    model = open_model(directory)
    held: dict[tuple[str, str], np.ndarray] = {}
    for leaf in leaves(model.dims, params["embedding"].dtype.name):
        node: Any = params
        for key in leaf.path:
            node = node[key]
        held |= {(leaf.path[0], hf): values for hf, values in _held_norms(leaf, node).items()}
    found = []
    with Files() as files, tqdm(total=model.num_bytes, unit="B", unit_scale=True, desc="norms") as bar:
        for name, tensor in model.tensors.items():
            place = model.places[name]
            bar.update(tensor.num_bytes)
            if tensor.num_bytes == 0:
                continue
            is_dense = place.layer is not None and place.layer < model.dims.num_dense
            group = place.row.leaf if place.layer is None else "dense" if is_dense else "moe"
            values = held[group, place.row.hf]
            if place.layer is not None:
                values = values[place.layer - (0 if is_dense else model.dims.num_dense)]
            if place.expert is not None:
                values = values[place.expert]
            found.append((name, norm(tensor, files)[0], float(np.sqrt(np.square(np.float64(values)).sum()))))
    names, stored, loaded = zip(*found, strict=True)
    return {"tensor_names": np.array(names), "norm_stored": np.array(stored), "norm_held": np.array(loaded)}


def _distance(name: str, ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Where they differ (integers, names), relative to the largest entry (gradients, AdamW), or by how much."""
    if not np.issubdtype(theirs.dtype, np.floating):
        return (ours != theirs).astype(np.float64)
    scale = np.abs(theirs).max() if name.startswith(_RELATIVE) else 1.0
    return np.abs(ours.astype(np.float64) - theirs) / (scale or 1.0)


def _tolerance(name: str, expected: Mapping[str, np.ndarray], dtype: str) -> float:
    """Of one array; in bfloat16 logits may be twice as far away as the reference's own bfloat16 model is."""
    if name.startswith("adamw_"):
        return ADAMW_TOLERANCE
    if dtype == "bfloat16" and name.endswith("_logits") and _REFERENCE_BF16 in expected and "full_logits" in expected:
        return 2 * float(np.median(np.abs(expected[_REFERENCE_BF16] - expected["full_logits"])))
    return TOLERANCES[dtype]


def table(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], dtype: str, tolerance: float) -> bool:
    """Prints largest and median differences of all arrays that both have.

    Args:
      tolerance: of every array; 0: each has its own (`_tolerance`).

    Returns:
      True when all are within the tolerance: float32 compares largest differences and every integer; bfloat16
      medians.
    """
    print(f"{'array':<28} {'shape':<20} {'max |d|':>10} {'median |d|':>11} {'tolerance':>10}")
    shared = [name for name in found if name in expected]
    if not shared:
        raise ValueError(f"--against: none of {', '.join(found)} is there.")
    is_good = True
    for name in shared:
        ours, theirs = found[name], expected[name]
        if ours.shape != theirs.shape:
            print(f"{name:<28} {ours.shape!s:<20} expected shape {theirs.shape}")
            is_good = False
            continue
        distance = _distance(name, ours, theirs)
        largest, median = float(distance.max()), float(np.median(distance))
        allowed = tolerance or _tolerance(name, expected, dtype)
        is_within = bool((largest if dtype == "float32" else median) <= allowed)  # False for NaN
        is_good &= is_within
        print(
            f"{name:<28} {ours.shape!s:<20} {largest:10.2e} {median:11.2e} {allowed:10.1e}{'' if is_within else '  NO'}"
        )
    return is_good


def verify(
    model: str | Path,
    inputs: str | Path,
    outputs: str | Path,
    *,
    dtype: str,
    block_size: int,
    against: str | Path | None = None,
    tolerance: float = 0.0,
    with_gradients: bool = False,
    with_norms: bool = False,
    is_dry_run: bool = False,
) -> int:
    """Computes what `inputs` allows with the model, writes it to `outputs`, and compares it with `against`.

    Args:
      model: a split or merged directory, a run, or one of its checkpoints.
      inputs, outputs, against: .npz files; see `compute` for the names.
      dtype: "float32" or "bfloat16", of weights and computation.
      block_size: of the block-diffusion attention.
      tolerance: 0 takes that of each array.
      with_gradients: also for large models (small ones in float32 always have them).
      with_norms: also prints the norm of every tensor, as it is stored and as the model holds it.

    Returns:
      0, or 1 when a difference or a norm is past the tolerance.
    """
    with np.load(inputs, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    is_directory = (Path(model) / "config.json").is_file() and not (Path(model) / "checkpoints").is_dir()
    if is_dry_run:
        where = open_model(model).path if is_directory else checkpoint.find(model)[0]
        print(f"would run {where} in {dtype} on {', '.join(arrays)}, and write {outputs}")
        return 0
    if is_directory:
        model_config = read_model_config(model)
        params = load_params(model, model_config, None, dtype, show_progress=True)
    else:
        config, model_config, params, _ = checkpoint.load_for_inference(model)
        params = lora.fold(params, config.lora)
    found = compute(model_config, params, arrays, dtype=dtype, block_size=block_size)
    num_parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
    if dtype == "float32" and {"labels", "bd_input_ids"} <= arrays.keys():
        if with_gradients or num_parameters <= gradients.MAX_PARAMETERS:
            found |= gradients_of(model_config, params, arrays, block_size)
        else:
            print(f"gradients of {num_parameters:,} parameters are left out; --gradients asks for them")
    is_good = True
    if is_directory:
        norms = compare_norms(model, model_config, params)
        found |= norms
        gap = np.abs(norms["norm_held"] - norms["norm_stored"]) / np.maximum(norms["norm_stored"], 1e-30)
        worst = int(np.argmax(gap))
        if with_norms:
            print(f"{'stored':>14} {'held':>14}  tensor")
            for name, stored, held in zip(*norms.values(), strict=True):
                print(f"{stored:14.7g} {held:14.7g}  {name}")
        is_good = bool(gap[worst] <= (1e-5 if dtype == "float32" else 1e-2))
        print(
            f"norms of {len(gap)} tensors, stored and held: largest relative difference {gap[worst]:.1e} "
            f"({norms['tensor_names'][worst]}){'' if is_good else '  NOT the same tensors'}"
        )
    np.savez(outputs, **found)  # type: ignore[arg-type]  # the stub mistakes the names
    shown = [name for name in found if ":" not in name]
    print(f"wrote {', '.join(shown)} and {len(found) - len(shown)} gradients to {outputs}")
    if against is not None:
        with np.load(against, allow_pickle=False) as file:
            expected = {name: file[name] for name in file.files}
        is_good &= table(found, expected, dtype, tolerance)
    return 0 if is_good else 1
