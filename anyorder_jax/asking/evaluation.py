"""Evaluation of running text: every question about held-out episodes, by the model and by the baselines, as rows.

No environment is needed: nothing is acted, only asked. `python -m anyorder_jax.evaluate` opens it for runs of text.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from anyorder_jax.asking.baselines import BASELINES, Counts
from anyorder_jax.asking.calibration import reliability
from anyorder_jax.asking.measures import measure
from anyorder_jax.asking.questions import QUESTIONS, Contexts, ask
from anyorder_jax.asking.rows import Row
from anyorder_jax.asking.scorer import Scorer
from anyorder_jax.asking.subject import Subject
from anyorder_jax.asking.tables import MODEL
from anyorder_jax.asking.targets import collect_targets
from anyorder_jax.config import Config
from anyorder_jax.data import sources
from anyorder_jax.data.text_corpus import Texts
from anyorder_jax.data.units import TokenisedTrajectory
from anyorder_jax.task import Task
from anyorder_jax.types import Kind

COUNTED_EPISODES = 2000
"""Of the training split, its first ones, from which the baselines are counted."""

CALIBRATED = ("any_order@0.15", "any_order@0.5", "decision", "forward")
"""Questions whose reliability is reported."""


NOT_HELD_OUT = {
    "test": "",
    "validation": "the run chose its best checkpoint by the validation split, so its figures are a little too good",
    "train": "the run has learned the training split, so its figures show what it remembers, not what it can do",
}
"""What is to be said of the figures of a split."""


class HeldOut(NamedTuple):
    """What is asked about. split: that it is of. warning: why its figures are not those of new episodes; "" when they
    are. ids, examples: its episodes, and what they are in tokens. counts: of the training split."""

    split: str
    warning: str
    ids: list[str]
    examples: list[TokenisedTrajectory]
    counts: Counts


def choose_split(directory: Path, asked: str = "") -> tuple[str, str]:
    """(split, warning): the split that is asked about, and why its figures are not those of new episodes.

    Args:
      directory: of the data.
      asked: of `sources.SPLITS`; empty: test, and where a handful of logs has none, validation, or else train.

    Raises:
      FileNotFoundError, ValueError: no data there; they have no such split.
    """
    there = [split for split in sources.SPLITS if sources.read_manifest(directory).splits.get(split)]
    if asked and asked not in there:
        raise ValueError(f"{directory}: no {asked} split. --split: choose one of {', '.join(there)}, or leave it out.")
    split = asked or next(split for split in reversed(sources.SPLITS) if split in there or split == "train")
    if split == "test" or asked:
        return split, NOT_HELD_OUT[split]
    return split, (
        f"{directory} has no test split, so the {split} split is asked about; {NOT_HELD_OUT[split]}. Logs of three "
        "tasks and more get a test split from `ingest --test=0.1`"
    )


class Selection(NamedTuple):
    """Which episodes are asked about: the first `num_episodes` of a split (see `choose_split`) whose first goal holds
    one of the phrases `goals` (empty: all)."""

    num_episodes: int
    goals: Sequence[str] = ()
    split: str = ""


def open_held_out(config: Config, task: Task, selection: Selection) -> HeldOut:
    """Reads the episodes that are asked about, and counts training episodes.

    Raises:
      FileNotFoundError, ValueError: missing or broken data; no such split; no episode of that kind.
    """
    num_episodes, goals, split = selection
    split, warning = choose_split(task.directory, split)
    ids, examples = [], []
    for name, example in itertools.islice(_tokenised(task, split, goals), num_episodes):
        ids.append(name)
        examples.append(example)
    if not examples:
        asked = f" with a goal that holds {' or '.join(goals)}" if goals else ""
        raise ValueError(f"{task.directory}: the {split} split has no episode{asked} that can be asked about.")
    limit = min(config.data.num_episodes or COUNTED_EPISODES, COUNTED_EPISODES)
    training = (example for _, example in itertools.islice(_tokenised(task, "train"), limit))
    counts = Counts(training, task.vocabulary.size, task.vocabulary.end_id)
    return HeldOut(split, warning, ids, examples, counts)


def _tokenised(task: Task, split: str, goals: Sequence[str] = ()) -> Iterator[tuple[str, TokenisedTrajectory]]:
    """(id, tokens) of a split's episodes, read one by one; bad ones are treated as the run says."""
    texts = Texts(task.codec, task.vocabulary, task.layout)
    on_bad = None if task.skipped is None else task.skipped.append
    for trajectory in sources.iterate_trajectories(task.directory, split, 0, on_bad):
        goal = next((unit.text or "" for unit in trajectory.units if unit.kind == Kind.GOAL), "")
        if goals and not any(phrase in goal for phrase in goals):
            continue
        try:
            yield trajectory.id, texts.tokenise(trajectory)
        except ValueError as error:
            sentence = f"{sources.place_of(task.directory, trajectory.id)}: trajectory {trajectory.id}: {error}"
            if on_bad is None:
                raise ValueError(sentence) from error
            on_bad(sentence)


class Found(NamedTuple):
    """rows: of every question and predictor. calibration: [question][role], as `statistics.reliability`. num_asks: by
    question."""

    rows: list[Row]
    calibration: dict[str, dict[str, Any]]
    num_asks: dict[str, int]


def evaluate(
    subject: Subject, task: Task, scorer: Scorer, held_out: HeldOut, *, num_windows: int, seed: int,
    say: Callable[[str], None],
) -> Found:  # fmt: skip
    """Asks every question.

    Args:
      subject: the run, which is named in the rows, its configuration and its source.
      task: the data.
      scorer: the model.
      held_out: the episodes.
      num_windows: contexts an episode and question at most.
      seed: of the draws.
      say: gets a line of progress.
    """
    rows: list[Row] = []
    run, config, source = subject.run.name, subject.config, subject.source
    calibration: dict[str, dict[str, Any]] = {}
    num_asks = {}
    for question in QUESTIONS:
        asks = ask(question, held_out.examples, Contexts(config.data), limit=num_windows, seed=seed)
        num_asks[question.name] = len(asks)
        say(f"{question.name}: {len(asks)} contexts")
        targets = collect_targets(asks, task.vocabulary)
        predictions = {MODEL: scorer.predict(targets)}
        predictions |= {name: held_out.counts.predict(name, targets) for name in BASELINES}
        for predictor, prediction in predictions.items():
            for found in measure(targets, prediction, task.vocabulary):
                rows += [
                    Row(run, config.seed, source, held_out.ids[e], question.name, predictor, found.measure, found.role,
                        float(found.numerator_E[e]), float(found.denominator_E[e]))
                    for e in np.flatnonzero(found.denominator_E)
                ]  # fmt: skip
        if question.name in CALIBRATED:
            calibration[question.name] = reliability(targets, predictions[MODEL])
    return Found(rows, calibration, num_asks)
