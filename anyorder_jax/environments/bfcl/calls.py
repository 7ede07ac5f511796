"""Calls: a function of a list with literal arguments, read from text before anything is executed.

    {"name":"cd","arguments":{"folder":"src"}}      an action, as an agent writes it
    cd(folder='src')                                an official answer

Nothing is ever evaluated. What is no call of a known function, has other arguments than its schema allows, or values
that could keep a simulator busy (numbers, texts and lists beyond any use) is refused with a sentence.
"""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

MAX_CHARACTERS = 10_000
MAX_ITEMS = 200
MAX_DEPTH = 4
MAX_NUMBER = 10**15
MAX_EFFORT = 1000
"""Of arguments that say how much to compute (`_EFFORT`)."""

_EFFORT = {"precision", "exponent", "decimal_places", "lines"}
_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "float": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "dict": (dict,),
}


class Parameter(NamedTuple):
    """Of a function. type: as BFCL's documents name it."""

    name: str
    type: str
    is_required: bool
    item_type: str = ""


class Function(NamedTuple):
    """What may be called. document: its schema, as published."""

    name: str
    class_name: str
    parameters: tuple[Parameter, ...]
    document: Mapping[str, Any]

    def signature(self) -> str:
        """E.g. `sort(file_name: string)`; a parameter that may be left out has a question mark."""
        described = (f"{p.name}{'' if p.is_required else '?'}: {p.type}" for p in self.parameters)
        return f"{self.name}({', '.join(described)})"


class Call(NamedTuple):
    """A function's name and its arguments, by name."""

    name: str
    arguments: Mapping[str, Any]

    def json(self) -> str:
        """As an agent writes it."""
        return json.dumps({"name": self.name, "arguments": self.arguments}, ensure_ascii=False, separators=(",", ":"))

    def python(self) -> str:
        """As the official checker reads it."""
        return f"{self.name}({', '.join(f'{key}={value!r}' for key, value in self.arguments.items())})"


def from_json(text: str, functions: Mapping[str, Function]) -> Call:
    """An agent's call. Raises ValueError, with a sentence for the agent, for any other text."""
    _check_length(text)
    try:
        found = json.loads(text, object_pairs_hook=_without_doubles, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("expected a call, got values nested too deep") from None
    except json.JSONDecodeError:
        raise ValueError('expected a call, {"name":...,"arguments":{...}}') from None
    if not isinstance(found, dict) or set(found) != {"name", "arguments"} or not isinstance(found["arguments"], dict):
        raise ValueError('expected a call, {"name":...,"arguments":{...}}')
    if not isinstance(found["name"], str) or found["name"] not in functions:
        raise ValueError(f"there is no function {str(found['name'])[:80]!r}")
    return _checked(functions[found["name"]], found["arguments"])


def from_python(text: str, functions: Mapping[str, Function]) -> Call:
    """A call in Python's syntax, read with `ast`. Raises ValueError for any other text."""
    _check_length(text)
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise ValueError("expected one call") from None
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id not in functions:
        raise ValueError("expected one call of a known function")
    function = functions[node.func.id]
    if len(node.args) > len(function.parameters) or any(keyword.arg is None for keyword in node.keywords):
        raise ValueError(f"{function.name} takes {function.signature()}")
    names = [parameter.name for parameter in function.parameters]
    pairs = [*zip(names, node.args, strict=False), *((k.arg, k.value) for k in node.keywords)]
    try:
        values = [(str(name), ast.literal_eval(value)) for name, value in pairs]
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise ValueError("expected literal arguments") from None
    return _checked(function, _without_doubles([(name, _listed(value)) for name, value in values]))


def _check_length(text: str) -> None:
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"expected a call of at most {MAX_CHARACTERS} characters, got {len(text)}")


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is no number")


def _without_doubles(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def _listed(value: Any) -> Any:
    """JSON has lists alone."""
    return [_listed(item) for item in value] if isinstance(value, list | tuple) else value


def _checked(function: Function, arguments: Mapping[str, Any]) -> Call:
    """The call, if the schema allows it."""
    known = {parameter.name: parameter for parameter in function.parameters}
    unknown = [name for name in arguments if name not in known]
    missing = [p.name for p in function.parameters if p.is_required and p.name not in arguments]
    if unknown or missing:
        raise ValueError(f"expected {function.signature()}, got arguments {', '.join(arguments)[:200] or 'none'}")
    for name, value in arguments.items():
        _check_value(name, value)
        if value is None and not known[name].is_required:
            continue
        is_id = name.endswith("_id") and isinstance(value, str)  # one official answer names a ticket 'ticket_001'
        if not is_id and not _is_of(value, known[name].type):
            raise ValueError(f"expected {known[name].type} as {name}")
        if known[name].item_type and not all(_is_of(item, known[name].item_type) for item in value):
            raise ValueError(f"expected {known[name].item_type}s in {name}")
        if name in _EFFORT and isinstance(value, int | float) and abs(value) > MAX_EFFORT:
            raise ValueError(f"expected a number up to {MAX_EFFORT} as {name}")
    return Call(function.name, dict(arguments))


def _is_of(value: Any, name: str) -> bool:
    """Whether a value is of a type; True is no number."""
    types = _TYPES[name]
    return isinstance(value, types) and (bool in types or not isinstance(value, bool))


def _check_value(name: str, value: Any, depth: int = 0) -> None:
    """A literal of a size that can be worked with."""
    if depth > MAX_DEPTH:
        raise ValueError(f"{name} is nested too deep")
    if isinstance(value, list | dict):
        if len(value) > MAX_ITEMS:
            raise ValueError(f"expected at most {MAX_ITEMS} items in {name}")
        if isinstance(value, dict):
            if not all(isinstance(key, str) for key in value):
                raise ValueError(f"expected texts as keys of {name}")
            value = list(value.values())
        for item in value:
            _check_value(name, item, depth + 1)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} is no number")
    elif isinstance(value, int | float) and abs(value) > MAX_NUMBER:
        raise ValueError(f"expected a number up to {MAX_NUMBER:.0e} as {name}")
    elif value is not None and not isinstance(value, str | int | float | bool):
        raise ValueError(f"{name} is no literal")
