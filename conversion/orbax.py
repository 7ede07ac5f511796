"""Between model directories and Orbax checkpoints that `train` and `evaluate` open.

O/checkpoints/0/params   the model's tree         O/tokenizer/   what AutoTokenizer opens
O/checkpoints/0/meta     configuration, model     O/source/      config.json, other files, dtypes: for the way back
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from jax.sharding import Mesh

from anyorder_jax import checkpoint, sharding
from anyorder_jax.config import Config, MeshConfig, ModelSelection
from anyorder_jax.model import transformer
from anyorder_jax.model.config import ModelConfig
from anyorder_jax.pretrained.directory import ModelDirectory, open_model, read_config
from anyorder_jax.pretrained.load import load_params, read_model_config
from conversion.export import export_params, plan_export
from conversion.staging import refuse_full, refuse_occupied, staged
from conversion.writing import MAX_SHARD_BYTES, copy_files

DTYPES_NAME = "tensor_dtypes.json"
_TOKENIZER_FILES = ("tokenizer", "special_tokens_map", "added_tokens", "vocab", "merges", "chat_template")
_CHUNK_BYTES = 64 * 2**20


def stored_dtypes(model: ModelDirectory) -> dict[str, str]:
    """Name of a table row -> the dtype of its tensors (the widest, should they differ)."""
    found: dict[str, str] = {}
    for name, tensor in model.tensors.items():
        row = model.places[name].row.hf
        found[row] = "F32" if row in found and found[row] != tensor.dtype else tensor.dtype
    return found


def own_dtype(model: ModelDirectory) -> str:
    """The dtype to hold parameters in: bfloat16 when all weights but the router's bias are, else float32."""
    dtypes = {tensor.dtype for name, tensor in model.tensors.items() if not name.endswith("expert_bias")}
    return "bfloat16" if dtypes == {"BF16"} else "float32"


def mesh_of(sizes: Mapping[str, int]) -> Mesh:
    """The mesh of these axis sizes; without any, all devices share the weights (fsdp)."""
    return sharding.make_mesh(MeshConfig(**sizes) if sizes else MeshConfig(data=1, fsdp=-1))


def _is_tokenizer(path: Path) -> bool:
    return path.name.startswith(_TOKENIZER_FILES)


def _save_tree(folder: Path, params: Any) -> None:
    # Orbax wants leave to hold the largest shard of a weight (on a CPU it is the device's own memory). Nothing is
    # compressed: random-looking mantissas do not shrink, and the disk is the limit.
    largest = max(shard.data.nbytes for array in jax.tree.leaves(params) for shard in array.addressable_shards)
    concurrent_gb = max(1, math.ceil(largest / 1e9))
    handler = ocp.PyTreeCheckpointHandler(
        save_concurrent_gb=concurrent_gb, save_device_host_concurrent_gb=concurrent_gb, use_compression=False
    )
    save_args = jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=_CHUNK_BYTES), params)
    with ocp.Checkpointer(handler) as writer:
        arguments = ocp.args.PyTreeSave(params, save_args=save_args, ocdbt_target_data_file_size=_CHUNK_BYTES)
        writer.save(folder.absolute(), args=arguments)


def to_orbax(
    input_path: str | Path,
    output_path: str | Path,
    *,
    mesh: Mapping[str, int],
    dtype: str = "",
    is_dry_run: bool = False,
) -> None:
    """Loads a split or merged checkpoint onto a mesh and saves it as an Orbax checkpoint at step 0.

    Args:
      mesh: devices per axis; empty spreads the weights over all devices.
      dtype: of the parameters; "" keeps that of the weights (`expert_bias` is held in float32 always).

    Raises:
      ValueError: for bad input, an occupied output, a full disk, a mesh that does not fit the devices.
    """
    model = open_model(input_path)
    model_config = read_model_config(input_path)
    dtype = dtype or own_dtype(model)
    output = Path(output_path)
    refuse_occupied(output)
    refuse_full(output, model.num_bytes if dtype == "bfloat16" else 2 * model.num_bytes)
    devices = mesh_of(mesh)
    sizes = dict(devices.shape)
    print(f"{model.path}: {model.layout} layout, {model.num_bytes / 1e9:.3f} GB -> {dtype} on {sizes}, {output}")
    if is_dry_run:
        return
    selection = ModelSelection(path=str(model.path.absolute()), param_dtype=dtype, compute_dtype=dtype)
    config = dataclasses.replace(Config(), model=selection)
    with staged(output) as partial:
        parameters = transformer.parameters(model_config, dtype)
        params = load_params(
            input_path,
            model_config,
            sharding.weight_shardings(parameters, devices),
            dtype,
            show_progress=True,
        )
        _save_tree(partial / "checkpoints" / "0" / "params", params)
        with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as writer:
            meta = checkpoint.describe(config, model_config, {})
            writer.save((partial / "checkpoints" / "0" / "meta").absolute(), args=ocp.args.JsonSave(meta))
        copy_files({p: f for p, f in model.carried.items() if _is_tokenizer(p)}, partial / "tokenizer")
        copy_files({**model.carried, Path("config.json"): model.path / "config.json"}, partial / "source")
        (partial / "source" / DTYPES_NAME).write_text(json.dumps(stored_dtypes(model), indent=2) + "\n")


class Companions(NamedTuple):
    """What an exported model takes along: config values (None: made from the model), dtypes by table row, files."""

    config: Mapping[str, Any] | None
    dtypes: Mapping[str, str]
    carried: Mapping[Path, Path]


def _companions(run: Path, model_path: str, tokenizer: Path, model_config: ModelConfig) -> Companions:
    """Of the run's `source/`, else of the model that training started from; the run's own tokenizer comes first."""
    candidates = [run / "source", Path(model_path) / "source", Path(model_path)] if model_path else [run / "source"]
    config, dtypes, carried = None, {}, {}
    for folder in candidates:
        if not (folder / "config.json").is_file():
            continue
        found = read_config(folder)
        if ModelConfig.from_hf(found) == model_config:
            config = found
        if (folder / DTYPES_NAME).is_file():
            dtypes = json.loads((folder / DTYPES_NAME).read_text())
            carried = {p.relative_to(folder): p for p in sorted(folder.rglob("*")) if p.is_file()}
            carried = {p: f for p, f in carried.items() if p.name not in ("config.json", DTYPES_NAME)}
        else:
            model = open_model(folder)
            dtypes, carried = stored_dtypes(model), dict(model.carried)
        break
    if tokenizer.is_dir():
        carried |= {p.relative_to(tokenizer): p for p in sorted(tokenizer.rglob("*")) if p.is_file()}
    return Companions(config, dtypes, carried)


def to_hf(
    path: str | Path,
    output_path: str | Path,
    layout: str,
    *,
    mesh: Mapping[str, int],
    dtype: str = "",
    max_shard_bytes: int = MAX_SHARD_BYTES,
    is_dry_run: bool = False,
) -> None:
    """Writes a run's newest checkpoint (or the one named) as a split or merged model directory.

    Raises:
      FileNotFoundError: when there is no checkpoint.
      ValueError: for an occupied output or a full disk.
    """
    run, step = checkpoint.find(path)
    refuse_occupied(Path(output_path))
    folder = run / "checkpoints" / str(step)
    config, model_config, params, tokenizer = checkpoint.load_for_inference(folder, mesh_of(mesh))
    companions = _companions(run, config.model.path, tokenizer, model_config)
    arguments: dict[str, Any] = {
        "dtype": dtype, "dtypes": companions.dtypes, "config": companions.config, "carried": companions.carried,
        "max_shard_bytes": max_shard_bytes,
    }  # fmt: skip
    if is_dry_run:
        plan = plan_export(model_config, output_path, layout, param_dtype=config.model.param_dtype, **arguments)
        print(f"{run}: step {step}, {config.model.param_dtype}")
        print(plan.describe())
        return
    export_params(params, model_config, output_path, layout, **arguments)
