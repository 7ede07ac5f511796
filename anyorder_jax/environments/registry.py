"""Registry: from an environment's id to its file. A new environment is one file and one line here."""

from __future__ import annotations

import difflib
import importlib
from types import ModuleType
from typing import Any

from anyorder_jax.environments.base import Environment
from anyorder_jax.rendering.text import TextRenderer
from anyorder_jax.types import Codec

# prefix of the ids -> (module, extra that installs what it needs). A module offers `ids()`, `environment(id,
# profile)` and `codec(profile)`; it is imported on first use, so that training needs no simulator it does
# not use.
_FAMILIES = {"BabyAI-": ("anyorder_jax.environments.babyai", "babyai")}


def _family(name: str, extra: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"environments: {name} needs {error.name!r}, which is not installed. "
            f"Run `pip install 'anyorder-jax[{extra}]'`."
        ) from error


def environment_ids() -> tuple[str, ...]:
    """Every id that `make_environment` accepts, sorted."""
    return tuple(sorted(i for family in _FAMILIES.values() for i in _family(*family).ids()))


def _find(environment_id: str) -> Any:
    for prefix, family in _FAMILIES.items():
        if environment_id.startswith(prefix):
            module = _family(*family)
            if environment_id in module.ids():
                return module
    lower = {i.lower(): i for i in environment_ids()}
    near = [lower[n] for n in difflib.get_close_matches(environment_id.lower(), lower, n=5, cutoff=0.5)]
    hint = f"Did you mean {', '.join(near)}?" if near else f"Ids begin with {', '.join(_FAMILIES)}."
    raise ValueError(f"environments: unknown environment {environment_id!r}. {hint}")


def make_environment(environment_id: str, profile: str = "joint") -> Environment:
    """Opens an environment.

    Args:
      environment_id: e.g. "BabyAI-GoToObj-v0"; see `environment_ids()`.
      profile: of its codec: "joint" (one word a cell) or "attributes" (three words a cell).

    Raises:
      ValueError: for an unknown id (with near matches) or profile.
      ModuleNotFoundError: when the simulator is not installed; names the extra.
    """
    return _find(environment_id).environment(environment_id, profile)


def is_registered(environment_id: str) -> bool:
    """Whether the id is of a family that is registered here: else its episodes are text, and nobody can act in it."""
    return any(environment_id.startswith(prefix) for prefix in _FAMILIES)


def make_codec(environment_id: str, profile: str) -> Codec:
    """The codec alone: what reading recorded episodes needs. An id of no registered family, or "": plain text.

    Arguments and errors as `make_environment`.
    """
    return _find(environment_id).codec(profile) if is_registered(environment_id) else TextRenderer()
