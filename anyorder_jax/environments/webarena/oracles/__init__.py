"""Oracles: scripted proofs that tasks of WebArena-Verified can be done on the stand-in sites.

A task is *proven* when the official scorer gives its oracle 1.0, and 0.0 where the oracle leaves its last action out.
"""

from __future__ import annotations

from anyorder_jax.environments.webarena.oracles import admin, forge, forum, shop
from anyorder_jax.environments.webarena.oracles.registry import plan_of
from anyorder_jax.environments.webarena.oracles.steps import OracleError, Plan, Task

__all__ = ["OracleError", "Plan", "Task", "admin", "forge", "forum", "plan_of", "shop"]
