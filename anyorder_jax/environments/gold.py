"""Gold: an expert who follows a path that is fixed when an episode begins."""

from __future__ import annotations

from collections.abc import Sequence

from anyorder_jax.environments.base import ExpertError


def next_on(path: Sequence[str], done: Sequence[str]) -> str:
    """The action that follows `done` on the expert's path.

    Args:
      path: the expert's actions, from the start of the episode to its end.
      done: what was done so far.

    Raises:
      ExpertError: something else was done, or the path is at its end.
    """
    if tuple(path[: len(done)]) != tuple(done):
        raise ExpertError("the expert's path was left, and the expert knows no other")
    if len(done) >= len(path):
        raise ExpertError("the expert's path is at its end, and the task is not done")
    return path[len(done)]
