"""A small world of text for tests: a shop whose results must be copied into the actions.

It has what agents' logs have: system text with tools, thoughts, free arguments, a user who speaks in the middle, two
tool calls in a row, a page that is longer than a context.
"""

from __future__ import annotations

import json

import numpy as np

from anyorder_jax.data import sources
from anyorder_jax.types import Kind, Trajectory, Unit

ITEMS = ("lamp", "mug", "rope", "kettle", "scarf", "clock", "stool", "vase")
COLORS = ("red", "blue", "green", "black")
SYSTEM = 'You buy things. Tools: [{"name":"search","parameters":{"query":"string","color":"string"}},{"name":"buy"}]'


def call(name: str, **arguments: object) -> str:
    """A tool call as a record writes it."""
    return json.dumps({"name": name, "arguments": arguments}, separators=(",", ":"), ensure_ascii=False)


def make_trajectory(number: int, page_lines: int = 4) -> Trajectory:
    """Episode `number`; the page of results has `page_lines` lines."""
    rng = np.random.default_rng(number)
    item, color = str(rng.choice(ITEMS)), str(rng.choice(COLORS))
    code = f"{rng.integers(100, 1000)}"
    page = [f"{rng.integers(100, 1000)}: {rng.choice(COLORS)} {rng.choice(ITEMS)}" for _ in range(page_lines)]
    page[int(rng.integers(page_lines))] = f"{code}: {color} {item}"
    units = [
        Unit(Kind.SYSTEM, 0, text=SYSTEM),
        Unit(Kind.GOAL, 0, text=f"Buy a {item}, please."),
        Unit(Kind.OBSERVATION, 0, text="You are at the entrance.\nWhich color?"),
        Unit(Kind.THOUGHT, 0, text="I do not know the color."),
        Unit(Kind.ACTION, 0, text="Which color do you want?"),
        Unit(Kind.USER, 1, text=f"Make it {color}. <|mask|> is no color."),
        Unit(Kind.ACTION, 1, text=call("search", query=item, color=color)),
        Unit(Kind.ACTION, 1, text=call("search", query=item, color="any")),
        Unit(Kind.TOOL, 1, text="\n".join(page)),
        Unit(Kind.TOOL, 1, text="0 results"),
        Unit(Kind.THOUGHT, 2, text=f"Number {code} is it."),
        Unit(Kind.ACTION, 2, text=call("buy", id=int(code)), is_expert=bool(number % 5)),
        Unit(Kind.TOOL, 2, text=f"Bought {code}."),
    ]
    return Trajectory(f"shop-{number}", tuple(units), {"success": True, "num_steps": 3}, {"environment": ""})


def write(directory, num_train: int = 40, num_others: int = 8, page_lines: int = 4) -> None:
    """A directory of episodes, as `ingest` would leave it."""
    splits, first = {}, 0
    for split, number in (("train", num_train), ("validation", num_others), ("test", num_others)):
        file = f"{split}/shard-00000.jsonl"
        episodes = [make_trajectory(n, page_lines) for n in range(first, first + number)]
        size, digest = sources.write_shard(directory / file, map(sources.encode, episodes))
        splits[split] = (sources.Shard(file, number, 3 * number, size, digest),)
        first += number
    sources.write_manifest(directory, sources.Manifest("", {}, splits))
