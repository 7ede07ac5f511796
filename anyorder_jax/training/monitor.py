"""Monitor: what is logged of the steps, which losses are too large to be applied, and why a step was not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from anyorder_jax.data import pipeline
from anyorder_jax.metrics import RunLogger
from anyorder_jax.process import say
from anyorder_jax.types import ROLES

if TYPE_CHECKING:
    from anyorder_jax.training.run import Run


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
    """The sentence for a step that was not applied, with the records that were in it.

    Args:
      corpus: names the examples.
      batch: of the step.
      number: of the step, from 1.
      metrics: of the step.
      limit: the largest loss that it might have.
    """
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


class Accumulator:
    """Metrics of the steps since the last log line; part of the checkpoint, so that a resumed run logs the same."""

    def __init__(self, run: Run, log: RunLogger, totals: dict[str, float] | None = None, num: int = 0) -> None:
        self.run, self.log = run, log
        self.totals, self.num = dict(totals or {}), num
        self.start, self.tokens, self.targets = time.perf_counter(), 0, 0.0

    def contents(self) -> dict[str, Any]:
        """What a resumed run's accumulator starts with."""
        return {"totals": self.totals, "num": self.num}

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time that is not the train step's does not count in tokens per second."""
        jax.block_until_ready(self.run.state.step)  # a step that still runs does count
        start = time.perf_counter()
        yield
        self.start += time.perf_counter() - start

    def add(self, number: int, batch: Any, metrics: Any) -> None:
        """Adds step `number` (0-based); logs where a line is due.

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
