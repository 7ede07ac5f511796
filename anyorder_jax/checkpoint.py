"""Checkpoints: Orbax, asynchronous; parameters, optimizer, data iterator and description saved together.

Which files that makes: `run_directory.py`. A LoRA run stores its factors and digests of the frozen weights, not these:
they are read again from where the configuration says (`load_base`), and refused when they are others.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from flax import traverse_util
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from orbax.checkpoint import checkpoint_managers

from anyorder_jax import digest, keys, sharding
from anyorder_jax.config import CheckpointConfig, Config, MeshConfig, freeze
from anyorder_jax.model import lora, transformer
from anyorder_jax.model.config import ModelConfig
from anyorder_jax.pretrained import load
from anyorder_jax.run_directory import find, is_run, read_meta
from anyorder_jax.state import TrainState, abstract_params

ITEMS = ("params", "optimizer", "data", "meta")
CHUNK_BYTES = 64 * 2**20
"""Weights and moments are stored in chunks of at most this size, so that a part can be read without the whole."""


class Restored(NamedTuple):
    """A checkpoint read back: the state, where the data iterator stood, and what was stored about the run."""

    state: TrainState
    data: Mapping[str, Any]
    meta: Mapping[str, Any]


class Checkpointer:
    """Saves and restores one run's state; a thin shell around Orbax's manager.

    Args:
      workdir: the run directory.
      config: when and how much.
      say: gets a sentence for the user, when a checkpoint is skipped or cannot be written and the run goes on.
    """

    def __init__(
        self, workdir: str | Path, config: CheckpointConfig, say: Callable[[str], None] = lambda line: None
    ) -> None:
        self._run = epath.Path(config.remote or Path(workdir).absolute())
        self._directory, self._config, self._say = self._run / "checkpoints", config, say
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        """Orbax's manager; what an interrupted save left behind is removed."""
        keep: list[checkpoint_managers.PreservationPolicy] = [checkpoint_managers.LatestN(self._config.keep_last)]
        if self._config.keep_best:
            keep.append(
                checkpoint_managers.BestN(
                    get_metric_fn=lambda metrics: -metrics["loss"],
                    n=self._config.keep_best,
                    keep_checkpoints_without_metrics=False,
                )
            )
        return ocp.CheckpointManager(
            self._directory,
            item_names=ITEMS,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=checkpoint_managers.AnyPreservationPolicy(keep),
                cleanup_tmp_directories=True,
            ),
        )

    def save(
        self,
        state: TrainState,
        data: Mapping[str, Any],
        meta: Mapping[str, Any],
        validation_loss: float | None = None,
    ) -> None:
        """Starts saving; returns once the state is copied to the host, so that training may go on.

        Raises:
          OSError: when this checkpoint, or the one before, could not be written, and `checkpoint.on_failure` is "stop"
            (or the run has several processes, of which only some may have failed).
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        data = json.loads(json.dumps(dict(data)))
        digests = {
            "params": digest.of_arrays(state.params),
            "optimizer": digest.of_arrays(state.opt_state),
            "data": digest.of_json(data),
        }
        meta = {**meta, "digests": digests}
        args = ocp.args.Composite(
            params=_in_chunks(state.params),
            optimizer=_in_chunks(state.opt_state),
            data=ocp.args.JsonSave(data),
            meta=ocp.args.JsonSave({**meta, "digest": digest.of_json(meta)}),
        )
        metrics = None if validation_loss is None else {"loss": float(validation_loss)}
        for _ in range(2):  # Orbax writes in a thread: the first call may tell what went wrong with the one before
            try:
                with self._explained():
                    self._manager.save(step, args=args, metrics=metrics)
                return
            except OSError as error:
                if self._config.on_failure == "stop" or jax.process_count() > 1:
                    raise
                self._say(f"{error} Training goes on (checkpoint.on_failure=continue).")
                self._manager = self._open()

    def restore_newest(self, shapes: TrainState, check: Callable[[Mapping[str, Any]], None]) -> Restored | None:
        """The newest checkpoint that is whole, on the shardings of `shapes`; None when there never was one.

        Damaged ones are named and skipped; once an older one is read, they are moved to RUN/damaged/.

        Args:
          shapes: the state's tree with shardings (which may be another mesh than it was saved from).
          check: raises for a checkpoint of another run, given its `meta`.

        Raises:
          ValueError: when there are checkpoints, and none can be read; whatever `check` raises.
        """
        damaged: dict[int, str] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            meta, reason = self._attempt(partial(self._read_meta, step))
            if meta is not None:
                check(meta)
                read, reason = self._attempt(partial(self._read, step, shapes))
                if read is not None:  # from here on all processes do the same again
                    wrong = _wrong_items(read, meta)
                    if not wrong:
                        self._set_aside(damaged)
                        count = jax.device_put(jax.numpy.int32(step), shapes.step.sharding)
                        return Restored(TrainState(count, read.params, read.optimizer), read.data, meta)
                    reason = f"{', '.join(wrong)}: other bytes than were written"
            damaged[step] = reason
            self._say(f"{self._directory / str(step)}: this checkpoint is damaged ({reason}); trying the one before.")
        if damaged:
            listed = "; ".join(f"{step}: {reason}" for step, reason in damaged.items())
            raise ValueError(
                f"{self._directory}: no checkpoint can be read ({listed}). The run does not start again by itself: put "
                "back a copy, or delete the directory, or give another --workdir."
            )
        return None

    def _attempt(self, read: Callable[[], Any]) -> tuple[Any, str]:
        """(what `read` gives, "") or (None, why not): the same on all processes, also when only one of them fails.

        `read` must not wait for the other processes, nor compute with them.
        """
        try:
            result, reason = read(), ""
        except Exception as error:  # whatever the storage or a decoder raises
            result, reason = None, f"{type(error).__name__}: {str(error).splitlines()[0][:300] if str(error) else ''}"
        if jax.process_count() > 1:
            is_read_by_P = multihost_utils.process_allgather(np.bool_(not reason))
            if not is_read_by_P.all():
                return None, reason or f"process {int(np.argmin(is_read_by_P))} could not read it"
        return result, reason

    def _read_meta(self, step: int) -> Mapping[str, Any]:
        """What was stored about the run, without reading any array. Raises when it is not what was written."""
        missing = [item for item in ITEMS if not (self._directory / str(step) / item).exists()]
        if missing:
            raise FileNotFoundError(f"missing: {', '.join(missing)}")
        meta = dict(self._read_alone(step, meta=ocp.args.JsonRestore()).meta)
        written = meta.pop("digest", None)
        if "digests" in meta and written != digest.of_json(meta):  # the first checkpoints had none
            raise ValueError("meta: other bytes than were written")
        return meta

    def _read(self, step: int, shapes: TrainState) -> Any:
        return self._read_alone(
            step,
            params=ocp.args.StandardRestore(shapes.params),
            optimizer=ocp.args.StandardRestore(shapes.opt_state),
            data=ocp.args.JsonRestore(),
        )

    def _read_alone(self, step: int, **items: ocp.args.CheckpointArgs) -> Any:
        """Items of a checkpoint, by a manager that waits for no other process: one that cannot read says so at once."""
        index = jax.process_index()
        alone = ocp.options.MultiprocessingOptions(
            primary_host=index, active_processes={index}, barrier_sync_key_prefix=f"reader_{index}"
        )
        options = ocp.CheckpointManagerOptions(
            read_only=True, create=False, save_interval_steps=0, multiprocessing_options=alone
        )
        with ocp.CheckpointManager(self._directory, item_names=ITEMS, options=options) as reader:
            return reader.restore(step, args=ocp.args.Composite(**items))

    def _set_aside(self, damaged: Mapping[int, str]) -> None:
        """Moves checkpoints to RUN/damaged/, so that their steps can be saved again."""
        if not damaged:
            return
        if jax.process_index() == 0:
            folder = self._run / "damaged"
            folder.mkdir(parents=True, exist_ok=True)
            for step in damaged:
                number = len(list(folder.glob(f"{step}*")))
                (self._directory / str(step)).rename(folder / (f"{step}.{number}" if number else str(step)))
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("damaged checkpoints are set aside")
        self._manager = self._open()

    def close(self) -> None:
        """Waits until what was started is on disk, and releases the manager.

        Raises:
          OSError: when the last checkpoint could not be written.
        """
        with self._explained():
            self._manager.wait_until_finished()
            self._manager.close()

    def __enter__(self) -> Checkpointer:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """`close`. After an error too, or the interpreter's end would tear down a checkpoint that is being written; but
        one process of several does not wait (the others' writers may wait for it)."""
        if error is None:
            self.close()
        elif jax.process_count() == 1:
            with contextlib.suppress(Exception):  # the first error is the one to tell
                self.close()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Orbax's writers fail in a thread; the error comes out of the next call and is told in one sentence."""
        try:
            yield
        except jax.errors.JaxRuntimeError:  # another process is gone: nothing that more room would help
            raise
        except Exception as error:  # whatever the storage raised
            kept = sorted(self._manager.all_steps(read=True))
            raise OSError(
                f"{self._manager.directory}: a checkpoint could not be written ({str(error).splitlines()[0]}). "
                f"Complete ones are still there: {kept}. Make room; the same command goes on from the newest."
            ) from error


def _wrong_items(read: Any, meta: Mapping[str, Any]) -> list[str]:
    """The items whose bits are not those that were saved (all processes take part); none for the first checkpoints,
    which had no digests."""
    if "digests" not in meta:
        return []
    found = {
        "params": digest.of_arrays(read.params),
        "optimizer": digest.of_arrays(read.optimizer),
        "data": digest.of_json(read.data),
    }
    return [item for item, digests in found.items() if digests != meta["digests"][item]]


def _in_chunks(tree: Any) -> ocp.args.StandardSave:
    save_args = jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=CHUNK_BYTES), tree)
    return ocp.args.StandardSave(tree, save_args=save_args)


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
    config = freeze(read_meta(path)["config"])
    if config.lora.rank:
        mesh = shapes["embedding"].sharding.mesh
        params = lora.fold(_load_adapted(path, config, model_config, mesh), config.lora)
        params = jax.tree.map(lambda x, s: jax.device_put(x.astype(s.dtype), s.sharding), params, shapes)
    else:
        params = _restore(path, shapes)
    return load.hold_all(params, hold)


def _restore(path: str | Path, shapes: Any) -> Any:
    """What a run stored of its parameters."""
    run, step = find(path)
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
        folder = run / "checkpoints" / str(step) / "params"
        return reader.restore(folder, args=ocp.args.StandardRestore(shapes))


def load_base(config: Config, model_config: ModelConfig, mesh: Mesh) -> tuple[Any, dict[str, int]]:
    """The frozen weights of a LoRA run: those at `model.path`, else the preset's as the seed draws them.

    Returns:
      (the tree without factors, held as `config.lora` says; a digest of each weight as it was before it was put into 8
      bits, so that it is the same on every machine).

    Raises:
      ValueError: as `load_params`, and when nothing is at `model.path`.
    """
    dtype = config.model.param_dtype
    held = lora.split(abstract_params(model_config, mesh, dtype, config.lora))[1]
    placed = traverse_util.flatten_dict(held, is_leaf=lambda _, node: lora.is_in_bits(node))
    digests: dict[str, int] = {}

    def hold(path: tuple[str, ...], weight: jax.Array) -> Any:
        digests["/".join(path)] = digest.of_arrays([weight])[0]
        if not lora.is_in_bits(placed[path]):
            return weight
        shardings = jax.tree.map(lambda s: s.sharding, placed[path])
        return jax.jit(partial(lora.quantise, in_dim=lora.in_dim(path[-1])), out_shardings=shardings)(weight)

    shapes = abstract_params(model_config, mesh, dtype)
    if config.model.path:
        if not Path(config.model.path).exists():
            raise ValueError(
                f"config.model.path: {config.model.path} is not there. A LoRA run holds its factors only; put the "
                "model that they were trained on (or a link to it) there."
            )
        return load_params(config.model.path, model_config, shapes, hold), digests
    draw = jax.jit(
        lambda key: transformer.init(model_config, key, dtype), out_shardings=jax.tree.map(lambda s: s.sharding, shapes)
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


def _load_adapted(path: str | Path, config: Config, model_config: ModelConfig, mesh: Mesh) -> Any:
    """A run's parameters as it trains them, with LoRA the frozen weights and the factors."""
    shapes = abstract_params(model_config, mesh, config.model.param_dtype, config.lora)
    params = _restore(path, lora.split(shapes)[0])
    if not config.lora.rank:
        return params
    base, digests = load_base(config, model_config, mesh)
    refuse_other_base(read_meta(path), digests, config.model.path)
    return {**base, **params}


def load_for_inference(
    path: str | Path, mesh: Mesh | None = None, param_dtype: str = ""
) -> tuple[Config, ModelConfig, Any, Path]:
    """(config, model config, params, tokenizer directory) of a run or step directory; the optimizer is not read. The
    params are what `transformer.apply(..., lora_config=config.lora)` takes.

    Args:
      path: RUN or RUN/checkpoints/STEP.
      mesh: where the weights go (None: the first device).
      param_dtype: of the weights; "" is that of the run.

    Raises:
      FileNotFoundError: when there is no checkpoint there.
    """
    run, step = find(path)
    meta = read_meta(path)
    config, model_config = freeze(meta["config"]), ModelConfig.from_hf(meta["model"])
    mesh = sharding.make_mesh(MeshConfig(), jax.local_devices()[:1]) if mesh is None else mesh
    if param_dtype:
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, param_dtype=param_dtype))
    params = _load_adapted(run / "checkpoints" / str(step), config, model_config, mesh)
    return config, model_config, params, run / "tokenizer"


def copy_to_remote(workdir: Path, remote: str) -> None:
    """Copies what a run directory holds besides checkpoints (configuration, tokenizer, log) to `checkpoint.remote`."""
    for name in ("config.json", "tokenizer", "metrics"):
        for file in (workdir / name, *(workdir / name).rglob("*")):
            if file.is_file():
                target = epath.Path(remote) / str(file.relative_to(workdir))
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.read_bytes())


def fetch_log(workdir: Path, remote: str) -> None:
    """Brings the log of a run back from `checkpoint.remote` to a machine that does not have it, to be gone on with."""
    there = epath.Path(remote) / "metrics"
    if (workdir / "metrics").exists() or not there.exists():
        return
    (workdir / "metrics").mkdir(parents=True)
    for file in there.iterdir():
        (workdir / "metrics" / file.name).write_bytes(file.read_bytes())


def write_text(path: Path, text: str) -> None:
    """Writes beside, then renames: a reader sees the old file or the new one, never half of it."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
