"""Splits: which split a task belongs to. All episodes of a task go where the task goes.

The hash of a task's id is a number in [0, 1): below `test` it is a test task, below `test + validation` one of
validation, else one of training. So the same task is in the same split whatever else is ingested with it, unless the
corpus is so small that a split would be empty.
"""

from __future__ import annotations

import numpy as np

TRAIN, VALIDATION, TEST = 0, 1, 2
"""As in `sources.SPLITS`."""


def assign(tasks_N: np.ndarray, validation: float, test: float) -> np.ndarray:
    """The split of every episode.

    Training never stays empty; validation gets a task where there are two, and test where there are three.

    Args:
      tasks_N: uint64 [N], the hash of each episode's task.
      validation: share of the tasks, in [0, 1).
      test: share of the tasks, in [0, 1); with `validation` less than 1.

    Returns:
      int8 [N]: 0 train, 1 validation, 2 test.
    """
    unique_T, inverse_N = np.unique(tasks_N, return_inverse=True)
    num_tasks = len(unique_T)
    if num_tasks < 3 and validation > 0:
        test = 0.0
    number_T = unique_T.astype(np.float64) / 2.0**64
    split_T = np.where(number_T < test, TEST, np.where(number_T < test + validation, VALIDATION, TRAIN)).astype(np.int8)
    wanted = [TRAIN]
    wanted += [VALIDATION] * (validation > 0 and num_tasks >= 2) + [TEST] * (test > 0 and num_tasks >= 2)
    for split in wanted:
        if not (split_T == split).any() and num_tasks:
            sizes = np.bincount(split_T, minlength=3)
            giver = TRAIN if sizes[TRAIN] > 1 else int(sizes.argmax())  # one with a task to spare
            given_T = np.flatnonzero(split_T == giver)
            split_T[given_T[-1] if split == TRAIN else given_T[0]] = split
    return split_T[inverse_N]
