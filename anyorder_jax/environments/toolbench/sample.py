"""Sample: a small data set of our own in ToolBench's files, to try everything without the real one.

    python -m anyorder_jax.environments.toolbench.sample --output_dir=data/toolbench_sample [--num_queries=8]

    test_instruction/G1_tool.json, ...     six splits of `num_queries` each
    instruction/G1_query.json, ...         three groups of ten times that, to train on
    answer/G1_answer/1_sample.json, ...    answer trees of ten training queries of each group
    toolllama_sample.json                  the same as training records, one for every step

Tools, queries and answers are made up of lists of words; nothing in them is from ToolBench.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anyorder_jax import files, paths, terminal
from anyorder_jax.environments.branching import draws
from anyorder_jax.environments.toolbench.data import SPLITS

_CATEGORIES = ("Weather", "Music", "Travel", "Food", "Sports", "Finance", "Movies", "Science")
_KINDS = ("Finder", "Almanac", "Hub", "Desk", "Index")
_NOUNS = ("station", "song", "hotel", "recipe", "team", "stock", "film", "planet")
_VERBS = ("search", "list", "details of", "rating of", "history of")
_PLACES = ("Aldermoor", "Brindle Bay", "Castelvan", "Dunmere", "Eastwick", "Fernhollow", "Garrowby", "Hartsend")
_SCHEMAS: tuple[Any, ...] = (
    {"name": "str", "score": "float"}, {"results": [{"id": "int", "title": "str"}, {"_list_length": 2}]},
    {"status": "bool", "data": {"code": "str", "tags": "list of str with length 2"}}, {"count": "int"}, "",
)  # fmt: skip
_HELD_CATEGORIES, _HELD_KINDS = _CATEGORIES[6:], _KINDS[4:]
_NUM_ANSWERED = 10


def _tool(category: str, kind: str) -> list[dict[str, Any]]:
    """The APIs of a tool."""
    noun = _NOUNS[_CATEGORIES.index(category)]
    rng = draws("sample tool", *f"{category} {kind}".encode())
    found = []
    for i, verb in enumerate(_VERBS[: int(rng.integers(3, 6))]):
        required = [{"name": "place", "type": "STRING", "description": f"Where the {noun} is", "default": ""}]
        if i % 2:
            required.append({"name": "limit", "type": "NUMBER", "description": "How many", "default": "5"})
        optional = [{"name": "from", "type": "DATE (YYYY-MM-DD)", "description": "", "default": "2024-05-01"}] * (i > 1)
        found.append({
            "category_name": category, "tool_name": f"{noun.title()} {kind}", "api_name": f"{verb} {noun}",
            "api_description": f"The {verb.removesuffix(' of')} of a {noun}.", "required_parameters": required,
            "optional_parameters": optional, "method": "GET",
            "template_response": _SCHEMAS[int(rng.integers(len(_SCHEMAS)))],
        })  # fmt: skip
    return found


def _tools_of(group: str, rng: np.random.Generator, kind: str, is_test: bool) -> list[tuple[str, str]]:
    """(category, kind) of one tool (G1), of two of one category (G2), or of two categories (G3). What is held out is in
    all of its split's tests, and in no other query."""
    held = is_test and kind != "instruction"
    categories = _HELD_CATEGORIES if held and kind == "category" else _CATEGORIES[:6]
    kinds = _HELD_KINDS if held and kind == "tool" else _KINDS[:4]
    chosen = [str(c) for c in rng.choice(categories, 2, replace=False)]
    own = [str(k) for k in rng.permutation(kinds)[:2]]
    return {
        "G1": [(chosen[0], own[0])], "G2": [(chosen[0], k) for k in own], "G3": [(c, own[0]) for c in chosen],
    }[group]  # fmt: skip


def _queries(name: str, num: int, first_id: int) -> list[dict[str, Any]]:
    """The instructions of a split ("G1_tool"), or of a group ("G1"), to train on."""
    group, _, kind = name.partition("_")
    found = []
    for number in range(num):
        rng = draws(f"sample {name}", number)
        listed = [api for tool in _tools_of(group, rng, kind, bool(kind)) for api in _tool(*tool)]
        count = int(rng.integers(1, 4))
        asked = [listed[i] for i in sorted(rng.permutation(len(listed))[:count].tolist())]
        place, guests = _PLACES[int(rng.integers(len(_PLACES)))], int(rng.integers(2, 900))
        wishes = ", and ".join(f"the {api['api_name']} ({api['tool_name']})" for api in asked)
        found.append({
            "api_list": listed,
            "query": f"I am planning a trip to '{place}' with {guests} friends. Please get me {wishes}.",
            "relevant APIs": [[api["tool_name"], api["api_name"]] for api in asked], "query_id": first_id + number,
        })  # fmt: skip
    return found


def write(directory: Path, num_queries: int = 8) -> None:
    """Writes the files.

    Args:
      directory: gets them.
      num_queries: of each split, >= 1.
    """
    numbers = itertools.count(1, 10_000)
    for split in SPLITS:
        _write(directory / "test_instruction" / f"{split}.json", _queries(split, num_queries, next(numbers)))
    for group in ("G1", "G2", "G3"):
        _write(directory / "instruction" / f"{group}_query.json", _queries(group, 10 * num_queries, next(numbers)))
    write_answers(directory)


def write_answers(directory: Path) -> None:
    """Answers of the expert to ten training queries of each group, in ToolBench's two formats."""
    from anyorder_jax.environments.toolbench import apis, data, simulator

    records: list[Any] = []
    for group in ("G1", "G2", "G3"):
        for number in itertools.islice(data.entries(directory, group), _NUM_ANSWERED):
            task = f"{group}/{number}"
            instruction = data.instruction(directory, task)
            found = apis.of_task(instruction)
            steps = []
            for api in apis.relevant(instruction, found):
                call = apis.solving_call(api, instruction["query"], task)
                arguments = {api.given[name]: value for name, value in call.arguments.items()}
                response = simulator.answer(task, "\0".join(api.key), arguments, api.schema)
                steps.append((call, json.dumps({"error": "", "response": response}), simulator.quotable(response)))
            quotes = ", ".join((values or ["done"])[0] for _, _, values in steps)
            answer = {"return_type": apis.GIVE_ANSWER, "final_answer": f"I found {quotes}."}
            done = [(call.name, dict(call.arguments), told) for call, told, _ in steps]
            done.append((apis.FINISH.name, answer, '{"response":"successfully giving the final answer."}'))
            schemas = [api.function.document for api in found] + [apis.FINISH.document]
            _write(
                directory / "answer" / f"{group}_answer" / f"{number}_sample.json", _tree(instruction, schemas, done)
            )
            records += _records(instruction["query"], schemas, done)
    _write(directory / "toolllama_sample.json", records)


def _tree(instruction: Any, schemas: Sequence[Any], done: Sequence[tuple[str, Any, str]]) -> dict[str, Any]:
    """An answer tree with one branch that leads nowhere."""

    def node(kind: str, text: str, children: list[Any], observation: str = "") -> dict[str, Any]:
        return {"node_type": kind, "description": text, "observation": observation, "children": children}

    inner: list[Any] = []
    for name, arguments, told in reversed(done):
        inner = [node("Action", name, [node("Action Input", json.dumps(arguments), inner, told)])]
        inner = [node("Thought", f"I need {name}.", inner)]
    wrong = node("Thought", "Perhaps nothing is needed.", [])
    generation = {"query": instruction["query"], "function": list(schemas), "train_messages": []}
    whole = {"tree": node("Action Input", "", [wrong, *inner])}
    return {"win": True, "query_id": instruction["query_id"], "tree": whole, "answer_generation": generation}


def _records(query: str, schemas: Sequence[Any], done: Sequence[tuple[str, Any, str]]) -> Iterator[dict[str, Any]]:
    """One record for every step, with all that came before."""
    turns = [
        {"from": "system", "value": f"Specifically, you have access to the following APIs: {list(schemas)!r}"},
        {"from": "user", "value": f"\n{query}\nBegin!\n"},
    ]
    for step, (name, arguments, told) in enumerate(done, 1):
        said = f"\nThought: I need {name}.\nAction: {name}\nAction Input: {json.dumps(arguments)}"
        turns = [*turns, {"from": "assistant", "value": said}]
        yield {"id": f"Step {step}: {query}", "conversations": turns}
        turns = [*turns, {"from": "function", "value": told}]


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_whole(path, [json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n"])


def main() -> None:
    """Writes the files that the command line asks for."""
    terminal.accept_any_letter()
    parser = argparse.ArgumentParser(description="Writes a small data set in ToolBench's files.", allow_abbrev=False)
    parser.add_argument("--output_dir", type=paths.typed, required=True, help="gets the files")
    parser.add_argument("--num_queries", type=int, default=8, help="of each split")
    flags = parser.parse_args()
    try:
        write(Path(flags.output_dir), flags.num_queries)
    except OSError as error:
        raise SystemExit(f"error: {error}") from error
    print(f"Next: export ANYORDER_JAX_TOOLBENCH={paths.shown(flags.output_dir)}")


if __name__ == "__main__":
    main()
