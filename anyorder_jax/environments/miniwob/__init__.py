"""MiniWoB++: 130 small pages with one task each, live in a headless Chromium, read and acted on in BrowserGym's words.

MiniWoB-all, -experts (kinds that an expert of ours solves), -trained and -held_out (a division of these), and each kind
alone, MiniWoB-click-button; behind any of them options, MiniWoB-experts+distractors=6 (`folds.OPTIONS`). A task is
KIND/SEED. The pages (https://github.com/Farama-Foundation/miniwob-plusplus) need the extra `web`, and Chromium.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from anyorder_jax.environments.miniwob.folds import OPTIONS, ids, tasks

if TYPE_CHECKING:
    from anyorder_jax.environments.miniwob.world import Session
    from anyorder_jax.environments.web.renderer import PageRenderer

MAX_SESSIONS = 4
"""Each has a browser of its own, of about a quarter of a gigabyte."""


def session(environment_id: str) -> Session:
    """Opens a session. Raises ModuleNotFoundError without the pages, RuntimeError without Chromium."""
    from anyorder_jax.environments.miniwob.world import Session

    return Session(environment_id)


def codec(profile: str) -> PageRenderer:
    """Between pages and their nodes, whatever the profile."""
    from anyorder_jax.environments.web.renderer import PageRenderer

    return PageRenderer()


__all__ = ["MAX_SESSIONS", "OPTIONS", "codec", "ids", "session", "tasks"]
