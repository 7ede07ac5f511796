"""Evaluation of running text: every question about held-out episodes, by the model and by the baselines, as rows.

No environment is needed: nothing is acted, only asked. `python -m anyorder_jax.evaluate` opens it for runs of text.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from anyorder_jax import statistics
from anyorder_jax.asking.baselines import BASELINES, Counts
from anyorder_jax.asking.measures import measure
from anyorder_jax.asking.questions import QUESTIONS, ask
from anyorder_jax.asking.rows import Row
from anyorder_jax.asking.scorer import Scorer
from anyorder_jax.asking.subject import Subject
from anyorder_jax.asking.tables import MODEL
from anyorder_jax.asking.targets import Prediction, Targets, collect_targets
from anyorder_jax.config import Config
from anyorder_jax.data import sources
from anyorder_jax.data.text_corpus import Texts
from anyorder_jax.data.units import TokenisedTrajectory
from anyorder_jax.task import Task
from anyorder_jax.types import ROLES, Kind

COUNTED_EPISODES = 2000
"""Of the training split, its first ones, from which the baselines are counted."""

CALIBRATED = ("any_order@0.15", "any_order@0.5", "decision", "forward")
"""Questions whose reliability is reported."""


class HeldOut(NamedTuple):
    """What is asked about. ids, examples: episodes of the test split, and what they are in tokens. counts: of the
    training split."""

    ids: list[str]
    examples: list[TokenisedTrajectory]
    counts: Counts


def open_held_out(config: Config, task: Task, num_episodes: int, goals: Sequence[str] = ()) -> HeldOut:
    """Reads the first `num_episodes` of the test split, and counts training episodes.

    Args:
      config: of the run.
      task: its data.
      num_episodes: asked about at most.
      goals: only episodes whose first goal holds one of these phrases (empty: all).

    Raises:
      FileNotFoundError, ValueError: missing or broken data; no episode of that kind.
    """
    if not sources.read_manifest(task.directory).splits.get("test"):
        raise ValueError(
            f"{task.directory}: no test split, whose episodes would be asked about. Ingest the logs again with a share "
            "for it (--test=0.1)."
        )
    ids, examples = [], []
    for name, example in itertools.islice(_tokenised(task, "test", goals), num_episodes):
        ids.append(name)
        examples.append(example)
    if not examples:
        asked = f" with a goal that holds {' or '.join(goals)}" if goals else ""
        raise ValueError(f"{task.directory}: the test split has no episode{asked} that can be asked about.")
    limit = min(config.data.num_episodes or COUNTED_EPISODES, COUNTED_EPISODES)
    training = (example for _, example in itertools.islice(_tokenised(task, "train"), limit))
    return HeldOut(ids, examples, Counts(training, task.vocabulary.size, task.vocabulary.end_id))


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
        asks = ask(question, held_out.examples, config.data, limit=num_windows, seed=seed)
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


def reliability(targets: Targets, prediction: Prediction) -> dict[str, Any]:
    """{role: as `statistics.reliability`} of one question's targets; {} for a predictor without confidence."""
    if prediction.confidence_T is None:
        return {}
    found = {}
    for kind in np.unique(targets.kind_T).tolist():
        chosen_T = targets.kind_T == kind
        is_right_T = (prediction.chosen_T == targets.truth_T)[chosen_T]
        found[ROLES[kind]] = statistics.reliability(
            prediction.confidence_T[chosen_T], is_right_T, targets.episode_T[chosen_T]
        )
    return found
