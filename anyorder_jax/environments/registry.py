"""Registry: from an environment's id to its file. A new environment is one file and one line here, or, for a world
that lives outside the package, a line in the variable

    ANYORDER_JAX_WORLDS="Shop-=my_worlds.shop Maze-=my_worlds.maze"       prefix of the ids = module, blanks between

which every command and every process that it starts reads. Options may stand behind an id (`options`), where a module
names them in `OPTIONS`.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import os
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from anyorder_jax.types import Codec

if TYPE_CHECKING:
    from anyorder_jax.environments.base import Environment, TextEnvironment

# prefix of the ids -> (module, extra that installs what it needs). A module offers `ids()`, and `environment(id,
# profile)` with `codec(profile)`, or, for a world of text, `session(id)`. It is imported on first use, so that training
# needs no simulator it does not use.
_FAMILIES = {
    "BabyAI-": ("anyorder_jax.environments.babyai", "babyai"),
    "BabyAIText-": ("anyorder_jax.environments.babyai_words", "babyai"),
    "BFCL-": ("anyorder_jax.environments.bfcl", "tools"),
    "MiniWoB-": ("anyorder_jax.environments.miniwob", "web"),
    "ScienceWorld-": ("anyorder_jax.environments.scienceworld", "scienceworld"),
    "ToolBench-": ("anyorder_jax.environments.toolbench", ""),
    "WebArena-": ("anyorder_jax.environments.webarena", ""),
    "TextWorldExpress-": ("anyorder_jax.environments.textworld_express", "textworld"),
}

# what pip cannot be told in an extra: without dependencies, of which bfcl-eval names every vendor's client
_BY_HAND = {"tools": "pip install --no-deps 'bfcl-eval>=2026.3.23' 'mpmath>=1.3'"}

WORLDS = "ANYORDER_JAX_WORLDS"
"""The variable with worlds from outside the package."""
OPTION_MARK = "+"
"""Stands before each option of an id (`options`)."""


def register(prefix: str, module: str, extra: str = "") -> None:
    """Makes a world known to this process and to those that it starts.

    Args:
      prefix: of its ids, e.g. "Shop-".
      module: that offers them, as it is imported.
      extra: of this package, that installs what it needs; "" for a module with needs of its own.

    Raises:
      ValueError: for a prefix that another module has, or a name with a blank or "=" in it.
    """
    known = _families().get(prefix)
    if known == (module, extra):
        return
    if known is not None or not prefix or not module or any(c in prefix + module for c in "= "):
        taken = f"{prefix!r} belongs to {known[0]}" if known else f"{prefix!r} and {module!r} cannot be used"
        raise ValueError(f"environments: {taken}. Register a prefix of its own, without blanks and '='.")
    if extra:
        _FAMILIES[prefix] = (module, extra)
    else:
        os.environ[WORLDS] = f"{os.environ.get(WORLDS, '')} {prefix}={module}".strip()


def _families() -> dict[str, tuple[str, str]]:
    """Those of this file, and those that the variable names."""
    named = {}
    for entry in os.environ.get(WORLDS, "").split():
        prefix, _, module = entry.partition("=")
        if not prefix or not module:
            raise ValueError(f"{WORLDS}: expected PREFIX=MODULE with blanks between them, got {entry!r}.")
        named[prefix] = (module, "")
    return named | _FAMILIES


@contextlib.contextmanager
def _needing(name: str, extra: str) -> Iterator[None]:
    """Says what to install where a module is not."""
    try:
        yield
    except ModuleNotFoundError as error:
        command = _BY_HAND.get(extra, f"pip install 'anyorder-jax[{extra}]'")
        mend = f"Run `{command}`." if extra else "Install it, or put it on PYTHONPATH."
        raise ModuleNotFoundError(
            f"environments: {name} needs {error.name!r}, which is not installed. {mend}"
        ) from error


def _family(name: str, extra: str) -> ModuleType:
    with _needing(name, extra):
        return importlib.import_module(name)


def environment_ids() -> tuple[str, ...]:
    """Every id of a registered environment, sorted; without those whose module lacks something to be imported."""
    found: list[str] = []
    for family in _families().values():
        with contextlib.suppress(ModuleNotFoundError):
            found += _family(*family).ids()
    return tuple(sorted(found))


def _find(environment_id: str) -> Any:
    for prefix, family in _families().items():
        if environment_id.startswith(prefix):
            module = _family(*family)
            plain, mark, _ = environment_id.partition(OPTION_MARK)
            if plain in module.ids():
                if mark:
                    from anyorder_jax.environments import options  # training meets none

                    options.read(environment_id, getattr(module, "OPTIONS", {}))
                return module
    lower = {i.lower(): i for i in environment_ids()}
    near = [lower[n] for n in difflib.get_close_matches(environment_id.lower(), lower, n=5, cutoff=0.5)]
    hint = f"Did you mean {', '.join(near)}?" if near else f"Ids begin with {', '.join(_families())}."
    raise ValueError(f"environments: unknown environment {environment_id!r}. {hint}")


def make_environment(environment_id: str, profile: str = "joint") -> Environment:
    """Opens an environment.

    Args:
      environment_id: e.g. "BabyAI-GoToObj-v0"; see `environment_ids()`.
      profile: of its codec: "joint" (one word a cell), "attributes" (three words a cell) or "words" (running text).

    Raises:
      ValueError: for an unknown id (with near matches) or profile.
      ModuleNotFoundError: when the simulator is not installed; names the extra.
    """
    module = _find(environment_id)
    if not hasattr(module, "environment"):
        raise ValueError(f"environments: {environment_id} is a world of text; `make_session` opens it.")
    return module.environment(environment_id, profile)


def make_session(environment_id: str) -> TextEnvironment:
    """Opens a session of a world of text. Errors as `make_environment`."""
    module = _find(environment_id)
    if not hasattr(module, "session"):
        raise ValueError(f"environments: {environment_id} is no world of text; `make_environment` opens it.")
    with _needing(*next(f for prefix, f in _families().items() if environment_id.startswith(prefix))):
        return module.session(environment_id)


def tasks(environment_id: str) -> Mapping[str, Sequence[str]] | None:
    """The tasks of every split, where a world has published lists of them (its module offers `tasks(id)`): split ->
    names, in the order in which they are collected. None where any number is a task."""
    found = getattr(_find(environment_id), "tasks", None)
    return found(environment_id) if found else None


def max_sessions(environment_id: str) -> int | None:
    """How many sessions a world of text should have at a time, all processes together, where each costs much memory
    (its module's `MAX_SESSIONS`). None: any number."""
    return getattr(_find(environment_id), "MAX_SESSIONS", None)


def has_functions(environment_id: str) -> bool:
    """Whether the actions of a world of text are calls of functions that its sessions tell (`base.HasFunctions`; its
    module's `HAS_FUNCTIONS`)."""
    return bool(getattr(_find(environment_id), "HAS_FUNCTIONS", False))


def is_text(environment_id: str) -> bool:
    """Whether the id is of a registered world of text, which `make_session` opens. Imports the world's module."""
    return is_registered(environment_id) and hasattr(_find(environment_id), "session")


def world_of_text(environment_id: str, profile: str) -> str:
    """The id of the world of text that episodes of an environment, read with a profile, are acted in: itself for a
    world of text, for a grid that has words another one (`data.profile=words`), "" where there is none."""
    if not environment_id or not is_registered(environment_id):
        return ""
    module = _find(environment_id)
    if hasattr(module, "session"):
        return environment_id
    return module.world_of_text(environment_id, profile) if hasattr(module, "world_of_text") else ""


def is_registered(environment_id: str) -> bool:
    """Whether the id is of a family that is registered here: else its episodes are text, and nobody can act in it."""
    return any(environment_id.startswith(prefix) for prefix in _families())


def make_codec(environment_id: str, profile: str) -> Codec:
    """The codec alone: what reading recorded episodes needs. An id of no registered family, or "": plain text.

    Arguments and errors as `make_environment`.
    """
    module: Any = _find(environment_id) if is_registered(environment_id) else None
    if hasattr(module, "codec"):
        return module.codec(profile)
    from anyorder_jax.rendering.text import TextRenderer

    return TextRenderer()
