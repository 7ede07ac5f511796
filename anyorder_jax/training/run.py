"""Run: the nouns of one training run, built top to bottom; `loop` is the verbs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from anyorder_jax import checkpoint, keys, run_directory, sharding, state, step
from anyorder_jax.collected import collect, directory_of, is_collected
from anyorder_jax.config import Config
from anyorder_jax.data import pipeline
from anyorder_jax.masking.sampler import AnyOrderMaskSampler
from anyorder_jax.model import lora
from anyorder_jax.optimizer import make_optimizer
from anyorder_jax.process import say
from anyorder_jax.task import open_task
from anyorder_jax.training.monitor import Accumulator, SpikeGuard, summarise
from anyorder_jax.training.resuming import extend, refuse_other_run
from anyorder_jax.training.shape import model_config_of, say_other_mask


def collect_if_needed(config: Config) -> None:
    """Collects expert episodes unless all are there; only the first process does, the others wait."""
    is_given = config.data.path or config.data.sources
    if not is_given and jax.process_index() == 0 and not is_collected(directory_of(config.data)):
        collect(config.data)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("episodes are there")


def say_skipped(reasons: Sequence[str]) -> None:
    """Tells which records were left out (data.on_bad_record=skip): the first ones, and how many."""
    for reason in reasons[:5]:
        say(f"Skipped: {reason}")
    if reasons:
        say(f"{len(reasons)} bad record(s) skipped in all (data.on_bad_record=skip).")


class Run:
    """The nouns of one run, built top to bottom; `loop.train` is the verbs."""

    def __init__(self, config: Config, workdir: Path, is_extending: bool = False) -> None:
        self.config, self.workdir, self.is_extending = config, workdir, is_extending
        self.mesh = sharding.make_mesh(config.mesh)
        collect_if_needed(config)
        self.task = open_task(config)
        self.model_config = model_config_of(config, self.task)
        say_other_mask(self.model_config, self.task)
        self.corpus = corpus = self.task.examples(config, "train")
        has_validation = self.task.has_split("validation")
        if not has_validation:
            say(f"{self.task.directory}: no validation split, so nothing is validated; the last checkpoints are kept.")
        held_out = self.task.examples(config, "validation") if has_validation else None
        self.task.fingerprint["tokens_sha256"] = [corpus.sha256(), held_out.sha256() if held_out else ""]
        say_skipped(self.task.skipped or [])
        sampler = AnyOrderMaskSampler(config.masking)
        ids = {"mask_id": self.task.vocabulary.mask_id, "pad_id": self.task.vocabulary.pad_id}
        self.share, self.num_shares = sharding.data_share(self.mesh)
        self.batches = pipeline.make_pipeline(
            config,
            corpus,
            sampler,
            num_steps_total=config.train.num_steps,
            complement=sampler.complement,
            **ids,
            share=(self.share, self.num_shares),
        )
        shape = pipeline.RowShape(config.data.row_length, **ids, block_size=config.train.aligned_to)
        num_rows = config.train.batch_size // config.train.accumulation_steps
        self.validation = [] if held_out is None else pipeline.validation_batches(
            held_out, sampler, config.seed, num_rows, config.log.num_validation_rows, shape=shape
        )  # fmt: skip
        dtype = config.model.param_dtype
        shapes = state.abstract_params(self.model_config, self.mesh, dtype, config.lora)
        self.optimizer, self.schedule = make_optimizer(config.optimizer, config.train.num_steps, shapes)
        self.shapes, placed = state.state_shardings(
            self.model_config, self.optimizer, self.mesh, dtype, config.lora, config.optimizer.offload
        )
        self.train_step = step.make_train_step(config, self.model_config, self.optimizer, self.mesh, placed)
        self.validation_step = step.make_validation_step(config, self.model_config, self.mesh)
        self.checkpointer = checkpoint.Checkpointer(workdir, config.checkpoint, say)
        self.meta = run_directory.describe(config, self.model_config, self.task.fingerprint)
        self.state = self._first_state(placed)
        if config.model.path:
            from anyorder_jax.health import start

            if start.is_due(config, int(self.state.step)):
                own = jax.tree.map(lambda *x: np.concatenate(x), *self.validation) if self.validation else None
                start.check(config, self.task.vocabulary, self.model_config.vocab_size, own, self._sums, say)

    def _first_state(self, placed: state.TrainState) -> state.TrainState:
        """The newest whole checkpoint's state, else the pretrained model's, else random weights."""
        config = self.config
        self.accumulated_at_start: dict[str, Any] = {}
        self.spikes = SpikeGuard(config.train.spike_factor, config.train.spike_window)
        base: dict[str, Any] = {}
        if config.lora.rank or config.model.path:
            from anyorder_jax import weights  # late: it brings all that reads checkpoints of others
        if config.lora.rank:
            base, self.meta["base"] = weights.load_base(config, self.model_config, self.mesh)

        def check(meta: Mapping[str, Any]) -> None:
            refuse_other_run(config, meta, self.task.fingerprint, self.workdir, self.is_extending)
            if config.lora.rank:
                weights.refuse_other_base(meta, self.meta["base"], config.model.path)

        restored = self.checkpointer.restore_newest(_stored(self.shapes), check)
        if restored is not None:
            self.batches.set_state(restored.data["batches"])
            self.accumulated_at_start = restored.data["window"]
            self.spikes.losses = [tuple(pair) for pair in restored.data["losses"]] if "losses" in restored.data else []
            say(f"Resuming {self.workdir} at step {int(restored.state.step)}.")
            if extended := extend(config, restored.meta, int(restored.state.step), self.schedule, self.workdir):
                self.meta["extended_after"] = extended
            return restored.state._replace(params={**restored.state.params, **base})
        key = keys.key(config.seed, "init")
        if base:
            dtype = config.model.param_dtype
            params = state.with_factors(base, self.model_config, placed, dtype, key, config.lora)
            return state.from_params(params, self.optimizer, placed)
        if config.model.path:
            params = weights.load_params(config.model.path, self.model_config, self.shapes.params)
            return state.from_params(params, self.optimizer, placed)
        return state.create(
            self.model_config, self.optimizer, self.mesh, config.model.param_dtype, key,
            offload=config.optimizer.offload,
        )  # fmt: skip

    def validate(self) -> dict[str, float]:
        """Loss, and NLL and accuracy by kind of unit, over the fixed validation rows, normalised over all of them."""
        sums = self._sums(jax.tree.map(lambda *x: np.concatenate(x), *self.validation))
        return summarise({name: float(value) for name, value in sums.items()}, 1)

    def _sums(self, rows: Any) -> Mapping[str, Any]:
        """The sums of a validation over rows that all processes hold."""
        own = jax.tree.map(lambda x: x[self.share :: self.num_shares], rows)
        return jax.device_get(self.validation_step(self.state.params, sharding.place_batch(own, self.mesh)))

    def save(self, accumulator: Accumulator, validation_loss: float | None = None) -> None:
        """Starts saving everything that the next process needs to go on as if nothing had happened."""
        data = {"batches": self.batches.get_state(), "window": accumulator.contents(), "losses": self.spikes.losses}
        self.checkpointer.save(_stored(self.state), data, self.meta, validation_loss)
        if self.config.checkpoint.remote and jax.process_index() == 0:
            run_directory.copy_to_remote(self.workdir, self.config.checkpoint.remote)


def _stored(whole: state.TrainState) -> state.TrainState:
    """What a checkpoint holds of a state: the parameters that are trained, and the rest."""
    return whole._replace(params=lora.split(whole.params)[0])
