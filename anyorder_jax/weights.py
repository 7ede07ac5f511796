"""Weights, read from wherever they lie: a run, one of its steps, or a split or merged model directory; no optimizer.

A LoRA run stores its factors and digests of the frozen weights, not these: they are read again from where the
configuration says (`load_base`), and refused when they are others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from flax import traverse_util
from jax.sharding import Mesh

from anyorder_jax import digest, keys, paths, sharding
from anyorder_jax.config import Config, MeshConfig, freeze
from anyorder_jax.model import lora, transformer
from anyorder_jax.model.config import ModelConfig
from anyorder_jax.pretrained import load
from anyorder_jax.run_directory import find, is_run, read_meta, step_folder
from anyorder_jax.state import abstract_params

DTYPES = ("", "float32", "bfloat16", "int8")
"""In which weights are held for inference; see `held_in`."""

AT_ONCE_BYTES = 2**30
"""A run's parameters are read from Orbax together up to this size, a larger run's one weight after another."""


def read_model_config(path: str | Path) -> ModelConfig:
    """The model at `path`: a run or step directory, or a split or merged model directory.

    Raises:
      FileNotFoundError, ValueError: when there is none, or one of another family.
    """
    return ModelConfig.from_hf(read_meta(path)["model"]) if is_run(path) else load.read_model_config(path)


def load_params(path: str | Path, model_config: ModelConfig, shapes: Any, hold: load.Hold = load.as_it_is) -> Any:
    """The parameters at `path` (see `read_model_config`), in the dtypes and on the shardings of `shapes`. A LoRA run
    gives those of the model that it trained: its factors folded into the weights.

    Args:
      path: a run or step directory, or a split or merged model directory.
      model_config: what is expected there.
      shapes: a plain model's tree of `ShapeDtypeStruct`s with shardings.
      hold: gets every weight, and gives what stands for it in the tree.

    Raises:
      ValueError: for another model than expected, or a bad checkpoint.
    """
    if not is_run(path):
        placed = jax.tree.map(lambda s: s.sharding, shapes)
        return load.load_params(path, model_config, placed, shapes["embedding"].dtype, hold, show_progress=True)
    if (stored := read_model_config(path)) != model_config:
        raise ValueError(f"{path}: holds {stored}, expected {model_config}.")
    config = freeze(read_meta(path)["config"])
    if not config.lora.rank:
        return load.hold_all(_restore(path, shapes), hold)
    mesh = shapes["embedding"].sharding.mesh
    own = shapes_for_inference(config, model_config, mesh)
    params = lora.fold(_load_adapted(path, config, model_config, own, is_average=False), config.lora)
    params = jax.tree.map(lambda x, s: jax.device_put(x.astype(s.dtype), s.sharding), params, shapes)
    return load.hold_all(params, hold)


def _hold_as(shapes: Any) -> load.Hold:
    """What puts every weight into the dtype and onto the shardings of `shapes`, into 8 bits where it is so there."""
    wanted = traverse_util.flatten_dict(shapes, is_leaf=lambda _, node: lora.is_in_bits(node))

    def hold(path: tuple[str, ...], weight: jax.Array) -> Any:
        form = wanted[path]
        if lora.is_in_bits(form):
            placed = jax.tree.map(lambda s: s.sharding, form)
            return jax.jit(partial(lora.quantise, in_dim=lora.in_dim(path[-1])), out_shardings=placed)(weight)
        return weight if weight.dtype == form.dtype else jax.device_put(weight.astype(form.dtype), form.sharding)

    return hold


def _restore(path: str | Path, shapes: Any, is_average: bool = False) -> Any:
    """What a run stored of its parameters, in the form (dtypes, 8 bits) and on the shardings of `shapes`; or of their
    average.

    They are read in the dtypes in which they were stored, compared with the digests that were saved with them, and put
    into their form then: one weight after another where that is another one, as both trees may not fit, or where there
    are many bytes, as Orbax holds on the host what it reads at a time.

    Raises:
      ValueError: for a checkpoint that cannot be read, or holds other bytes than were written, or no average.
    """
    folder, meta = step_folder(path), read_meta(path)
    saved = freeze(meta["config"])
    if is_average and not saved.optimizer.ema_decay:
        raise ValueError(f"{folder}: holds no average of weights: its run had config.optimizer.ema_decay = 0.")
    item, dtype = ("optimizer/ema", "float32") if is_average else ("params", saved.model.param_dtype)
    wanted = traverse_util.flatten_dict(shapes, is_leaf=lambda _, node: lora.is_in_bits(node))
    stored = {path: _as_stored(path, shape, dtype) for path, shape in wanted.items()}
    hold = _hold_as(shapes)
    is_at_once = stored == wanted and sum(s.size * s.dtype.itemsize for s in stored.values()) <= AT_ONCE_BYTES
    found: dict[tuple[str, ...], Any] = {}
    digests: dict[tuple[str, ...], int] = {}
    for group in [stored] if is_at_once else [{path: shape} for path, shape in stored.items()]:
        read = _read_some(folder, item, group)
        digests |= dict(zip(read, digest.of_arrays(list(read.values())), strict=True))
        found |= {path: hold(path, read.pop(path)) for path in group}
    in_order = [digests[path] for path in sorted(digests)]  # of the tree's leaves
    written = meta.get("digests", {}).get(item.split("/")[0], in_order)[-len(in_order) :]  # an average comes last
    if in_order != written:
        raise _damaged(folder, f"{item}: other bytes than were written")
    return traverse_util.unflatten_dict(found)


def _as_stored(path: tuple[str, ...], form: Any, dtype: str) -> Any:
    """Factors and the router's bias are float32 always."""
    if path[0] == "lora" or path[-1] == "expert_bias":
        return form
    shape = form["bits"] if lora.is_in_bits(form) else form
    return jax.ShapeDtypeStruct(shape.shape, dtype, sharding=shape.sharding)


def _read_some(folder: Path, item: str, shapes: Mapping[tuple[str, ...], Any]) -> dict[tuple[str, ...], jax.Array]:
    """Some of the arrays of a step's `params`, or of another item's branch ("optimizer/ema")."""
    item, *branch = item.split("/")
    tree = traverse_util.unflatten_dict({(*branch, *name): shape for name, shape in shapes.items()})
    args = ocp.checkpoint_utils.construct_restore_args(tree)
    try:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            read = reader.restore(folder / item, args=ocp.args.PyTreeRestore(tree, args, partial_restore=True))
    except jax.errors.JaxRuntimeError:  # no memory
        raise
    except Exception as error:  # whatever the storage or a decoder raises
        raise _damaged(folder, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}") from error
    flat = traverse_util.flatten_dict(read)
    return {name: flat[(*branch, *name)] for name in shapes}


def _damaged(folder: Path, reason: str) -> ValueError:
    return ValueError(f"{folder}: this checkpoint is damaged ({reason}). Name another step, or put back a copy.")


def load_base(config: Config, model_config: ModelConfig, mesh: Mesh, shapes: Any = None) -> tuple[Any, dict[str, int]]:
    """The frozen weights of a LoRA run: those at `model.path`, else the preset's as the seed draws them.

    Args:
      config: of the run, as it was trained.
      model_config: the model's shape.
      mesh: where they go.
      shapes: in which form they are held (None: as the run holds them).

    Returns:
      (the tree without factors; a digest of each weight as it was read, in the run's dtype and before it was put into 8
      bits, so that it is the same on every machine and in every form).

    Raises:
      ValueError: as `load_params`, and when nothing is at `model.path`.
    """
    dtype = config.model.param_dtype
    form = abstract_params(model_config, mesh, dtype, config.lora) if shapes is None else shapes
    put = _hold_as(lora.split(form)[1])
    digests: dict[str, int] = {}

    def hold(path: tuple[str, ...], weight: jax.Array) -> Any:
        digests["/".join(path)] = digest.of_arrays([weight])[0]
        return put(path, weight)

    plain = abstract_params(model_config, mesh, dtype)
    if config.model.path:
        if not Path(config.model.path).exists():
            raise ValueError(
                f"config.model.path: {config.model.path} is not there. A LoRA run holds its factors only; put the "
                "model that they were trained on (or a link to it) there."
            )
        return load_params(config.model.path, model_config, plain, hold), digests
    draw = jax.jit(
        lambda key: transformer.init(model_config, key, dtype), out_shardings=jax.tree.map(lambda s: s.sharding, plain)
    )
    return load.hold_all(draw(keys.key(config.seed, "init")), hold), digests


def refuse_other_base(meta: Mapping[str, Any], digests: Mapping[str, int], where: str) -> None:
    """Raises ValueError when the factors described by `meta` were trained on other frozen weights than these."""
    changed = sorted(name for name in meta["base"].keys() | digests if meta["base"].get(name) != digests.get(name))
    if changed:
        raise ValueError(
            f"{where or 'the weights drawn from config.seed'}: not the weights that the factors were trained on "
            f"({len(changed)} of {len(digests)} differ, {changed[0]} first). Put the same model there again."
        )


def _load_adapted(path: str | Path, config: Config, model_config: ModelConfig, shapes: Any, is_average: bool) -> Any:
    """A run's parameters as it trains them (or their average), with LoRA the frozen weights and the factors.

    Args:
      path: RUN/checkpoints/STEP.
      config: of the run, as it was trained.
      model_config: the model's shape.
      shapes: the form in which they are held, and where.
      is_average: the running average in place of the last ones.
    """
    params = _restore(path, lora.split(shapes)[0], is_average)
    if not config.lora.rank:
        return params
    where = paths.find(config.model.path, find(path)[0])  # a copied run may have its model beside it
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, path=where))
    base, digests = load_base(config, model_config, shapes["embedding"].sharding.mesh, shapes)
    refuse_other_base(read_meta(path), digests, config.model.path)
    return {**base, **params}


def held_in(config: Config, dtype: str) -> Config:
    """The configuration under which a run's model is used when its weights are held in `dtype`.

        ""                     as the run held them
        "float32", "bfloat16"  the weights, and the arithmetic
        "int8"                 the layers' matrices in 8 bits (`lora.quantise`); the rest, and the arithmetic, bfloat16

    A base in 8 bits beside which factors were trained (config.lora.base_dtype) stays so.

    Raises:
      ValueError: for another name.
    """
    if dtype not in DTYPES:
        raise ValueError(f"--dtype: expected one of {', '.join(DTYPES[1:])}, got {dtype!r}.")
    if not dtype:
        return config
    wide = "bfloat16" if dtype == "int8" else dtype
    base_dtype = "int8" if dtype == "int8" and config.lora.rank else config.lora.base_dtype
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, param_dtype=wide, compute_dtype=wide),
        lora=dataclasses.replace(config.lora, base_dtype=base_dtype),
    )


def shapes_for_inference(config: Config, model_config: ModelConfig, mesh: Mesh, dtype: str = "") -> Any:
    """A run's parameters as they are held for inference, as `ShapeDtypeStruct`s with their places.

    Args:
      config: of the run.
      model_config: the model's shape.
      mesh: where they lie.
      dtype: see `held_in`.
    """
    held = held_in(config, dtype)
    is_in_bits = dtype == "int8" and not held.lora.rank  # with factors it is declared so
    return abstract_params(model_config, mesh, held.model.param_dtype, held.lora, is_in_bits=is_in_bits)


class Loaded(NamedTuple):
    """A model, read. config: of the run, as `held_in` makes it. model_config: its shape. params: what
    `transformer.apply` takes with `config.lora`, placed. tokenizer: the directory of its tokenizer."""

    config: Config
    model_config: ModelConfig
    params: Any
    tokenizer: Path

    @property
    def mesh(self) -> Mesh:
        """The mesh on which the weights lie."""
        return sharding.mesh_of(self.params)

    @property
    def dtype(self) -> str:
        """In which they are held: of the layers' matrices."""
        is_in_bits = any(map(lora.is_in_bits, self.params["moe"].values()))
        return "int8" if is_in_bits else str(self.params["embedding"].dtype)


def load_for_inference(path: str | Path, mesh: Mesh | None = None, dtype: str = "", is_average: bool = False) -> Loaded:
    """The model of a run or step directory; the optimizer is not read.

    Beside the devices' part the host holds at most what it reads at a time: a weight of a large run, blocks of 64 MiB
    of a safetensors base.

    Args:
      path: RUN or RUN/checkpoints/STEP.
      mesh: where the weights go (None: the first device).
      dtype: in which the weights are held; see `held_in`, which made the returned config.
      is_average: the running average of the weights (config.optimizer.ema_decay) in place of the last ones.

    Raises:
      FileNotFoundError: when there is no checkpoint there. ValueError: when it holds no average, or for another dtype.
    """
    run, step = find(path)
    meta = read_meta(path)
    config, model_config = freeze(meta["config"]), ModelConfig.from_hf(meta["model"])
    mesh = sharding.make_mesh(MeshConfig(), jax.local_devices()[:1]) if mesh is None else mesh
    shapes = shapes_for_inference(config, model_config, mesh, dtype)
    params = _load_adapted(run / "checkpoints" / str(step), config, model_config, shapes, is_average)
    return Loaded(held_in(config, dtype), model_config, params, run / "tokenizer")
