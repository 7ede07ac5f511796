"""Names: what ToolBench makes of the names of its APIs, and how they are disturbed (RoTBench, arXiv 2401.08326).

    standard    'Love Quote' of 'Olato Quotes' -> love_quote_for_olato_quotes     as in ToolBench's logs
    edited      lve_quote_for_olatto_quotes      one letter of six left out, doubled or replaced
    reversed    setouq_otalo_rof_etouq_evol
    swapped     the name of another function (parameter) of the same task (function)
    numbered    function_1, parameter_2          nothing is said

The functions stay what they are, with descriptions and types; only what they are called is another thing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

from anyorder_jax.environments.branching import draws
from anyorder_jax.environments.calls import Function

EDITS = ("edited", "reversed", "swapped", "numbered")

_OTHER = re.compile(r"[^a-zA-Z0-9_\u4e00-\u9fa5^]")
_RESERVED = {"from", "class", "return", "false", "true", "id", "and", ""}
_MOST = 64
"""Letters of a function's name; those at its end are kept."""
_EDITED_SHARE = 1 / 6


def standard(name: str) -> str:
    """A name of a tool, API or parameter as ToolBench writes it: small letters, digits and single underscores."""
    found = re.sub("_+", "_", _OTHER.sub("_", name)).lower().strip("_")
    found = f"get_{found}" if found[:1].isdigit() else found
    return f"is_{found}" if found in _RESERVED else found


def of_function(tool: str, api: str) -> str:
    """The name under which an API is called."""
    whole = re.sub("_+", "_", _OTHER.sub("_", tool)).lower().strip("_")
    whole = f"get_{whole}" if whole[:1].isdigit() else whole
    return f"{standard(api)}_for_{whole}"[-_MOST:]


def distinct(names: Sequence[str]) -> list[str]:
    """The names, with a number behind each that stood before."""
    found: list[str] = []
    for name in names:
        number, new = 2, name
        while new in found:
            new, number = f"{name}_{number}", number + 1
        found.append(new)
    return found


def disturbed(
    functions: Sequence[Function], task: str, function_edit: str = "", parameter_edit: str = ""
) -> list[Function]:
    """The functions under other names; a function of the task alone.

    Args:
      functions: of one task, in order.
      task: its name.
      function_edit: what becomes of the functions' names, one of `EDITS`; "" leaves them.
      parameter_edit: the same of the parameters' names of each function.
    """
    old = [function.name for function in functions]
    new = _edited(old, function_edit, "function", draws("function names", *task.encode()))
    found = []
    for function, name in zip(functions, new, strict=True):
        rng = draws("parameter names", *task.encode(), *function.name.encode())
        own = [parameter.name for parameter in function.parameters]
        other = _edited(own, parameter_edit, "parameter", rng)
        parameters = (p._replace(name=n) for p, n in zip(function.parameters, other, strict=True))
        found.append(function._replace(name=name, parameters=tuple(parameters)))
    return found


def _edited(names: Sequence[str], edit: str, noun: str, rng: np.random.Generator) -> list[str]:
    each: dict[str, Callable[[str], str]] = {
        "": lambda name: name, "edited": lambda name: _with_errors(name, rng), "reversed": lambda name: name[::-1],
    }  # fmt: skip
    if edit == "swapped":
        return [names[(i + 1) % len(names)] for i in range(len(names))]
    if edit == "numbered":
        return [f"{noun}_{i + 1}" for i in rng.permutation(len(names))]
    return distinct([each[edit](name) for name in names])


def _with_errors(name: str, rng: np.random.Generator) -> str:
    letters = list(name)
    for place in rng.choice(len(letters), max(1, int(len(letters) * _EDITED_SHARE)), replace=False):
        letter = letters[place]
        if letter != "_":
            letters[place] = ("", letter * 2, "abcdefghijklmnopqrstuvwxyz"[int(rng.integers(26))])[rng.integers(3)]
    return "".join(letters) or name
