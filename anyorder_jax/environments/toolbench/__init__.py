"""ToolBench: queries that calls of APIs answer, with a simulator of our own in the place of its server.

ToolBench-G1-instruction, -G1-category, -G1-tool, -G2-instruction, -G2-category, -G3-instruction: the six splits. With
`-schemas` behind the id the system text has whole schemas, not signatures alone; then come options (docs/tools.md).

ANYORDER_JAX_TOOLBENCH names the folder with the data (`data`); no package is needed.
"""

from __future__ import annotations

from anyorder_jax.environments.toolbench.data import ids, tasks
from anyorder_jax.environments.toolbench.world import OPTIONS, Session

HAS_FUNCTIONS = True


def session(environment_id: str) -> Session:
    """Opens a session. Raises RuntimeError where no data are named."""
    return Session(environment_id)


__all__ = ["HAS_FUNCTIONS", "OPTIONS", "ids", "session", "tasks"]
