"""A small world of text that can be acted in: a shop. What is bought is named by a code that only the page shows.

    goal          Buy a lamp.
    observation   Ask for the color.
    action        {"name":"ask","arguments":{}}
    user          Red, please.
    action        {"name":"search","arguments":{"item":"lamp","color":"red"}}
    observation   red lamp: K7q
    action        {"name":"buy","arguments":{"id":"K7q"}}
    observation   Sold.

A task is a number. The goods of tasks from 8,000,000 on (the held-out splits of `sources.seed_range`) have codes that
those before never have (`is_held_out`), so what is bought there was never bought, or seen, in training. A byte-pair
tokenizer spells codes letter by letter: it never joins letters with digits.
"""

from __future__ import annotations

import json

import numpy as np

from anyorder_jax.environments import registry
from anyorder_jax.environments.base import InvalidActionError, Text, TextStep
from anyorder_jax.types import Kind, Unit
from shop import COLORS, ITEMS, call

PREFIX = "Shop-"
HELD_OUT = 8_000_000
ARGUMENTS = {"ask": {}, "search": {"item": str, "color": str}, "buy": {"id": str}}
UPPER, DIGITS, LOWER = "BDHKRT", "234567", "acempq"


def is_held_out(code: str) -> bool:
    """One code of seven is of the held-out tasks alone."""
    return (UPPER.index(code[0]) + 2 * DIGITS.index(code[1]) + 3 * LOWER.index(code[2])) % 7 == 0


def register() -> None:
    """Makes the world known here and in processes that are started."""
    registry.register(PREFIX, __name__)


def ids() -> tuple[str, ...]:
    return ("Shop-v0", "Shop-thinking-v0")


def parse(text: str) -> tuple[str, dict[str, object]]:
    """(name, arguments) of a call, or ValueError."""
    try:
        found = json.loads(text)
    except ValueError:
        raise ValueError("not JSON") from None
    if not isinstance(found, dict) or set(found) != {"name", "arguments"} or found["name"] not in ARGUMENTS:
        raise ValueError(f"expected a call of {', '.join(ARGUMENTS)}")
    wanted, given = ARGUMENTS[found["name"]], found["arguments"]
    if not isinstance(given, dict) or {k: type(v) for k, v in given.items()} != wanted:
        raise ValueError(f"{found['name']} takes {', '.join(wanted) or 'nothing'}")
    return found["name"], given


class Shop:
    """A session. The expert asks, searches and buys; with thoughts in Shop-thinking-v0."""

    version = "shop 1"
    actions = Text(parse)
    max_steps = 6
    expert_name = "clerk"

    def __init__(self, environment_id: str) -> None:
        self.id = environment_id

    def reset(self, task: str) -> list[Unit]:
        if not task.isdecimal():
            raise ValueError(f"shop: expected a number as task, got {task!r}")
        self._task, self._step = int(task), 0
        rng = np.random.default_rng(self._task)
        self._item, self._color = str(rng.choice(ITEMS)), str(rng.choice(COLORS))
        self._knows_color, self._has_searched = False, False
        goal = Unit(Kind.GOAL, 0, text=f"Buy a {self._item}.")
        return [goal, Unit(Kind.OBSERVATION, 0, text="Ask for the color.")]

    def _code(self, item: str, color: str) -> str:
        rng = np.random.default_rng([self._task, ITEMS.index(item), COLORS.index(color)])
        while True:
            code = "".join(str(rng.choice(list(letters))) for letters in (UPPER, DIGITS, LOWER))
            if is_held_out(code) == (self._task >= HELD_OUT):
                return code

    def step(self, action: Unit) -> TextStep:
        name, arguments = parse(action.text)
        if name == "search" and (arguments["item"] not in ITEMS or arguments["color"] not in COLORS):
            raise InvalidActionError(f"there is no {arguments['color']} {arguments['item']}")
        self._step += 1
        kind, text, is_done, is_success = Kind.OBSERVATION, "", False, False
        if name == "ask":
            kind, text, self._knows_color = Kind.USER, f"{self._color}, please.", True
        elif name == "search":
            item, color = arguments["item"], arguments["color"]
            text = f"{color} {item}: {self._code(item, color)}"
            self._has_searched = (item, color) == (self._item, self._color)
        else:
            text, is_done = "Sold.", True
            is_success = arguments["id"] == self._code(self._item, self._color)
        return TextStep((Unit(kind, self._step, text=text),), float(is_success), is_done, is_success)

    def advice(self) -> list[Unit]:
        if not self._knows_color:
            thought, action = "I need the color.", call("ask")
        elif not self._has_searched:
            thought = f"I search a {self._color} {self._item}."
            action = call("search", item=self._item, color=self._color)
        else:
            code = self._code(self._item, self._color)
            thought, action = f"It is {code}.", call("buy", id=code)
        units = [Unit(Kind.THOUGHT, self._step, text=thought), Unit(Kind.ACTION, self._step, text=action)]
        return units if "thinking" in self.id else units[1:]

    def valid_actions(self) -> list[str]:
        return [call("ask"), *(call("search", item=item, color="red") for item in ITEMS), call("buy", id="B2a")]

    def close(self) -> None:
        pass


def session(environment_id: str) -> Shop:
    return Shop(environment_id)
