"""Tools: the eight API classes of BFCL with their documents, and a set of instances that calls are executed on."""

from __future__ import annotations

import copy
import decimal
import functools
import importlib
import importlib.metadata
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import bfcl_eval
import mpmath
from bfcl_eval.constants.executable_backend_config import (
    CLASS_FILE_PATH_MAPPING,
    MULTI_TURN_FUNC_DOC_FILE_MAPPING,
    STATELESS_CLASSES,
)
from bfcl_eval.eval_checker.multi_turn_eval.multi_turn_checker import response_checker, state_checker

from anyorder_jax.environments.calls import MAX_NUMBER, Call, Function, Parameter

VERSION = f"bfcl-eval {importlib.metadata.version('bfcl-eval')}"
DATA = Path(bfcl_eval.__file__).parent / "data"
CLASSES = (
    "GorillaFileSystem", "MathAPI", "MessageAPI", "TwitterAPI",
    "TicketAPI", "TradingBot", "TravelAPI", "VehicleControlAPI",
)  # fmt: skip

_MAX_EFFORT = 1000
"""Of arguments that say how much to compute (`_EFFORT`)."""
_EFFORT = {"precision", "exponent", "decimal_places", "lines"}


@functools.cache
def functions() -> Mapping[str, Function]:
    """All 128, by name."""
    found = {}
    for class_name in CLASSES:
        path = DATA / "multi_turn_func_doc" / MULTI_TURN_FUNC_DOC_FILE_MAPPING[class_name]
        for line in path.read_text(encoding="utf-8").splitlines():
            document = json.loads(line)
            schema = document["parameters"]
            parameters = tuple(
                Parameter(
                    name, p["type"], name in schema["required"], p["items"]["type"] if "items" in p else "",
                    most=_MAX_EFFORT if name in _EFFORT else MAX_NUMBER,
                    is_text_too=name.endswith("_id"),  # one official answer names a ticket 'ticket_001'
                )
                for name, p in schema["properties"].items()
            )  # fmt: skip
            found[document["name"]] = Function(document["name"], class_name, parameters, document)
    return found


def of_classes(classes: Sequence[str], without: Sequence[str] = ()) -> tuple[Function, ...]:
    """The functions that classes offer, less some."""
    return tuple(f for f in functions().values() if f.class_name in classes and f.name not in without)


class Instances:
    """One instance of each class that a task involves.

    What a call answers is what the official executor writes, errors too. The precision that MathAPI sets for the whole
    process is put back, so that nothing depends on what was played before.
    """

    def __init__(self, by_class: Mapping[str, Any]) -> None:
        self._by_class = by_class

    @classmethod
    def opened(cls, classes: Sequence[str], initial: Mapping[str, Any], is_long: bool) -> Instances:
        """As the official executor makes them."""
        by_class = {}
        for name in classes:
            made = getattr(importlib.import_module(CLASS_FILE_PATH_MAPPING[name]), name)()
            if name not in STATELESS_CLASSES:
                made._load_scenario(copy.deepcopy(initial.get(name, {})), long_context=is_long)
            by_class[name] = made
        return cls(by_class)

    def copy(self) -> Instances:
        """Of their own, in the same state. Random generators are cloned by their state, which is fifty times faster."""
        memo: dict[int, Any] = {}
        for instance in self._by_class.values():
            for value in vars(instance).values():
                if isinstance(value, random.Random):
                    memo[id(value)] = clone = random.Random(0)
                    clone.setstate(value.getstate())
        return Instances({name: copy.deepcopy(instance, memo) for name, instance in self._by_class.items()})

    def execute(self, call: Call) -> str:
        """Does a call of one of these classes (`calls` has checked it), and returns what the agent is told."""
        method = getattr(self._by_class[functions()[call.name].class_name], call.name)
        try:
            with decimal.localcontext(), mpmath.workdps(mpmath.mp.dps):
                result = method(**copy.deepcopy(call.arguments))
            return result if isinstance(result, str) else _told(result)
        except Exception as error:
            return f"Error during execution: {error}"

    def __getitem__(self, class_name: str) -> Any:
        return self._by_class[class_name]

    def has_state_of(self, reference: Instances) -> bool:
        """The official comparison of states."""
        try:
            return bool(state_checker(dict(self._by_class), dict(reference._by_class))["valid"])
        except RecursionError:  # a folder copied into itself
            return False


def answers_hold(answers: Sequence[str], needed: Sequence[str]) -> bool:
    """The official comparison of answers: all that are needed have been seen, in any order, in this turn or before."""
    return bool(response_checker(list(answers), list(needed), 0)["valid"])


def _told(result: Any) -> str:
    if isinstance(result, dict):
        try:
            return json.dumps(result)
        except (TypeError, ValueError):
            pass
    return str(result)
