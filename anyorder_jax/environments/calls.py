"""Calls: a function of a list with literal arguments, read from text before anything is executed.

    {"name":"cd","arguments":{"folder":"src"}}      an action, as an agent writes it
    cd(folder='src')                                the same in Python's syntax

Nothing is ever evaluated. What is no call of a known function, has other arguments than its schema allows, or values
that could keep a simulator busy (numbers, texts and lists beyond any use) is refused with a sentence.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

MAX_CHARACTERS = 10_000
MAX_ITEMS = 200
MAX_DEPTH = 4
MAX_NUMBER = 10**15

_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "float": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "dict": (dict,),
    "date": (str,),
    "time": (str,),
    "any": (str, int, float, bool, list, dict),
}
_FORMS = {"date": re.compile(r"\d{4}-\d\d-\d\d"), "time": re.compile(r"\d\d:\d\d")}


class Parameter(NamedTuple):
    """Of a function. type: string, integer, float, boolean, array, dict, date (YYYY-MM-DD), time (HH:MM) or any.
    item_type: of an array ("": any). most: the largest size of a number. is_text_too: a text will do for any type.
    default: what its document says that it is, None without one. choices: the texts that it may be, if not any."""

    name: str
    type: str
    is_required: bool
    item_type: str = ""
    most: float = MAX_NUMBER
    is_text_too: bool = False
    default: Any = None
    choices: tuple[str, ...] = ()


class Function(NamedTuple):
    """What may be called. document: its schema, as published."""

    name: str
    class_name: str
    parameters: tuple[Parameter, ...]
    document: Mapping[str, Any]

    def signature(self) -> str:
        """E.g. `sort(file_name: string, order?: string = "up")`: with a question mark what may be left out."""
        described = (
            f"{p.name}{'' if p.is_required else '?'}: {p.type}"
            + ("" if p.default is None else f" = {json.dumps(p.default, ensure_ascii=False)}")
            for p in self.parameters
        )
        return f"{self.name}({', '.join(described)})"


class Call(NamedTuple):
    """A function's name and its arguments, by name."""

    name: str
    arguments: Mapping[str, Any]

    def json(self) -> str:
        """As an agent writes it."""
        return json.dumps({"name": self.name, "arguments": self.arguments}, ensure_ascii=False, separators=(",", ":"))

    def python(self) -> str:
        """In Python's syntax."""
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
    return check(functions[found["name"]], found["arguments"])


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
    return check(function, _without_doubles([(name, _listed(value)) for name, value in values]))


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


def check(function: Function, arguments: Mapping[str, Any]) -> Call:
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
        if known[name].choices and value not in known[name].choices:
            raise ValueError(f"expected {' or '.join(known[name].choices)} as {name}")
        is_text = known[name].is_text_too and isinstance(value, str)
        if not is_text and not _is_of(value, known[name].type):
            raise ValueError(f"expected {known[name].type} as {name}")
        if known[name].item_type and not all(_is_of(item, known[name].item_type) for item in value):
            raise ValueError(f"expected {known[name].item_type}s in {name}")
        if isinstance(value, int | float) and abs(value) > known[name].most:
            raise ValueError(f"expected a number up to {known[name].most:g} as {name}")
    return Call(function.name, dict(arguments))


def _is_of(value: Any, name: str) -> bool:
    """Whether a value is of a type; True is no number."""
    types = _TYPES[name]
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        return False
    return name not in _FORMS or bool(_FORMS[name].fullmatch(str(value)))


def to_json(functions: Sequence[Function]) -> list[Any]:
    """Functions as they go over a pipe, without their documents."""
    return [[function.name, function.class_name, list(map(list, function.parameters))] for function in functions]


def of_json(found: Sequence[Any]) -> list[Function]:
    """The inverse of `to_json`."""
    return [
        Function(name, group, tuple(Parameter(*p)._replace(choices=tuple(p[-1])) for p in parameters), {})
        for name, group, parameters in found
    ]


def describe(functions: Sequence[Function], with_schemas: bool) -> str:
    """A function a line: its signature, or its schema in JSON."""
    if not with_schemas:
        return "\n".join(function.signature() for function in functions)
    shown = ({k: f.document[k] for k in ("name", "description", "parameters")} for f in functions)
    return "\n".join(json.dumps(document, ensure_ascii=False) for document in shown)


_WORD = re.compile(r"'([^']+)'|\"([^\"]+)\"|([\w.@#-]*\w)")
_MAX_WORDS = 200


def words_in(text: str) -> list[str]:
    """What stands in a text that may be an argument, in order, each once: what is quoted, and single words; "a" where
    there is nothing."""
    words = [next(filter(None, found)) for found in _WORD.findall(text)]
    return list(dict.fromkeys(words))[-_MAX_WORDS:] or ["a"]


def drawn(parameter: Parameter, words: Sequence[str], rng: Any) -> Any:
    """A value of a parameter's type, out of words that were said.

    Args:
      parameter: that it is for.
      words: as `words_in` gives them.
      rng: a generator of numpy.
    """
    match parameter.type:
        case "boolean":
            return bool(rng.integers(2))
        case "dict":
            return {"status": words[int(rng.integers(len(words)))]}
        case "array":
            return [drawn(parameter._replace(type=parameter.item_type or "string"), words, rng)]
        case "date":
            return f"20{rng.integers(10, 30)}-{rng.integers(1, 13):02}-{rng.integers(1, 29):02}"
        case "time":
            return f"{rng.integers(24):02}:{rng.integers(60):02}"
        case "string" | "any":
            return words[int(rng.integers(len(words)))]
    numbers = [int(word) for word in words if word.isascii() and word.isdigit() and len(word) < 4] or [1, 2, 5]
    return numbers[int(rng.integers(len(numbers)))]


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
