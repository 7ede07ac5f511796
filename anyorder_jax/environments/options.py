"""Options: what a world can be made to do otherwise, written behind its id.

    BFCL-base+errors=0.2+cut=200      the world BFCL-base; a call of five fails at first, results have 200 letters

An id with options goes wherever an id goes: collect, evaluate, the processes that play.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from anyorder_jax.environments.registry import OPTION_MARK

Known = Mapping[str, tuple[float, float] | Sequence[str]]
"""The options of a world: name -> (least, most) of a number, or the words that it may be; `FLAG` has no value."""

FLAG = ("",)


def plain(environment_id: str) -> str:
    """The id without its options."""
    return environment_id.partition(OPTION_MARK)[0]


def read(environment_id: str, known: Known) -> dict[str, float | str]:
    """The options of an id: name -> number or word.

    Args:
      environment_id: with options or without.
      known: of its world.

    Raises:
      ValueError: for an option that is not known, stands twice, or has another value; says which.
    """
    found: dict[str, float | str] = {}
    for option in environment_id.split(OPTION_MARK)[1:]:
        name, _, value = option.partition("=")
        if name not in known or name in found:
            near = difflib.get_close_matches(name, known, n=1)
            why = "stands twice." if name in found else "is unknown." + (f" Did you mean {near[0]}?" if near else "")
            raise ValueError(
                f"{environment_id}: option {name!r} {why} Options of {plain(environment_id)}: "
                f"{', '.join(map(_shown, known.items())) or 'none'}."
            )
        found[name] = _value(environment_id, name, value, known[name])
    return found


def _value(environment_id: str, name: str, value: str, allowed: tuple[float, float] | Sequence[str]) -> float | str:
    if value in allowed:
        return value
    try:
        number = float(value)
        if not isinstance(allowed[0], str) and allowed[0] <= number <= allowed[1]:  # type: ignore[operator]
            return number
    except ValueError:
        pass
    raise ValueError(f"{environment_id}: expected {_shown((name, allowed))}, got {value!r}.")


def _shown(option: tuple[str, tuple[float, float] | Sequence[str]]) -> str:
    name, allowed = option
    if allowed == FLAG:
        return name
    if isinstance(allowed[0], str):
        return f"{name}={'|'.join(map(str, allowed))}"
    return f"{name}={allowed[0]:g}..{allowed[1]:g}"
