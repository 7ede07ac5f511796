"""APIs: those of a task as functions, and the calls that solve it.

api_list   {tool_name: "Olato Quotes", api_name: "Love Quote", optional_parameters: [{name, type, default}], ...}
function   love_quote_for_olato_quotes(quotes?: string = "random quotes")
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from anyorder_jax.environments import calls
from anyorder_jax.environments.branching import draws
from anyorder_jax.environments.calls import Call, Function, Parameter
from anyorder_jax.environments.toolbench import names

GIVE_ANSWER, GIVE_UP = "give_answer", "give_up_and_restart"
FINISH = Function(
    "Finish",
    "",
    (
        Parameter("return_type", "string", True, choices=(GIVE_ANSWER, GIVE_UP)),
        Parameter("final_answer", "string", False),
    ),
    {
        "name": "Finish",
        "description": "Ends the task: give_answer with the final_answer for the user, or give_up_and_restart.",
        "parameters": {
            "type": "object",
            "properties": {
                "return_type": {"type": "string", "enum": [GIVE_ANSWER, GIVE_UP]},
                "final_answer": {"type": "string"},
            },
            "required": ["return_type"],
        },
    },
)
_TYPES = {
    "string": "string", "str": "string", "enum": "string", "binary": "string", "number": "float", "float": "float",
    "int": "integer", "integer": "integer", "boolean": "boolean", "bool": "boolean", "array": "array", "list": "array",
    "object": "dict", "dict": "dict", "map": "dict", "date (yyyy-mm-dd)": "date", "time (24-hour hh:mm)": "time",
}  # fmt: skip
_JSON_TYPES = {"float": "number", "dict": "object", "date": "string", "time": "string", "any": "string"}
_NAMED = re.compile(r"'([^'\n]{2,40})'|\"([^\"\n]{2,40})\"|(?<=[a-z,] )([A-Z][\w-]+(?: [A-Z][\w-]+)*)")
"""What a query names: between quotation marks, or with a capital letter within a sentence."""


class Api(NamedTuple):
    """One of a task's. key: (tool, API), as the data name it. given: parameter of `function` -> its name in the data.
    schema: of its response."""

    key: tuple[str, str]
    function: Function
    given: Mapping[str, str]
    schema: Any

    def renamed(self, function: Function) -> Api:
        """The same API behind a function with other names for the same parameters in the same order."""
        old = self.function.parameters
        given = {n.name: self.given[o.name] for n, o in zip(function.parameters, old, strict=True)}
        new = {o.name: n.name for n, o in zip(function.parameters, old, strict=True)}
        document = self.function.document
        schema = document["parameters"]
        properties = {new[name]: about for name, about in schema["properties"].items()}
        parameters = {**schema, "properties": properties, "required": [new[name] for name in schema["required"]]}
        shown = {**document, "name": function.name, "parameters": parameters}
        return self._replace(function=function._replace(document=shown), given=given)


def of_task(instruction: Mapping[str, Any]) -> list[Api]:
    """The APIs of an instruction, each once, in its order."""
    listed = {(str(a["tool_name"]), str(a["api_name"])): a for a in instruction["api_list"]}
    called = names.distinct([names.of_function(tool, api) for tool, api in listed])
    return [_api(key, api, name) for (key, api), name in zip(listed.items(), called, strict=True)]


def _api(key: tuple[str, str], api: Mapping[str, Any], name: str) -> Api:
    given = [(p, True) for p in api.get("required_parameters") or ()]
    given += [(p, False) for p in api.get("optional_parameters") or ()]
    by_name = {str(p["name"]): (p, is_required) for p, is_required in reversed(given)}  # the first of equals: required
    by_name = dict(reversed(by_name.items()))
    own = names.distinct([names.standard(n) for n in by_name])
    parameters = tuple(_parameter(n, p, is_required) for n, (p, is_required) in zip(own, by_name.values(), strict=True))
    properties = {
        p.name: {
            "type": _JSON_TYPES.get(p.type, p.type),
            "description": str(by_name[old][0].get("description") or ""),
            **({"default": p.default} if p.default is not None else {}),
        }
        for p, old in zip(parameters, by_name, strict=True)
    }
    document = {
        "name": name,
        "description": " ".join(str(api.get("api_description") or "").split()),
        "parameters": {
            "type": "object", "properties": properties, "required": [p.name for p in parameters if p.is_required]
        },
    }  # fmt: skip
    function = Function(name, key[0], parameters, document)
    return Api(key, function, dict(zip(own, by_name, strict=True)), api.get("template_response"))


def _parameter(name: str, given: Mapping[str, Any], is_required: bool) -> Parameter:
    kind = _TYPES.get(str(given.get("type") or "").strip().lower(), "any")
    parameter = Parameter(name, kind, is_required)
    return parameter._replace(default=_default(parameter, given.get("default")))


def _default(parameter: Parameter, default: Any) -> Any:
    """A parameter's default in its own type; None where it has none, or one of another type."""
    if default is None or default == "":
        return None
    found = default
    if isinstance(default, str) and parameter.type not in ("string", "date", "time", "any"):
        try:
            found = json.loads(default.lower() if parameter.type == "boolean" else default)
        except (ValueError, RecursionError):
            return None
    elif parameter.type == "string" and not isinstance(default, str):
        found = json.dumps(default, ensure_ascii=False)
    try:
        calls.check(Function("", "", (parameter,), {}), {parameter.name: found})
    except ValueError:
        return None
    return found


def relevant(instruction: Mapping[str, Any], apis: Sequence[Api]) -> list[Api]:
    """Those that an answer needs, each once. Raises ValueError where an instruction needs one that it does not list."""
    by_key = {api.key: api for api in apis}
    keys = dict.fromkeys((str(tool), str(api)) for tool, api in instruction.get("relevant APIs") or ())
    lacking = [key for key in keys if key not in by_key]
    if lacking or not keys:
        raise ValueError(
            f"toolbench: query {instruction.get('query_id')} needs {lacking[0] if lacking else 'no API'}, which is not "
            "in its api_list; nobody can solve it"
        )
    return [by_key[key] for key in keys]


def solving_call(api: Api, query: str, task: str) -> Call:
    """The expert's call: what is required alone, with its default, or else something that the query names."""
    rng = draws("toolbench arguments", *task.encode(), *"\0".join(api.key).encode())
    every = calls.words_in(query)
    named = [next(filter(None, found)) for found in _NAMED.findall(query)] or [w for w in every if len(w) > 2] or every
    arguments = {
        p.name: calls.drawn(p, every if p.type in ("float", "integer") else named, rng)
        if p.default is None
        else p.default
        for p in api.function.parameters
        if p.is_required
    }
    return Call(api.function.name, arguments)
