"""Loop: the train step, over and over; reading, validating and saving between the steps."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from anyorder_jax import files, process, run_directory, sharding
from anyorder_jax.config import Config, to_json, with_absolute_paths
from anyorder_jax.metrics import RunLogger
from anyorder_jax.process import say
from anyorder_jax.training.monitor import Accumulator
from anyorder_jax.training.run import Run


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


@contextlib.contextmanager
def _profile(config: Config, workdir: Path) -> Iterator[Callable[[int, Any], None]]:
    """What is called before every update, and traces those that the configuration names."""
    if not config.log.profile_steps:
        yield lambda number, state: None
        return
    from anyorder_jax.profiling import Profile

    with contextlib.closing(Profile(workdir, config.log.profiled(), say)) as profile:
        yield profile


def _train(run: Run) -> bool:
    config, workdir = run.config, run.workdir
    if jax.process_index() == 0:
        files.write_whole(workdir / "config.json", to_json(config))
        run.task.vocabulary.save(workdir / "tokenizer")
        if config.checkpoint.remote:
            run_directory.fetch_log(workdir, config.checkpoint.remote)
    first = int(run.state.step)
    log = RunLogger(workdir, config.train.num_steps, to_json(config), config.log.wandb_project, first_step=first)
    accumulator = Accumulator(run, log, **run.accumulated_at_start)
    profile = _profile(config, workdir)
    is_stopped = False
    with (
        contextlib.closing(log),
        profile as trace,
        run.checkpointer,
        process.until_sigterm() as is_last_before_stop,
    ):
        previous: tuple[int, Any, Any] | None = None
        for number in range(first, config.train.num_steps):
            batch = next(run.batches)
            placed = sharding.place_batch(batch, run.mesh)
            trace(number, run.state)
            run.state, metrics = run.train_step(run.state, placed, run.spikes.limit(number))
            if previous:
                accumulator.add(*previous)  # read step n-1 while step n runs
            previous = (number, batch, metrics)
            done = number + 1
            is_stopped = is_last_before_stop(done)
            is_last = done == config.train.num_steps
            validation: dict[str, float] | None = None
            if run.validation and (done % config.log.validate_every_steps == 0 or is_last):
                with accumulator.paused():
                    validation = run.validate()
                log.log_validation(done, validation)
            if done % config.checkpoint.save_every_steps == 0 or is_last or is_stopped:
                accumulator.add(*previous)  # never save past a step that was not looked at
                previous = None
                run.save(accumulator, validation["loss"] if validation else None)
            if is_stopped:
                say(f"Stopped by SIGTERM after step {done}; the same command goes on from here.")
                break
    return not is_stopped
