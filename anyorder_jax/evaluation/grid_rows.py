"""Rows of grids: what a report of a level says, as result rows (`asking.rows`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from anyorder_jax.asking.rows import Row
from anyorder_jax.asking.subject import Subject
from anyorder_jax.evaluation.held_out import HeldOut
from anyorder_jax.evaluation.world_model import Results
from anyorder_jax.statistics import Estimate

ROLES_OF = {
    "action_accuracy": "action", "action_nll": "action", "goal_word_accuracy": "goal", "exact_goal_rate": "goal",
    "goal_nll_per_word": "goal", "nll_per_target": "",
}  # fmt: skip
"""Whose units a measure is about, where that is not the observation; "": all that are asked."""

ACTING = "acting"
"""The question of rows about episodes that were played."""


def of(
    subject: Subject, held_out: HeldOut, known: Results, played: Mapping[str, Mapping[str, Estimate]]
) -> Iterator[Row]:
    """A row for every episode that was counted.

    Args:
      subject: the run and its source.
      held_out: the episodes, whose ids are the rows' tasks; of those that were played LEVEL/SEED.
      known: of the world model.
      played: [policy][measure].
    """
    ids = [trajectory.id for trajectory in held_out.trajectories]
    for question, by_name in known.items():
        for name, found in by_name.items():
            for measure, estimate in found.items():
                role = ROLES_OF.get(measure, "observation")
                yield from _rows(subject, ids, (question, name, measure, role), estimate)
    seeds = [f"{held_out.task.environment}/{seed}" for seed in held_out.seeds]
    for policy, measures in played.items():
        for measure, estimate in measures.items():
            yield from _rows(subject, seeds, (ACTING, policy, measure, "action"), estimate)


def _rows(subject: Subject, ids: list[str], names: tuple[str, str, str, str], estimate: Estimate) -> Iterator[Row]:
    if estimate.parts is None:
        return
    numerator_E, denominator_E = (np.asarray(part, float) for part in estimate.parts)
    run, seed = subject.run.name, subject.config.seed
    for e in np.flatnonzero(denominator_E):
        yield Row(run, seed, subject.source, ids[e], *names, float(numerator_E[e]), float(denominator_E[e]))
