"""Checkpoints: Orbax, asynchronous; parameters, optimizer, data iterator and description saved together.

Which files that makes: `run_directory.py`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from jax.sharding import Mesh
from orbax.checkpoint import checkpoint_managers

from anyorder_jax import sharding
from anyorder_jax.config import CheckpointConfig, Config, MeshConfig, freeze
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
    """Saves and restores one run's state; a thin shell around Orbax's manager."""

    def __init__(self, workdir: str | Path, config: CheckpointConfig) -> None:
        keep: list[checkpoint_managers.PreservationPolicy] = [checkpoint_managers.LatestN(config.keep_last)]
        if config.keep_best:
            keep.append(
                checkpoint_managers.BestN(
                    get_metric_fn=lambda metrics: -metrics["loss"],
                    n=config.keep_best,
                    keep_checkpoints_without_metrics=False,
                )
            )
        self._manager = ocp.CheckpointManager(
            (Path(workdir) / "checkpoints").absolute(),
            item_names=ITEMS,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=checkpoint_managers.AnyPreservationPolicy(keep),
                cleanup_tmp_directories=True,
            ),
        )

    def latest_step(self) -> int | None:
        """The newest complete checkpoint's step."""
        return self._manager.latest_step()

    def save(
        self,
        state: TrainState,
        data: Mapping[str, Any],
        meta: Mapping[str, Any],
        validation_loss: float | None = None,
    ) -> None:
        """Starts saving; returns once the state is copied to the host, so that training may go on."""
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        args = ocp.args.Composite(
            params=_in_chunks(state.params),
            optimizer=_in_chunks(state.opt_state),
            data=ocp.args.JsonSave(dict(data)),
            meta=ocp.args.JsonSave(dict(meta)),
        )
        metrics = None if validation_loss is None else {"loss": float(validation_loss)}
        with self._explained():
            self._manager.save(step, args=args, metrics=metrics)

    def restore(self, step: int, shapes: TrainState) -> Restored:
        """Reads checkpoint `step` onto the shardings of `shapes` (which may be another mesh than it was saved from).

        Raises:
          ValueError: when the checkpoint holds another model or optimizer than `shapes`.
        """
        args = ocp.args.Composite(
            params=ocp.args.StandardRestore(shapes.params),
            optimizer=ocp.args.StandardRestore(shapes.opt_state),
            data=ocp.args.JsonRestore(),
            meta=ocp.args.JsonRestore(),
        )
        restored = self._manager.restore(step, args=args)
        count = jax.device_put(jax.numpy.int32(step), shapes.step.sharding)
        return Restored(TrainState(count, restored.params, restored.optimizer), restored.data, restored.meta)

    def read_meta(self, step: int) -> Mapping[str, Any]:
        """What was stored about the run, without reading any array."""
        return self._manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())).meta

    def close(self) -> None:
        """Waits until what was started is on disk, and releases the manager."""
        with self._explained():
            self._manager.wait_until_finished()
            self._manager.close()

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Orbax's writers fail in a thread; the error comes out of the next call and is told in one sentence."""
        try:
            yield
        except Exception as error:  # whatever the storage raised
            kept = sorted(self._manager.all_steps(read=True))
            raise OSError(
                f"{self._manager.directory}: a checkpoint could not be written ({str(error).splitlines()[0]}). "
                f"Complete ones are still there: {kept}. Make room; the same command goes on from the newest."
            ) from error


def _in_chunks(tree: Any) -> ocp.args.StandardSave:
    save_args = jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=CHUNK_BYTES), tree)
    return ocp.args.StandardSave(tree, save_args=save_args)


def read_model_config(path: str | Path) -> ModelConfig:
    """The model at `path`: a run or step directory, or a split or merged model directory.

    Raises:
      FileNotFoundError, ValueError: when there is none, or one of another family.
    """
    return ModelConfig.from_hf(read_meta(path)["model"]) if is_run(path) else load.read_model_config(path)


def load_params(path: str | Path, model_config: ModelConfig, shapes: Any) -> Any:
    """The parameters at `path` (see `read_model_config`), in the dtypes and on the shardings of `shapes`.

    Args:
      path: a run or step directory, or a split or merged model directory.
      model_config: what is expected there.
      shapes: the model's tree of `ShapeDtypeStruct`s with shardings.

    Raises:
      ValueError: for another model than expected, or a bad checkpoint.
    """
    if is_run(path):
        run, step = find(path)
        with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
            folder = run / "checkpoints" / str(step) / "params"
            return reader.restore(folder, args=ocp.args.StandardRestore(shapes))
    placed = jax.tree.map(lambda s: s.sharding, shapes)
    return load.load_params(path, model_config, placed, shapes["embedding"].dtype, show_progress=True)


def load_for_inference(path: str | Path, mesh: Mesh | None = None) -> tuple[Config, ModelConfig, Any, Path]:
    """(config, model config, params, tokenizer directory) of a run or step directory; the optimizer is not read.

    Args:
      path: RUN or RUN/checkpoints/STEP.
      mesh: where the weights go (None: the first device).

    Raises:
      FileNotFoundError: when there is no checkpoint there.
    """
    run, step = find(path)
    meta = read_meta(path)
    config, model_config = freeze(meta["config"]), ModelConfig.from_hf(meta["model"])
    mesh = sharding.make_mesh(MeshConfig(), jax.local_devices()[:1]) if mesh is None else mesh
    shapes = abstract_params(model_config, mesh, config.model.param_dtype)
    params = load_params(run / "checkpoints" / str(step), model_config, shapes)
    return config, model_config, params, run / "tokenizer"


def write_text(path: Path, text: str) -> None:
    """Writes beside, then renames: a reader sees the old file or the new one, never half of it."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
