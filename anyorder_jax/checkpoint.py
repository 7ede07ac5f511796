"""Checkpoints: Orbax, asynchronous; parameters, optimizer, data iterator and description saved together.

Which files that makes: `run_directory.py`. Weights alone, e.g. to evaluate: `weights.py`.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers

from anyorder_jax import digest, paths, run_directory
from anyorder_jax.config import CheckpointConfig
from anyorder_jax.state import TrainState

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
        self._run = epath.Path(paths.absolute(config.remote or workdir))
        self._directory, self._config, self._say = self._run / "checkpoints", config, say
        if config.on_failure == "continue" and jax.process_count() > 1:
            say(
                "checkpoint.on_failure=continue is for a run of one process. Of several, whose writers wait for one "
                "another, a checkpoint that cannot be written ends the run; the same command goes on from the last."
            )
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        """Orbax's manager; what an interrupted save left behind is removed."""
        keep: list[checkpoint_managers.PreservationPolicy] = [checkpoint_managers.LatestN(self._config.keep_last)]
        if self._config.keep_best:
            keep.append(
                checkpoint_managers.BestN(
                    get_metric_fn=_goodness,
                    n=self._config.keep_best,
                    keep_checkpoints_without_metrics=False,
                )
            )
        return ocp.CheckpointManager(
            self._directory,
            item_names=ITEMS,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=checkpoint_managers.AnyPreservationPolicy(keep),
                best_fn=_goodness,  # else no loss is written, and a run that goes on has forgotten which was the best
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

        Args:
          state: of the run, on its devices.
          data: what else a resumed run needs, as JSON.
          meta: what the run is; stored beside it.
          validation_loss: ranks the checkpoint among the best; None: it was not measured.

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
        args = ocp.args.Composite(
            params=_in_chunks(state.params),
            optimizer=_in_chunks(state.opt_state),
            data=ocp.args.JsonSave(data),
            meta=ocp.args.JsonSave(run_directory.sealed({**meta, "digests": digests})),
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
        return run_directory.verified(self._read_alone(step, meta=ocp.args.JsonRestore()).meta)

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


def _goodness(metrics: Mapping[str, float]) -> float:
    """The larger the better: a validation loss that is not finite is the worst."""
    return -metrics["loss"] if math.isfinite(metrics["loss"]) else -math.inf


def _wrong_items(read: Any, meta: Mapping[str, Any]) -> list[str]:
    """The items whose bits are not those that were saved (all processes take part)."""
    found = {
        "params": digest.of_arrays(read.params),
        "optimizer": digest.of_arrays(read.optimizer),
        "data": digest.of_json(read.data),
    }
    return digest.wrong_items(found, meta)


def _in_chunks(tree: Any) -> ocp.args.StandardSave:
    save_args = jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=CHUNK_BYTES), tree)
    return ocp.args.StandardSave(tree, save_args=save_args)
