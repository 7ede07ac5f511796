"""BFCL: the multi-turn categories of the Berkeley function calling leaderboard (v4), and generated tasks like them.

BFCL-base, -long_context, -miss_func, -miss_param: the official tasks, 200 each. BFCL-made-wordings, -templates,
-compositions, -classes: generated ones, whose held-out tasks have what their names say unseen in training. With
`-schemas` behind the id the system text has whole schemas, not signatures alone; then come options (`folds.OPTIONS`).

Needs `pip install --no-deps bfcl-eval mpmath` (docs/tools.md): the classes, the data and the checker are in the wheel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyorder_jax.environments.bfcl.folds import OPTIONS, ids, tasks

if TYPE_CHECKING:
    from anyorder_jax.environments.bfcl.world import Session

HAS_FUNCTIONS = True


def session(environment_id: str) -> Session:
    """Opens a session. Raises ModuleNotFoundError without the package."""
    from anyorder_jax.environments.bfcl.world import Session

    return Session(environment_id)


__all__ = ["HAS_FUNCTIONS", "OPTIONS", "ids", "session", "tasks"]
