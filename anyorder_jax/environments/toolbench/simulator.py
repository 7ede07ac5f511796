"""Simulator: what an API answers, made up from the schema of its response. ToolBench's server is gone; this is ours.

    schema    {"city": "str", "temperature": "float", "days": "list of str with length 2", "more": [{"id": "int"}]}
    answer    {"city": "Relvan-412", "temperature": 83.1, "days": ["Misrel-903", "Pelvan-118"], "more": [{"id": 5127}]}

An answer is a function of (query, API, arguments): the same call of the same task always tells the same. Texts and
numbers are such that no other call tells them, so that whoever quotes one has been told it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from anyorder_jax.environments.branching import draws

_SYLLABLES = ("bel", "dor", "fen", "gar", "hol", "jen", "kar", "lum", "mis", "nor", "pel", "quin", "rel", "sar", "tor",
              "ul", "van", "wen", "yor", "zam")  # fmt: skip
_LIST = re.compile(r"list of (\w+) with length (\d+)")
_LENGTH = "_list_length"
_MOST_ITEMS, _MOST_DEPTH, _MOST_KEYS = 3, 6, 24
_LEAST_QUOTED = 4
"""Letters of a value that can be told from other text."""


def answer(task: str, api: str, arguments: Mapping[str, Any], schema: Any) -> Any:
    """The response of a valid call.

    Args:
      task: name of the query's task.
      api: name of the API, as the data have it.
      arguments: by the data's names.
      schema: as the data have it; one that is no object (some were cut off): {"result": "str"}.
    """
    written = json.dumps(arguments, sort_keys=True, ensure_ascii=False)
    rng = draws("toolbench answer", *task.encode(), *api.encode(), *written.encode())
    usable = schema if isinstance(schema, dict | list) and schema else {"result": "str"}
    return _value(usable, rng, 0)


def quotable(response: Any) -> list[str]:
    """The values of a response that an answer can quote, as they are written in JSON without quotation marks: texts and
    numbers of four letters and more."""
    found = (value if isinstance(value, str) else json.dumps(value) for value in _leaves(response))
    return list(dict.fromkeys(text for text in found if len(text) >= _LEAST_QUOTED))


def is_quoted(value: str, text: str) -> bool:
    """Whether a value stands in a text as a word of its own."""
    return re.search(rf"(?<![\w.]){re.escape(value)}(?![\w]|\.\d)", text) is not None


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _leaves(inner)
    elif isinstance(value, str | int | float) and not isinstance(value, bool):
        yield value


def _value(schema: Any, rng: np.random.Generator, depth: int) -> Any:
    """A value of a schema's type."""
    if depth >= _MOST_DEPTH and isinstance(schema, dict | list):
        return None
    if isinstance(schema, dict):
        keys = [key for key in schema if key != _LENGTH][:_MOST_KEYS]
        return {str(key): _value(schema[key], rng, depth + 1) for key in keys}
    if isinstance(schema, list):
        inner = [item for item in schema if not (isinstance(item, dict) and set(item) == {_LENGTH})]
        return [_value(item, rng, depth + 1) for item in inner[:_MOST_ITEMS]]
    listed = _LIST.fullmatch(schema) if isinstance(schema, str) else None
    if listed:
        return [_value(listed[1], rng, depth + 1) for _ in range(min(int(listed[2]), _MOST_ITEMS))]
    match schema:
        case "int":
            return int(rng.integers(1000, 10**6))
        case "float":
            return int(rng.integers(10**3, 10**6)) / 100
        case "bool":
            return bool(rng.integers(2))
        case "NoneType" | None:
            return None
        case "empty list" | "list":
            return []
        case "dict":
            return {}
    return _text(rng)


def _text(rng: np.random.Generator) -> str:
    parts = [_SYLLABLES[int(i)] for i in rng.integers(len(_SYLLABLES), size=3)]
    return f"{''.join(parts).capitalize()}-{int(rng.integers(100, 1000))}"
