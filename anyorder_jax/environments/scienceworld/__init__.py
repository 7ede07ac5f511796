"""ScienceWorld: thirty kinds of experiments of a primary school's science lessons, as a world of text.

ScienceWorld-easy has all tasks with the `easy` simplifications, ScienceWorld-plain without. ScienceWorld-easy-boil has
one kind of them (and so for each kind), ScienceWorld-easy-short those kinds that few actions solve. A task is
KIND/VARIATION, the splits are the official variations. The simulator (https://github.com/allenai/ScienceWorld) needs
the extra `scienceworld` and Java.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyorder_jax.environments.scienceworld.folds import ids, tasks

if TYPE_CHECKING:
    from anyorder_jax.environments.scienceworld.world import Session

MAX_SESSIONS = 4
"""Each has a Java machine of its own, of half a gigabyte."""


def session(environment_id: str) -> Session:
    """Opens a session. Raises ModuleNotFoundError without the simulator, RuntimeError without Java."""
    from anyorder_jax.environments.scienceworld.world import Session

    return Session(environment_id)


__all__ = ["MAX_SESSIONS", "ids", "session", "tasks"]
