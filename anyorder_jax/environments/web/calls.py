"""Calls: actions on pages as BrowserGym writes them, `fill('31', 'text')`; read with `ast`, literals only."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

MAX_CHARACTERS = 20_000
"""Of an action."""
MAX_WAIT_MS = 60_000
LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""This machine's own servers."""
BUTTONS = ("left", "middle", "right")
MODIFIERS = ("Alt", "Control", "Meta", "Shift")
KEYS = {
    "Backspace": 8, "Tab": 9, "Enter": 13, "Escape": 27, "Space": 32, "PageUp": 33, "PageDown": 34, "End": 35,
    "Home": 36, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Delete": 46,
}  # fmt: skip
"""Named keys, with the numbers that pages know them by. Any single character is a key too."""


class Action(NamedTuple):
    """name: of the function. arguments: by parameter, defaults filled in."""

    name: str
    arguments: dict[str, Any]

    def text(self) -> str:
        """As it is written, without defaults."""
        parameters = FUNCTIONS[self.name]
        given = list(self.arguments.values())
        while given and parameters[len(given) - 1][2:] == (given[-1],):
            given.pop()
        return f"{self.name}({', '.join(map(repr, given))})"


def _bid(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{1,9}", value, re.ASCII):
        raise ValueError(f"an element is named by its number in brackets, as '12', got {value!r}")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected a text, got {value!r}")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= MAX_WAIT_MS:
        raise ValueError(f"expected a number up to {MAX_WAIT_MS}, got {value!r}")
    return value


def _wait(value: Any) -> float:
    if _number(value) < 0:
        raise ValueError(f"expected milliseconds, got {value!r}")
    return value


def _options(value: Any) -> Any:
    if not isinstance(value, str) and not (isinstance(value, list) and all(isinstance(one, str) for one in value)):
        raise ValueError(f"expected an option or a list of options, got {value!r}")
    return value


def _button(value: Any) -> str:
    if value not in BUTTONS:
        raise ValueError(f"a button is one of {', '.join(BUTTONS)}, got {value!r}")
    return value


def _modifiers(value: Any) -> list[str]:
    if not isinstance(value, list) or any(one not in MODIFIERS for one in value):
        raise ValueError(f"modifiers are a list of {', '.join(MODIFIERS)}, got {value!r}")
    return value


def keys_of(combination: str) -> tuple[list[str], str]:
    """Modifiers and key of 'Control+a'. Raises ValueError for another text."""
    *held, key = [part or "+" for part in re.sub(r"\+\+$", "+", combination).split("+")] if combination else [""]
    if any(one not in MODIFIERS for one in held) or not (key in KEYS or key in MODIFIERS or len(key) == 1):
        raise ValueError(f"expected a key such as 'Enter', 'ArrowDown', 'a' or 'Control+a', got {combination!r}")
    return held, key


def _keys(value: Any) -> str:
    keys_of(_text(value))
    return value


_ELEMENT = ("bid", _bid)
_POINTER: tuple[Any, ...] = (_ELEMENT, ("button", _button, "left"), ("modifiers", _modifiers, []))
FUNCTIONS: dict[str, tuple[tuple[Any, ...], ...]] = {
    "click": _POINTER,
    "dblclick": _POINTER,
    "hover": (_ELEMENT,),
    "focus": (_ELEMENT,),
    "clear": (_ELEMENT,),
    "check": (_ELEMENT,),
    "uncheck": (_ELEMENT,),
    "fill": (_ELEMENT, ("value", _text)),
    "select_option": (_ELEMENT, ("options", _options)),
    "press": (_ELEMENT, ("key_comb", _keys)),
    "keyboard_press": (("key", _keys),),
    "keyboard_type": (("text", _text),),
    "drag_and_drop": (("from_bid", _bid), ("to_bid", _bid)),
    "scroll": (("delta_x", _number), ("delta_y", _number)),
    "goto": (("url", _text),),
    "go_back": (),
    "go_forward": (),
    "noop": (("wait_ms", _wait, 1000),),
    "send_msg_to_user": (("text", _text),),
    "report_infeasible": (("reason", _text),),
}
"""Name -> its parameters: (name, what reads a value, and where there is one the default)."""


def parse(text: str, hosts: Collection[str] | None = LOOPBACK) -> Action:
    """The action that a text is: one call of one of `FUNCTIONS`, with literals as arguments.

    Args:
      text: of an agent.
      hosts: whose pages may be opened; None: everybody's.

    Raises:
      ValueError: for any other text; a sentence for the agent.
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"an action has {MAX_CHARACTERS} characters at most, got {len(text)}")
    try:
        call = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(f"expected one call such as click('12'), got {_shown(text)}") from None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        raise ValueError(f"expected one call such as click('12'), got {_shown(text)}")
    name = call.func.id
    if name not in FUNCTIONS:
        raise ValueError(f"there is no function {name!r}; there are {', '.join(FUNCTIONS)}")
    try:
        values = [ast.literal_eval(argument) for argument in call.args]
        named = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        raise ValueError(f"{name} takes literals as arguments, got {_shown(text)}") from None
    action = Action(name, _arguments(name, values, named))
    if name == "goto" and hosts is not None:
        _check_url(action.arguments["url"], hosts)
    return action


def _check_url(url: str, hosts: Collection[str]) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or parts.hostname not in hosts:
        whose = "this machine's own servers" if hosts is LOOPBACK else ", ".join(hosts)
        raise ValueError(f"only pages of {whose} can be opened, got {_shown(url)}")


def _arguments(name: str, values: Sequence[Any], named: dict[str, Any]) -> dict[str, Any]:
    parameters = FUNCTIONS[name]
    names = [parameter[0] for parameter in parameters]
    shown = f"{name}({', '.join(names)})"
    given = dict(zip(names, values, strict=False)) | named
    if len(values) > len(names) or set(named) - set(names) or set(named) & set(names[: len(values)]):
        raise ValueError(f"expected {shown}, got other arguments")
    found = {}
    for key, read, *default in parameters:
        if key not in given and not default:
            raise ValueError(f"expected {shown}, got no {key}")
        found[key] = read(given[key]) if key in given else default[0]
    return found


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "...")


def describe() -> str:
    """The functions, a line each: what an agent is told."""
    lines = []
    for name, parameters in FUNCTIONS.items():
        shown = [key if not default else f"{key}={default[0]!r}" for key, _, *default in parameters]
        lines.append(f"{name}({', '.join(shown)})")
    return "\n".join(lines)
