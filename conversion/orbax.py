"""Between model directories and Orbax checkpoints that `train` and `evaluate` open: file to file, block by block.

O/checkpoints/0/params   the model's tree         O/tokenizer/   what AutoTokenizer opens
O/checkpoints/0/meta     configuration, model     O/source/      config.json, other files, dtypes: for the way back

No device holds anything, so that a laptop converts a model that only a cluster can load.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anyorder_jax import digest, paths, run_directory
from anyorder_jax.config import Config, ModelSelection, freeze
from anyorder_jax.data import tokenizer_files
from anyorder_jax.model.config import ModelConfig
from anyorder_jax.pretrained import names
from anyorder_jax.pretrained.directory import ModelDirectory, open_model
from anyorder_jax.pretrained.reader import Reader
from anyorder_jax.pretrained.tree import Leaf, as_tree, bands, contiguous, dtype_of, leaves
from anyorder_jax.progress import Progress
from conversion.copying import write_all
from conversion.export import Form, Read, export_params, plan_export
from conversion.origins import DTYPES_NAME, companions_of, stored_dtypes
from conversion.staging import refuse_full, refuse_occupied, staged
from conversion.stored import StoredParams
from conversion.threads import in_threads, scratch
from conversion.writing import MAX_SHARD_BYTES, copy_files
from conversion.zarr import BLOCK_BYTES, Index, array_name, blocks_of, cells, chunk_shape, write_metadata


def own_dtype(model: ModelDirectory) -> str:
    """The dtype to hold parameters in: bfloat16 when all weights but the router's bias are, else float32."""
    dtypes = {tensor.dtype for name, tensor in model.tensors.items() if not name.endswith("expert_bias")}
    return "bfloat16" if dtypes == {"BF16"} else "float32"


def _shard_shapes(all_leaves: Sequence[Leaf], model_config: ModelConfig, sizes: Mapping[str, int]) -> list[Any]:
    """The shape of each leaf's shards on a mesh of these sizes (which need not be here: no device is asked)."""
    if math.prod(sizes.values()) <= 1:
        return [leaf.shape for leaf in all_leaves]
    from anyorder_jax.pretrained.placement import shard_shapes  # imports the model and Flax

    found = shard_shapes(model_config, sizes)
    return [found[leaf.path] for leaf in all_leaves]


def _write_chunk(reader: Reader, leaf: Leaf, index: Index, chunk: Sequence[int], file: Path) -> tuple[Leaf, int, int]:
    """Writes one chunk of a leaf's array; the last ones of a dim are as large on disk as the others.

    Returns:
      (the leaf, bytes on disk, what the chunk adds to the leaf's digest).
    """
    descriptor, number = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), 0
    try:
        for block in (band for whole in blocks_of(leaf, index) for band in bands(leaf, whole, BLOCK_BYTES)):
            part = contiguous(as_tree(reader.read(leaf, block, scratch), leaf), leaf.dtype)
            place = [slice(a.start + b.start, a.start + b.stop) for a, b in zip(index, block.where, strict=True)]
            number += digest.of_part(part, place, leaf.shape)
            if part.shape[leaf.num_lead + 1 :] != tuple(chunk[leaf.num_lead + 1 :]):
                whole = np.zeros((*part.shape[: leaf.num_lead + 1], *chunk[leaf.num_lead + 1 :]), part.dtype)
                whole[tuple(map(slice, part.shape))] = part
                part = whole
            start = [slot.start for slot in block.where[: leaf.num_lead + 1]]
            start += [0] * (len(chunk) - len(start))
            offset = int(np.ravel_multi_index(start, chunk)) * leaf.dtype.itemsize
            write_all(descriptor, part.reshape(-1).view(np.uint8).data, offset)
        num_bytes = math.prod(chunk) * leaf.dtype.itemsize
        os.truncate(descriptor, num_bytes)
    finally:
        os.close(descriptor)
    return leaf, num_bytes, number


def _write_tree(model: ModelDirectory, all_leaves: Sequence[Leaf], shards: Sequence[Any], folder: Path) -> list[int]:
    """Writes the `params` of a checkpoint; returns their digests. Warns of NaN, with the tensor's name."""
    chunks = [chunk_shape(leaf, shard) for leaf, shard in zip(all_leaves, shards, strict=True)]
    write_metadata(folder, all_leaves, chunks)
    reader = Reader(model)
    work = [
        (leaf, index, chunk, folder / array_name(leaf.path) / file_name)
        for leaf, chunk in zip(all_leaves, chunks, strict=True)
        for file_name, index in cells(leaf.shape, chunk)
    ]
    total = sum(leaf.num_bytes for leaf in all_leaves)
    digests = {leaf.path: 0 for leaf in all_leaves}
    with Progress(total, "to_orbax") as bar:
        for leaf, num_bytes, number in in_threads(lambda item: _write_chunk(reader, *item), work):
            digests[leaf.path] = (digests[leaf.path] + number) % 2**32
            bar.update(num_bytes)
    reader.warn_of_nan()
    return [digests[path] for path in sorted(digests)]  # as JAX orders a tree


def to_orbax(
    input_path: str | Path,
    output_path: str | Path,
    *,
    mesh: Mapping[str, int],
    dtype: str = "",
    is_dry_run: bool = False,
) -> None:
    """Writes a split or merged checkpoint as an Orbax checkpoint at step 0, in the tree's own layout.

    Args:
      input_path: a split or merged directory. output_path: empty or not there.
      is_dry_run: says what would be written, and stops.
      mesh: devices per axis of the mesh that will read it: no chunk crosses the border between two shards. The
        checkpoint opens on any other mesh too. Empty: one device.
      dtype: of the parameters; "" keeps that of the weights (`expert_bias` is held in float32 always).

    Raises:
      ValueError: for bad input, an occupied output, a full disk.
    """
    model = open_model(input_path)
    model_config = ModelConfig.from_hf(dict(model.config))
    dtype = dtype or own_dtype(model)
    output = Path(output_path)
    all_leaves = leaves(model.dims, dtype)
    shards = _shard_shapes(all_leaves, model_config, mesh)
    refuse_occupied(output)
    refuse_full(output, sum(leaf.num_bytes for leaf in all_leaves))
    axes = ", ".join(f"{axis}={size}" for axis, size in mesh.items()) or "one device"
    print(f"{model.path}: {model.layout} layout, {model.num_bytes / 1e9:.3f} GB -> {dtype} for {axes}, {output}")
    if is_dry_run:
        return
    _keep_freed_memory()
    selection = ModelSelection(path=paths.absolute(model.path), param_dtype=dtype, compute_dtype=dtype)
    config = dataclasses.replace(Config(), model=selection)
    with staged(output) as partial:
        step = partial / "checkpoints" / "0"
        digests = {"params": _write_tree(model, all_leaves, shards, step / "params")}
        (step / "meta").mkdir()
        meta = run_directory.sealed(run_directory.describe(config, model_config, {}) | {"digests": digests})
        (step / "meta" / run_directory.META_NAME).write_text(json.dumps(meta), encoding="utf-8")
        _copy_tokenizer(model, model_config.mask_token_id, partial / "tokenizer")
        copy_files({**model.carried, Path("config.json"): model.path / "config.json"}, partial / "source")
        text = json.dumps(stored_dtypes(model), indent=2) + "\n"
        (partial / "source" / DTYPES_NAME).write_text(text, encoding="utf-8")


def _copy_tokenizer(model: ModelDirectory, mask_id: int | None, folder: Path) -> None:
    """The tokenizer's own files, and the id of the mask token should only config.json name it."""
    files = {path: file for path, file in model.carried.items() if tokenizer_files.is_tokenizer_file(path)}
    if files:
        copy_files(files, folder)
        tokenizer_files.note_mask_id(folder, mask_id)


def _keep_freed_memory() -> None:
    from anyorder_jax import process  # imports JAX

    process.keep_freed_memory()  # blocks come and go: without it every one costs page faults


def run_reader(folder: Path) -> tuple[Read, Callable[[], None]]:
    """(reads parts of the weights that a run's step stands for: LoRA's factors folded in; what to call at the end)."""
    meta = run_directory.read_meta(folder)
    config, model_config = freeze(meta["config"]), ModelConfig.from_hf(meta["model"])
    all_leaves = leaves(names.Dims.from_config(model_config.to_hf(), "the model"), config.model.param_dtype)
    if not config.lora.rank:
        stored = StoredParams(folder, all_leaves)
        return stored, stored.finish
    from conversion.adapter import Folded, factor_leaves, read_directory, read_drawn  # import JAX and the model

    finish_base: Callable[[], None] = lambda: None  # noqa: E731
    if not config.model.path:
        base = read_drawn(config, model_config)
    elif run_directory.is_run(config.model.path):
        base, finish_base = _otherrun_reader(config.model.path)
    else:
        base = read_directory(config.model.path)
    factors = StoredParams(folder, factor_leaves(all_leaves, config.lora))
    folded = Folded(base, factors, config.lora, meta["base"])

    def finish() -> None:
        finish_base()
        factors.finish()
        folded.finish()

    return folded, finish


def _otherrun_reader(path: str) -> tuple[Read, Callable[[], None]]:
    """(reads parts of a run's weights, in the dtype of the leaf instead of the run's own; what to call at the end)."""
    folder = run_directory.step_folder(path)
    dtype = dtype_of(freeze(run_directory.read_meta(folder)["config"]).model.param_dtype)
    read, finish = run_reader(folder)

    def cast(leaf: Leaf, index: Index) -> np.ndarray:
        own = leaf if leaf.path[-1] == "expert_bias" else leaf._replace(dtype=dtype)
        return read(own, index).astype(dtype).astype(leaf.dtype)

    return cast, finish


def to_hf(
    path: str | Path,
    output_path: str | Path,
    layout: str,
    *,
    dtype: str = "",
    max_shard_bytes: int = MAX_SHARD_BYTES,
    has_code: bool = False,
    is_dry_run: bool = False,
) -> None:
    """Writes a run's newest checkpoint (or the one named) as a split or merged model directory; LoRA's factors are
    folded into the weights.

    Args:
      path: a run, or one of its steps.
      output_path: the directory, empty or not there.
      layout: "merged" or "split".
      dtype: of the tensors; "" keeps the run's.
      max_shard_bytes: shards hold at most so many bytes of tensors.
      is_dry_run: says what would be written, and stops.
      has_code: with the model in PyTorch and a model card (`portable.with_code`).

    Raises:
      FileNotFoundError: when there is no checkpoint.
      ValueError: for a damaged checkpoint, an occupied output or a full disk.
    """
    run, step = run_directory.find(path)
    refuse_occupied(Path(output_path))
    folder = run / "checkpoints" / str(step)
    meta = run_directory.read_meta(folder)
    config, model_config = freeze(meta["config"]), ModelConfig.from_hf(meta["model"])
    companions = companions_of(run, config, model_config)
    if has_code:
        from conversion.portable import Exported, with_code  # imports the tokenizer

        before = "bfloat16" if "BF16" in companions.dtypes.values() else "float32"
        own_dtype = dtype or (before if companions.dtypes else config.model.param_dtype)
        exported = Exported(run, step, config, model_config, meta["data"], own_dtype)
        companions = with_code(companions, exported, layout, Path(output_path))
    form = Form(
        layout, config.model.param_dtype, dtype, companions.dtypes, companions.config, companions.carried,
        max_shard_bytes,
    )  # fmt: skip
    if is_dry_run:
        print(f"{run}: step {step}, {config.model.param_dtype}")
        print(plan_export(model_config, output_path, form).describe())
        return
    _keep_freed_memory()
    read, finish = run_reader(folder)
    export_params(read, model_config, output_path, form, finish)
