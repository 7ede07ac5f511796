"""WebArena: the 812 tasks of WebArena-Verified, played in a headless Chromium and scored by its own scorer.

WebArena-all, -lite, -templates, -new_gitlab, ... (`folds`); behind any of them options, WebArena-lite+budget=24000. The
package is installed in an environment of its own (`package`), and the sites are where the user says (`addresses`), or,
with +stand_ins, small ones of our own that are served here (`stand_ins`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from anyorder_jax.environments import options
from anyorder_jax.environments.webarena.folds import OPTIONS, ids

if TYPE_CHECKING:
    from anyorder_jax.environments.web.renderer import PageRenderer
    from anyorder_jax.environments.webarena.world import Session

MAX_SESSIONS = 4
"""Each has a browser of its own, of about a quarter of a gigabyte."""


def session(environment_id: str) -> Session:
    """Opens a session. Raises RuntimeError without the package or Chromium, ValueError for addresses that are none."""
    if "stand_ins" in options.read(environment_id, OPTIONS):
        from anyorder_jax.environments.webarena.stand_ins import StandInSession

        return StandInSession(environment_id)
    from anyorder_jax.environments.webarena.world import Named, Session

    return Session(environment_id, Named())


def codec(profile: str) -> PageRenderer:
    """Between pages and their nodes, whatever the profile."""
    from anyorder_jax.environments.web.renderer import PageRenderer

    return PageRenderer()


def tasks(environment_id: str) -> Mapping[str, Sequence[str]]:
    """The tasks of every split whose sites have an address. Errors as `session`."""
    from anyorder_jax.environments.webarena import addresses, folds, package

    found = folds.read(package.tasks_file(package.directory()))
    if "stand_ins" in options.read(environment_id, OPTIONS):
        from anyorder_jax.environments.webarena import sites, stand_ins

        return folds.split(environment_id, stand_ins.solved(found), sites.names())
    return folds.split(environment_id, found, addresses.named())


__all__ = ["MAX_SESSIONS", "OPTIONS", "codec", "ids", "session", "tasks"]
