"""TextWorldExpress: cooking, maps, arithmetic, sorting and commonsense as text games, at the settings of TALES.

TextWorldExpress-CookingWorld and five more (`folds.GAMES`); a task is a seed of a published fold. The simulator
(https://github.com/cognitiveailab/TextWorldExpress) needs the extra `textworld` and Java.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyorder_jax.environments.textworld_express.folds import ids, tasks

if TYPE_CHECKING:
    from anyorder_jax.environments.textworld_express.world import Session


def session(environment_id: str) -> Session:
    """Opens a session. Raises ModuleNotFoundError without the simulator, RuntimeError without Java."""
    from anyorder_jax.environments.textworld_express.world import Session

    return Session(environment_id)


__all__ = ["ids", "session", "tasks"]
