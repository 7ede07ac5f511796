"""LoRA's factors on the way out: folded into the weights that they belong to, or alone as PEFT reads them.

tree     lora/moe/expert_gate_up/a [N, E, D, 2, r]     .../b [N, E, r, 2, F]
PEFT     base_model.model.model.layers.{i}.mlp.experts.{e}.gate_proj.lora_A.weight [r, D]   lora_B.weight [F, r]
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from anyorder_jax import digest, keys, run_directory
from anyorder_jax.config import Config, LoRAConfig, freeze
from anyorder_jax.model import lora, transformer
from anyorder_jax.model.config import ModelConfig
from anyorder_jax.pretrained import names
from anyorder_jax.pretrained.directory import open_model
from anyorder_jax.pretrained.reader import Reader
from anyorder_jax.pretrained.shards import STORED_NAMES, Spec, numpy_dtype, plan_shards
from anyorder_jax.pretrained.tree import Block, Leaf, as_tree, contiguous, leaves
from anyorder_jax.progress import Progress
from conversion.export import Read, Writer
from conversion.origins import say
from conversion.staging import refuse_full, refuse_occupied, staged
from conversion.stored import StoredParams
from conversion.threads import in_threads
from conversion.writing import Carried, Target, copy_files
from conversion.zarr import Index, blocks_of

PREFIX = "base_model.model."
"""PEFT's, before the names of the model's own modules."""

_LETTERS = {"a": "lora_A.weight", "b": "lora_B.weight"}


def factor_leaves(all_leaves: Sequence[Leaf], config: LoRAConfig) -> list[Leaf]:
    """The factors as weights of the tree, whose tensors bear PEFT's names."""
    found = []
    for leaf in all_leaves:
        if not lora.is_targeted(leaf.path[-1], config):
            continue
        lead, (width, *rest) = leaf.shape[: leaf.num_lead], leaf.shape[leaf.num_lead :]
        shapes = {"a": (*lead, width, *rest[:-1], config.rank), "b": (*lead, config.rank, *rest)}
        for key, ending in _LETTERS.items():
            own = tuple(
                dataclasses.replace(row, hf=PREFIX + row.hf.removesuffix("weight") + ending, merged_hf="")
                for row in leaf.rows
            )
            path = ("lora", *leaf.path, key)
            found.append(leaf._replace(path=path, rows=own, shape=shapes[key], dtype=np.dtype(np.float32)))
    return found


def _eight_bits(weight: np.ndarray, in_axis: int) -> np.ndarray:
    """What `lora.quantise` keeps of a weight, float32."""
    largest = np.abs(weight).max(in_axis, keepdims=True)
    scale = np.where(largest > 0, largest, np.float32(1)) / np.float32(lora.LARGEST)
    return np.rint(weight / scale) * scale


class Folded:
    """Reads parts of W + alpha / rank * A B, float32: the product is computed in float32 and rounded by the writer.

    With a base in 8 bits W is what 8 bits keep of it: the model that was trained and evaluated.

    Args:
      read_base: of the frozen weights.
      factors: of the run's checkpoint.
      expected: digest of every frozen weight, by name.
    """

    def __init__(self, read_base: Read, factors: StoredParams, config: LoRAConfig, expected: Mapping[str, int]) -> None:
        self._read_base, self._factors, self._config, self._expected = read_base, factors, config, expected
        self._digests: dict[tuple[str, Any], int] = {}  # of parts that were read, each once: threads may share this

    def __call__(self, leaf: Leaf, index: Index) -> np.ndarray:
        """A part of the weight; all inputs of every output."""
        part = self._read_base(leaf, index)
        self._digests[leaf.name, tuple((i.start, i.stop) for i in index)] = digest.of_part(part, index, leaf.shape)
        if leaf.path[-1] not in lora.ALL_MATRICES:
            return part
        wide = part.astype(np.float32)
        if self._config.base_dtype == "int8":
            wide = _eight_bits(wide, leaf.num_lead)
        if lora.is_targeted(leaf.path[-1], self._config):
            wide = wide + self._delta(leaf, index)
        return wide

    def _delta(self, leaf: Leaf, index: Index) -> np.ndarray:
        lead, body = index[: leaf.num_lead], index[leaf.num_lead :]
        ranks = slice(0, self._config.rank)
        factor_a, factor_b = factor_leaves([leaf], self._config)
        a = self._factors(factor_a, (*lead, *body[:-1], ranks))
        b = self._factors(factor_b, (*lead, ranks, *body[1:]))
        if leaf.is_fused:
            a, b = (np.moveaxis(x, -2, leaf.num_lead) for x in (a, b))
        delta = np.matmul(a, b * np.float32(self._config.alpha / self._config.rank))
        return np.moveaxis(delta, leaf.num_lead, -2) if leaf.is_fused else delta

    def finish(self) -> None:
        """Raises ValueError unless what was read of the frozen weights is what the factors were trained on."""
        found: dict[str, int] = {}
        for (name, _), number in self._digests.items():
            found[name] = (found.get(name, 0) + number) % 2**32
        changed = sorted(name for name in found if found[name] != self._expected.get(name))
        if changed:
            raise ValueError(
                f"{self._factors.folder}: the frozen weights are not those that the factors were trained on "
                f"({changed[0]} and {len(changed) - 1} more differ). Put the same model at config.model.path again."
            )


def read_directory(path: str | Path) -> Read:
    """Reads parts of the weights of a split or merged model directory, in the dtype of the leaf."""
    reader = Reader(open_model(path))

    def read(leaf: Leaf, index: Index) -> np.ndarray:
        part = np.empty([i.stop - i.start for i in index], leaf.dtype)
        for block in blocks_of(leaf, index):
            part[block.where] = contiguous(as_tree(reader.read(leaf, block), leaf), leaf.dtype)
        return part

    return read


def read_drawn(config: Config, model_config: ModelConfig) -> Read:
    """Reads parts of the random weights that a run without `model.path` started from. They are small: presets' own."""
    draw = jax.jit(lambda key: transformer.init(model_config, key, config.model.param_dtype))
    params = draw(keys.key(config.seed, "init"))

    def read(leaf: Leaf, index: Index) -> np.ndarray:
        node: Any = params
        for key in leaf.path:
            node = node[key]
        return np.asarray(node)[index]

    return read


def _target_modules(all_leaves: Sequence[Leaf], config: LoRAConfig) -> list[str] | str:
    """Names of modules as PEFT matches them: endings, or where these would match too much a pattern of whole names."""
    rows = [row for leaf in all_leaves for row in leaf.rows if lora.is_targeted(leaf.path[-1], config)]
    others = [row for leaf in all_leaves if leaf.path[-1] in lora.ALL_MATRICES for row in leaf.rows if row not in rows]
    modules = [row.hf.removesuffix(".weight") for row in rows]
    endings = sorted({module.rsplit(".", 1)[1] for module in modules})
    if not any(row.hf.removesuffix(".weight").endswith(tuple(f".{end}" for end in endings)) for row in others):
        return endings
    patterns = sorted({re.escape(m).replace(r"\{i\}", r"\d+").replace(r"\{e\}", r"\d+") for m in modules})
    return "|".join(patterns)


def adapter_config(all_leaves: Sequence[Leaf], config: Config) -> dict[str, Any]:
    """The values of `adapter_config.json`."""
    return {
        "peft_type": "LORA", "task_type": None, "base_model_name_or_path": config.model.path or None,
        "r": config.lora.rank, "lora_alpha": config.lora.alpha, "lora_dropout": 0.0, "bias": "none",
        "target_modules": _target_modules(all_leaves, config.lora), "modules_to_save": None, "fan_in_fan_out": False,
        "inference_mode": True, "init_lora_weights": True, "use_rslora": False, "use_dora": False,
    }  # fmt: skip


def write_adapter(
    path: str | Path, output_path: str | Path, *, dtype: str = "", has_code: bool = False, is_dry_run: bool = False
) -> None:
    """Writes a LoRA run's factors as a PEFT adapter directory: adapter_config.json, adapter_model.safetensors.

    Names are those of the published (split) layout; query, key and value are fused there, so one pair serves them.

    Args:
      output_path: the directory, empty or not there.
      is_dry_run: says what would be written, and stops.
      path: a run, or one of its steps.
      dtype: "bfloat16" or "float32"; "" is float32, as they are trained.
      has_code: with the base model's code in PyTorch and a card (`portable.adapter_files`).

    Raises:
      ValueError: for a run without factors, an occupied output, a full disk.
    """
    run, step = run_directory.find(path)
    folder = run / "checkpoints" / str(step)
    meta = run_directory.read_meta(folder)
    config, model_config = freeze(meta["config"]), ModelConfig.from_hf(meta["model"])
    if not config.lora.rank:
        raise ValueError(f"{run}: was trained without LoRA (lora.rank = 0). Use --layout split or merged.")
    dims = names.Dims.from_config(model_config.to_hf(), "the model")
    plain = leaves(dims, config.model.param_dtype)
    own = factor_leaves(plain, config.lora)
    tensor_dtype = STORED_NAMES[dtype or "float32"]
    specs = [spec for leaf in own for spec in _specs(leaf, dims.num_dense, tensor_dtype)]
    shard = dataclasses.replace(plan_shards(specs, 2**62)[0], file_name="adapter_model.safetensors")
    output = Path(output_path)
    refuse_occupied(output)
    refuse_full(output, shard.num_bytes)
    beside: Carried = {}
    if has_code:
        from conversion.portable import Exported, adapter_files  # imports the tokenizer

        exported = Exported(run, step, config, model_config, meta["data"], dtype or "float32")
        beside = adapter_files(exported, output)
    if is_dry_run:
        others = "".join(f", {name}" for name in beside)
        print(f"would write {output}: {shard.file_name}, {len(specs)} tensors, {shard.num_bytes / 1e9:.3f} GB{others}")
        return
    dtypes = {row.hf: numpy_dtype(tensor_dtype) for leaf in own for row in leaf.rows}
    work = [(leaf, block) for leaf in own for block in blocks_of(leaf, [slice(0, dim) for dim in leaf.shape])]
    stored = StoredParams(folder, own)
    with staged(output) as directory, Progress(shard.num_bytes, "adapter") as bar:
        target = Target(directory, [shard])
        try:
            writer = Writer(target, "split", dims.num_dense, dtypes)
            for num_bytes in in_threads(functools.partial(_convert, writer, stored), work):
                bar.update(num_bytes)
            stored.finish()
        finally:
            target.close()
        text = json.dumps(adapter_config(plain, config), indent=2) + "\n"
        (directory / "adapter_config.json").write_text(text, encoding="utf-8")
        copy_files(beside, directory)
    if config.model.path and run_directory.is_run(config.model.path):
        say(f"the base is the run {config.model.path}, which PEFT does not read. Export it with to_hf, and name that.")


def _convert(writer: Writer, read: Read, item: tuple[Leaf, Block]) -> int:
    leaf, block = item
    return writer.write(leaf, block, read(leaf, block.place_in(leaf)))


def _specs(leaf: Leaf, num_dense: int, stored: str) -> list[Spec]:
    """The tensors of one factor: one for each half, layer and expert."""
    num_layers, num_experts = (*leaf.shape[: leaf.num_lead], 1)[:2]
    first = num_dense if "moe" in leaf.path else 0
    shape = (leaf.shape[-1], leaf.shape[leaf.num_lead])
    return [
        Spec(row.hf.format(i=first + layer, e=expert), stored, shape)
        for row in leaf.rows
        for layer in range(num_layers)
        for expert in range(num_experts)
    ]
