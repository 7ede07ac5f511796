"""The main job: `python -m anyorder_jax.train --config=any_order [--workdir=runs/x]`; a recipe by name or file.

Collects expert episodes when the configuration names none, trains, and leaves a run directory (ARCHITECTURE, "On
disk"). The same command resumes a run whose directory holds a checkpoint, and reproduces what it would have done.
"""

from __future__ import annotations

if __name__ == "__main__":
    from anyorder_jax import command

    command.begin("train")  # imports take seconds

import contextlib
import dataclasses
import logging as std_logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import app, flags, logging
from jax.experimental import multihost_utils
from ml_collections import config_flags

from anyorder_jax import (
    checkpoint,
    command,
    files,
    flops,
    keys,
    paths,
    process,
    recipes,
    run_directory,
    sharding,
    state,
    step,
    terminal,
    weights,
)
from anyorder_jax.config import (
    Config,
    freeze,
    freeze_typed,
    parse_sources,
    path_keys,
    to_json,
    with_absolute_paths,
)
from anyorder_jax.data import pipeline
from anyorder_jax.health import start
from anyorder_jax.masking.sampler import AnyOrderMaskSampler
from anyorder_jax.metrics import RunLogger
from anyorder_jax.model import lora, presets
from anyorder_jax.model.config import ModelConfig
from anyorder_jax.optimizer import make_optimizer, make_schedule
from anyorder_jax.profiling import Profile
from anyorder_jax.task import Task, collect, differences, directory_of, is_collected, open_task
from anyorder_jax.types import ROLES

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "A recipe: a file, or the name of one of ours, e.g. any_order or any_order:smoke."
)
DEBUG = flags.DEFINE_bool("debug", False, "Show the whole trace of an error.")
WORKDIR = flags.DEFINE_string("workdir", "", "Run directory; default runs/<recipe>.")
EXTEND = flags.DEFINE_bool("extend", False, "Train a finished run further: train.num_steps may be larger than it was.")


def say(line: str) -> None:
    """A line for the user, from the first process only."""
    if jax.process_index() == 0:
        print(line, flush=True)


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


def model_config_of(config: Config, task: Task) -> ModelConfig:
    """The model's shape: of the checkpoint at `model.path`, or the preset with the vocabulary's size and ids.

    Raises:
      ValueError: for a model with fewer words or positions than are asked of it, or whose block routing would leak the
        answers of block diffusion.
    """
    if config.model.path:
        model_config = weights.read_model_config(config.model.path)
        if model_config.vocab_size < task.vocabulary.size:
            raise ValueError(
                f"config.model.path: {config.model.path} has {model_config.vocab_size} embedding rows, but the "
                f"tokenizer needs {task.vocabulary.size}. Use the tokenizer that belongs to the model."
            )
        mask_id = model_config.mask_token_id
        if mask_id is not None and not task.vocabulary.has_id(mask_id):
            raise ValueError(
                f"config.model.path: {config.model.path} says mask_token_id = {mask_id}, and the tokenizer has no such "
                "id. Use the tokenizer that belongs to the model."
            )
        if config.data.row_length > model_config.max_position_embeddings:
            raise ValueError(
                f"config.data.row_length: {config.data.row_length} is more than the max_position_embeddings = "
                f"{model_config.max_position_embeddings} of {config.model.path}. Make rows shorter."
            )
    else:
        model_config = dataclasses.replace(
            presets.get(config.model.preset),
            vocab_size=task.vocabulary.size,
            pad_token_id=task.vocabulary.pad_id,
            mask_token_id=task.vocabulary.mask_id,
        )
    if config.train.objective == "block_diffusion":
        model_config.refuse_straddling(config.train.block_size)
    return model_config


def say_other_mask(model_config: ModelConfig, task: Task) -> None:
    """Tells when the model's config.json and the tokenizer name different mask tokens: the tokenizer's is used."""
    named, used = model_config.mask_token_id, task.vocabulary.mask_id
    if named not in (None, used):
        words = task.vocabulary.tokenizer.convert_ids_to_tokens([named, used])
        say(f"Mask token: the tokenizer's {words[1]!r} ({used}), not the model's config.json's {words[0]!r} ({named}).")


def is_same_place(saved: str, now: str, workdir: Path) -> bool:
    """Whether a place that a run has recorded is the one that is given now, or was moved there (it is gone)."""
    if saved == now or not saved or not now or paths.is_remote(saved) or paths.is_remote(now):
        return saved == now
    found = paths.find(saved, workdir)
    return found == now or not Path(found).exists()


def are_same_sources(saved: str, now: str, workdir: Path) -> bool:
    """As `is_same_place`, of `data.sources`: the same weights, in the same order, of the same or moved places."""
    if not saved or not now:
        return saved == now
    before, after = parse_sources(saved), parse_sources(now)
    is_same = [is_same_place(*pair, workdir) for pair in zip(before, after, strict=False)]
    return [*before.values()] == [*after.values()] and all(is_same)


def refuse_other_run(
    config: Config, meta: Mapping[str, Any], fingerprint: Mapping[str, Any], workdir: Path, is_longer_fine: bool = False
) -> None:
    """Raises ValueError when the checkpoint in `workdir` was made from other settings or other data.

    is_longer_fine: more updates than the run had are no other setting (`--extend`).
    """
    saved, now = dataclasses.asdict(freeze(meta["config"])), dataclasses.asdict(config)
    placed = {tuple(key.split(".")) for key in path_keys()} - {("data", "sources")}
    free = {"mesh", "log", "checkpoint"}  # do not change what is learned
    moved = {("data", "num_threads"), ("data", "prefetch"), ("model", "check")}
    moved |= {("data", "path"), ("data", "cache_dir")}  # the fingerprint tells whether the episodes are the same
    if config.lora.rank:
        moved.add(("model", "path"))  # the digests of the frozen weights tell whether they are the same
    if are_same_sources(saved["data"]["sources"], now["data"]["sources"], workdir):
        moved.add(("data", "sources"))
    length = saved["train"]["num_steps"]
    is_longer = config.train.num_steps > length
    if is_longer and is_longer_fine:
        moved.add(("train", "num_steps"))
    changed = [
        f"{section}.{name}: {saved[section][name]!r} -> {value!r}"
        for section, values in now.items()
        if section not in free and isinstance(values, dict)
        for name, value in values.items()
        if saved[section][name] != value and (section, name) not in moved
        if (section, name) not in placed or not is_same_place(saved[section][name], value, workdir)
    ]
    if saved["seed"] != now["seed"]:
        changed.append(f"seed: {saved['seed']} -> {now['seed']}")
    tokenizer = config.data.tokenizer or config.model.path or "built-in"
    where = f"data: {config.data.sources or directory_of(config.data)}, tokenizer {tokenizer}"
    changed += [f"{where}: {sentence}" for sentence in differences(meta["data"], fingerprint)]
    if is_longer and len(changed) == 1 and not is_longer_fine:
        raise ValueError(
            f"{workdir} holds a run of {length} updates, and train.num_steps is {config.train.num_steps}. Give "
            "--extend to train that run further, or another --workdir."
        )
    if changed:
        raise ValueError(
            f"{workdir} holds a run with other settings ({'; '.join(changed)}). Give another --workdir, or the same "
            "settings to resume it."
        )


def extend(
    config: Config, meta: Mapping[str, Any], num_done: int, schedule: Callable[[int], Any], workdir: Path
) -> list[int]:
    """The lengths from which a run was extended so far; when `config` is longer than the checkpoint's, so it is now,
    and this is told.

    Args:
      meta: of the checkpoint that the run goes on from. num_done: its updates.
      schedule: learning rate of an update, of the new length.

    Raises:
      ValueError: when the run has not come to its end: its remaining updates would follow another schedule.
    """
    extended = list(meta.get("extended_after", ()))
    old = freeze(meta["config"])
    length, longer = old.train.num_steps, config.train.num_steps
    if longer == length:
        return extended
    if num_done < length:
        raise ValueError(
            f"{workdir}: --extend is for a run that is finished; this one is at update {num_done} of {length}. Finish "
            f"it with --config.train.num_steps={length} first."
        )
    was = float(make_schedule(old.optimizer, length)(length - 1))
    now, end = float(schedule(length)), float(schedule(longer - 1))
    say(
        f"Extending {workdir} from {length} to {longer} updates: optimizer moments and data order go on. The learning "
        f"rate follows the schedule of {longer} updates: it was {was:.3g}, is {now:.3g} now and ends at {end:.3g}."
    )
    return [*extended, length]


class Run:
    """The nouns of one run, built top to bottom; `train` below is the verbs."""

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
        host = {"process_index": self.share, "process_count": self.num_shares}
        self.batches = pipeline.make_pipeline(
            config,
            corpus,
            sampler,
            num_steps_total=config.train.num_steps,
            complement=sampler.complement,
            **ids,
            **host,
        )
        self.validation = [] if held_out is None else pipeline.validation_batches(
            held_out, sampler, config.seed, config.train.batch_size // config.train.accumulation_steps,
            config.log.num_validation_rows, row_length=config.data.row_length,
            block_size=pipeline.block_size_of(config), **ids,
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
        if start.is_due(config, int(self.state.step)):
            own = jax.tree.map(lambda *x: np.concatenate(x), *self.validation) if self.validation else None
            start.check(config, self.task.vocabulary, self.model_config.vocab_size, own, self._sums, say)

    def _first_state(self, placed: state.TrainState) -> state.TrainState:
        """The newest whole checkpoint's state, else the pretrained model's, else random weights."""
        config = self.config
        self.window_at_start: dict[str, Any] = {}
        self.spikes = SpikeGuard(config.train.spike_factor, config.train.spike_window)
        base: dict[str, Any] = {}
        if config.lora.rank:
            base, self.meta["base"] = weights.load_base(config, self.model_config, self.mesh)

        def check(meta: Mapping[str, Any]) -> None:
            refuse_other_run(config, meta, self.task.fingerprint, self.workdir, self.is_extending)
            if config.lora.rank:
                weights.refuse_other_base(meta, self.meta["base"], config.model.path)

        restored = self.checkpointer.restore_newest(_stored(self.shapes), check)
        if restored is not None:
            self.batches.set_state(restored.data["batches"])
            self.window_at_start = restored.data["window"]
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

    def save(self, window: Window, validation_loss: float | None = None) -> None:
        """Starts saving everything that the next process needs to go on as if nothing had happened."""
        data = {"batches": self.batches.get_state(), "window": window.contents(), "losses": self.spikes.losses}
        self.checkpointer.save(_stored(self.state), data, self.meta, validation_loss)
        if self.config.checkpoint.remote and jax.process_index() == 0:
            run_directory.copy_to_remote(self.workdir, self.config.checkpoint.remote)


def _stored(whole: state.TrainState) -> state.TrainState:
    """What a checkpoint holds of a state: the parameters that are trained, and the rest."""
    return whole._replace(params=lora.split(whole.params)[0])


def summarise(totals: dict[str, float], num: int) -> dict[str, float]:
    """Sums over `num` batches -> means: `nll/<role>` and `accuracy/<role>` per target, the rest per batch."""
    means = {name: value / num for name, value in totals.items() if "/" not in name and name != "targets_dropped"}
    if totals["targets_dropped"]:  # only worth a line where it happens
        means["targets_dropped"] = totals["targets_dropped"] / num
    for role in ROLES:
        count = totals[f"count/{role}"]
        if count:
            means[f"nll/{role}"] = totals[f"nll/{role}"] / count
            means[f"accuracy/{role}"] = totals[f"right/{role}"] / count
    return means


def explain_skipped(corpus: pipeline.Examples, batch: Any, number: int, metrics: dict[str, Any], limit: float) -> str:
    """The sentence for a step that was not applied, with the records that were in it."""
    names = [corpus.name(e) for e in sorted(set(np.unique(batch.example).tolist()) - {-1})]
    what = f"the loss ({metrics['loss']}) or the gradient norm ({metrics['grad_norm']}) is not finite"
    if np.isfinite(metrics["loss"]) and np.isfinite(metrics["grad_norm"]):
        what = f"the loss ({metrics['loss']:.4g}) is above {limit:.4g} (train.spike_factor times the recent median)"
    return f"step {number}: {what}; the update was not applied. In this batch: {'; '.join(names)}."


class SpikeGuard:
    """The largest loss that step n may have: `factor` times the median of the last `window` applied losses up to n - 2.

    Not n - 1: its loss is read while n runs. So the limit does not depend on where a run was interrupted.
    """

    def __init__(self, factor: float, window: int) -> None:
        self.factor, self.window = factor, window
        self.losses: list[tuple[int, float]] = []
        self.limits: dict[int, float] = {}

    def add(self, number: int, loss: float) -> None:
        """The loss of step `number`, which was applied."""
        if self.factor:
            self.losses = [*self.losses, (number, loss)][-self.window - 1 :]

    def limit(self, number: int) -> float:
        """For step `number`; infinite when off, and until the window is full."""
        losses = [loss for n, loss in self.losses if n <= number - 2][-self.window :]
        is_on = self.factor and len(losses) == self.window
        limit = self.factor * float(np.median(losses)) if is_on else np.inf
        self.limits = {number: limit, **{n: x for n, x in self.limits.items() if n == number - 1}}
        return limit


def train(config: Config, workdir: Path, is_extending: bool = False) -> bool:
    """Trains to `train.num_steps`, resuming what is there. Returns False when SIGTERM came first.

    Args:
      config: of the run.
      workdir: where it lies; made when it is not there, and removed again when the run cannot begin.
      is_extending: a finished run may be given more updates than it had.

    Raises:
      ValueError: when another process trains in `workdir`, or it holds a run with other settings.
    """
    config = with_absolute_paths(config)
    is_new = not workdir.exists()
    files.make_directory(workdir)
    try:
        with run_directory.alone(workdir) if jax.process_index() == 0 else contextlib.nullcontext():
            return _train(Run(config, workdir, is_extending))
    except (ValueError, OSError):
        if is_new:
            run_directory.remove_empty(workdir)
        raise


def _train(run: Run) -> bool:
    config, workdir = run.config, run.workdir
    if jax.process_index() == 0:
        files.write_whole(workdir / "config.json", to_json(config))
        run.task.vocabulary.save(workdir / "tokenizer")
        if config.checkpoint.remote:
            run_directory.fetch_log(workdir, config.checkpoint.remote)
    first = int(run.state.step)
    log = RunLogger(workdir, config.train.num_steps, to_json(config), config.log.wandb_project, first_step=first)
    window = Window(run, log, **run.window_at_start)
    profile = Profile(workdir, config.log.profiled(), say)
    is_stopped = False
    with (
        contextlib.closing(log),
        contextlib.closing(profile),
        run.checkpointer,
        process.until_sigterm() as is_last_before_stop,
    ):
        previous: tuple[int, Any, Any] | None = None
        for number in range(first, config.train.num_steps):
            batch = next(run.batches)
            placed = sharding.place_batch(batch, run.mesh)
            profile(number, run.state)
            run.state, metrics = run.train_step(run.state, placed, run.spikes.limit(number))
            if previous:
                window.add(*previous)  # read step n-1 while step n runs
            previous = (number, batch, metrics)
            done = number + 1
            is_stopped = is_last_before_stop(done)
            is_last = done == config.train.num_steps
            validation: dict[str, float] | None = None
            if run.validation and (done % config.log.validate_every_steps == 0 or is_last):
                with window.paused():
                    validation = run.validate()
                log.log_validation(done, validation)
            if done % config.checkpoint.save_every_steps == 0 or is_last or is_stopped:
                window.add(*previous)  # never save past a step that was not looked at
                previous = None
                run.save(window, validation["loss"] if validation else None)
            if is_stopped:
                say(f"Stopped by SIGTERM after step {done}; the same command goes on from here.")
                break
    return not is_stopped


class Window:
    """Metrics of the steps since the last log line; part of the checkpoint, so that a resumed run logs the same."""

    def __init__(self, run: Run, log: RunLogger, totals: dict[str, float] | None = None, num: int = 0) -> None:
        self.run, self.log = run, log
        self.totals, self.num = dict(totals or {}), num
        self.start, self.tokens, self.targets = time.perf_counter(), 0, 0.0

    def contents(self) -> dict[str, Any]:
        """What a resumed run's window starts with."""
        return {"totals": self.totals, "num": self.num}

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time that is not the train step's does not count in tokens per second."""
        jax.block_until_ready(self.run.state.step)  # a step that still runs does count
        start = time.perf_counter()
        yield
        self.start += time.perf_counter() - start

    def add(self, number: int, batch: Any, metrics: Any) -> None:
        """Adds step `number` (0-based); logs when a window is full.

        Raises:
          FloatingPointError: for a step that was not applied, when the configuration says stop.
        """
        config, spikes = self.run.config, self.run.spikes
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        if not values["is_applied"]:
            message = explain_skipped(self.run.corpus, batch, number + 1, values, spikes.limits[number])
            if config.train.on_nonfinite == "stop":
                raise FloatingPointError(message + " Set train.on_nonfinite=skip to go on past such steps.")
            say(message)
            return
        spikes.add(number, values["loss"])
        for name, value in values.items():
            self.totals[name] = self.totals.get(name, 0.0) + value
        self.num += 1
        self.tokens += int((batch.segment_ids > 0).sum()) * self.run.num_shares
        self.targets += sum(values[f"count/{role}"] for role in ROLES)
        if (number + 1) % config.log.every_steps == 0:
            seconds = time.perf_counter() - self.start
            line = summarise(self.totals, self.num)
            line |= {"tokens_per_second": self.tokens / seconds, "targets_per_second": self.targets / seconds}
            line |= {"learning_rate": float(self.run.schedule(number))}
            self.log.log(number + 1, line)
            self.totals, self.num = {}, 0
            self.start, self.tokens, self.targets = time.perf_counter(), 0, 0.0


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments {argv[1:]}; settings look like --config.masking.rate=0.3.")
    if CONFIG.value is None:
        raise app.UsageError(f"Give a recipe: --config=FILE, or a name: {', '.join(recipes.recipes())}.")
    if not DEBUG.value:  # what Orbax's threads report comes out of our calls as well, in one sentence
        logging.set_verbosity(logging.FATAL)
        std_logging.getLogger("asyncio").setLevel(std_logging.CRITICAL)
    file_name, _, _ = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
    with process.leave_at_once_on_error(), command.door("train"):
        try:
            workdir = Path(paths.on_disk(WORKDIR.value or f"runs/{Path(file_name).stem}"))
            config = freeze_typed(CONFIG.value)
            process.prepare(flops.cpu_devices(config, presets.get(config.model.preset)))
            process.join_others()
            is_done = train(config, workdir, is_extending=True) if EXTEND.value else train(config, workdir)
        except (ValueError, FloatingPointError, OSError) as error:  # one sentence for people; the trace with --debug
            if DEBUG.value:
                raise
            sys.exit(f"{type(error).__name__}: {error}")
        except jax.errors.JaxRuntimeError as error:
            if DEBUG.value or not process.is_lost_connection(error):
                raise
            sys.exit(
                f"another process of this run ended ({str(error).splitlines()[0]}). What it printed says why; the same "
                "command goes on from the newest checkpoint."
            )
    if not is_done:
        sys.exit(process.REQUEUE)
    next_command = paths.command("anyorder_jax.evaluate", f"--checkpoint={paths.shown(workdir)}")
    say(f"{paths.shown(workdir)}: done. Next: {next_command}")


def parse_flags(argv: list[str]) -> list[str]:
    """absl's parser, with recipes by name, and a mistyped key, a wrong type or a broken recipe told in one sentence."""
    terminal.accept_any_letter()
    try:
        return app.parse_flags_with_usage(recipes.in_arguments(argv))
    except (AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        sys.exit(f"--config: {str(error).removeprefix('--config: ')}")


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
