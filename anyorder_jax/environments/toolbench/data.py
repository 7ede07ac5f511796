"""Data: ToolBench's instructions, read from the folder that ANYORDER_JAX_TOOLBENCH names, and the tasks of each split.

    DIR/test_instruction/G1_tool.json      [{query_id, query, api_list, "relevant APIs"}, ...]   six files: the tests
    DIR/test_query_ids/G1_tool.json        {query_id: ...}: where it is there, these alone of the file above
    DIR/instruction/G1_query.json          the same, to train on (G1, G2, G3); may be missing
    DIR/toolenv/tools/CATEGORY/TOOL.json   descriptions and parameters of APIs that an instruction only names; may be
                                           missing, as may toolenv/response_examples/CATEGORY/TOOL.json (schemas)

That is ToolBench's own `data`, or StableToolBench's `solvable_queries`. A task is FILE/QUERY_ID, e.g. G1_tool/588.

What a split is for holds of its training tasks: none is asked in any of the six tests, word for word or by its id;
those of `tool` use no tool of its tests, those of `category` no category of them. One of twenty is for validation.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from anyorder_jax.environments import options

PREFIX = "ToolBench-"
VARIABLE = "ANYORDER_JAX_TOOLBENCH"
SPLITS = ("G1_instruction", "G1_category", "G1_tool", "G2_instruction", "G2_category", "G3_instruction")
SCHEMAS = "-schemas"

_BLANK = re.compile(r"[\s,\[]*")
_VALIDATION = 20  # one task of so many


class Entry(NamedTuple):
    """Where an instruction stands, and what it is about. begin, end: bytes of the file. words: of the query."""

    file: Path
    begin: int
    end: int
    words: str
    tools: frozenset[str]
    categories: frozenset[str]


def ids() -> tuple[str, ...]:
    """One of each split, with signatures and with schemas."""
    return tuple(PREFIX + split.replace("_", "-") + how for split in SPLITS for how in ("", SCHEMAS))


def name_of(environment_id: str) -> tuple[str, bool]:
    """(split, whether the system text has whole schemas)."""
    name = options.plain(environment_id).removeprefix(PREFIX)
    return name.removesuffix(SCHEMAS).replace("-", "_"), name.endswith(SCHEMAS)


def directory() -> Path:
    """The folder with the data.

    Raises:
      RuntimeError: the variable names none, or one without instructions; says what to do.
    """
    named = os.environ.get(VARIABLE, "")
    found = Path(named).expanduser()
    if not named or not (found / "test_instruction").is_dir():
        what = f"{named} has no folder test_instruction" if named else "it is not set"
        raise RuntimeError(
            f"toolbench: {VARIABLE} should name the folder with ToolBench's test_instruction/ (its `data`, or "
            f"StableToolBench's `solvable_queries`): {what}. docs/tools.md says where it is had; `python -m "
            "anyorder_jax.environments.toolbench.sample DIRECTORY` writes a small one of our own."
        )
    return found


def tasks(environment_id: str) -> Mapping[str, Sequence[str]]:
    """The tasks of an id's train, validation and test split."""
    return _tasks(directory(), name_of(environment_id)[0])


@functools.cache
def _tasks(root: Path, split: str) -> Mapping[str, Sequence[str]]:
    tests = {name: entries(root, name) for name in SPLITS}
    asked = {entry.words for found in tests.values() for entry in found.values()}
    group, kind = split.split("_")
    numbers = {number for name, found in tests.items() if name.startswith(group) for number in found}
    held = frozenset[str]().union(*(_held(entry, kind) for entry in tests[split].values()))
    found: dict[str, list[str]] = {"train": [], "validation": []}
    for number, entry in entries(root, group).items():
        if number not in numbers and entry.words not in asked and not _held(entry, kind) & held:
            task = f"{group}/{number}"
            found["train" if zlib.crc32(task.encode()) % _VALIDATION else "validation"].append(task)
    return {**found, "test": [f"{split}/{number}" for number in tests[split]]}


def _held(entry: Entry, kind: str) -> frozenset[str]:
    """What a kind of split holds out of an instruction."""
    return {"instruction": frozenset[str](), "tool": entry.tools, "category": entry.categories}[kind]


def path_of(root: Path, name: str) -> Path:
    """The file of a split's tests ("G1_tool"), or of a group's training instructions ("G1")."""
    return root / "test_instruction" / f"{name}.json" if "_" in name else root / "instruction" / f"{name}_query.json"


@functools.cache
def entries(root: Path, name: str) -> Mapping[str, Entry]:
    """The instructions of a file by their ids, in its order; empty for one that is not there.

    Raises:
      ValueError: for a file that is no array of instructions; says where.
    """
    path = path_of(root, name)
    listed = root / "test_query_ids" / f"{name}.json"
    wanted = set(map(str, json.loads(listed.read_text(encoding="utf-8")))) if listed.is_file() else None
    if not path.is_file():
        return {}
    return {number: entry for number, entry in _entries(path) if wanted is None or number in wanted}


def _entries(path: Path) -> Iterator[tuple[str, Entry]]:
    """One instruction after the other, so that a large file is never held as objects. Read as Latin-1 a letter is a
    byte; texts are read again from theirs."""
    text, decoder = path.read_bytes().decode("latin-1"), json.JSONDecoder()
    place = _BLANK.match(text).end()  # type: ignore[union-attr]  # it matches everywhere
    while place < len(text) and text[place] != "]":
        try:
            _, end = decoder.raw_decode(text, place)
            query = json.loads(text[place:end].encode("latin-1").decode("utf-8"))
            apis = [(str(api["tool_name"]), str(api["category_name"])) for api in query["api_list"]]
            words = " ".join(str(query["query"]).casefold().split())
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}, byte {place}: expected an instruction with query, query_id and api_list "
                f"({type(error).__name__}: {error}). Is it ToolBench's file, whole?"
            ) from None
        tools, categories = (frozenset(names) for names in zip(*apis, strict=True)) if apis else (frozenset(),) * 2
        yield str(query.get("query_id", place)), Entry(path, place, end, words, tools, categories)
        place = _BLANK.match(text, end).end()  # type: ignore[union-attr]


@functools.lru_cache(maxsize=64)
def instruction(root: Path, task: str) -> Mapping[str, Any]:
    """A task's instruction as it stands in the data, what it lacks added from the API documents.

    Raises:
      ValueError: for a text that is no task.
    """
    name, _, number = task.partition("/")
    known = name in SPLITS or name in {split[:2] for split in SPLITS}
    entry = entries(root, name).get(number) if known else None
    if entry is None:
        raise ValueError(f"toolbench: expected a task like 'G1_tool/588' of {root}, got {task!r}")
    with entry.file.open("rb") as file:
        file.seek(entry.begin)
        found = json.loads(file.read(entry.end - entry.begin))
    return {**found, "api_list": [_documented(root, api) for api in found["api_list"]]}


def _documented(root: Path, api: Mapping[str, Any]) -> Mapping[str, Any]:
    """An API with its parameters and its response's schema, where its tool's documents have them."""
    place = (_folder(str(api["category_name"])), f"{_file(str(api['tool_name']))}.json")
    lacking = {**api}
    if "required_parameters" not in api:
        document = _of_tool(root / "toolenv" / "tools" / Path(*place), str(api["api_name"]))
        lacking |= {
            "required_parameters": document.get("required_parameters", []),
            "optional_parameters": document.get("optional_parameters", []),
            "api_description": api.get("api_description", document.get("description", "")),
        }
    if "template_response" not in api:
        document = _of_tool(root / "toolenv" / "response_examples" / Path(*place), str(api["api_name"]))
        lacking["template_response"] = document.get("schema", "")
    return lacking


def _folder(category: str) -> str:
    return re.sub(r"[ ,/]+", "_", category)


def _file(tool: str) -> str:
    found = re.sub("_+", "_", re.sub(r"[^a-zA-Z0-9_]", "_", tool)).lower().strip("_")
    return f"get_{found}" if found[:1].isdigit() else found


@functools.lru_cache(maxsize=1024)
def _of_tool(path: Path, api: str) -> Mapping[str, Any]:
    """What a tool's document says of an API; nothing where there is none."""
    if not path.is_file():
        return {}
    listed = json.loads(path.read_text(encoding="utf-8")).get("api_list", [])
    return next((found for found in listed if found.get("name") == api), {})


@functools.cache
def digest(root: Path) -> str:
    """Eight hex digits of the files with instructions."""
    hasher = hashlib.sha256()
    for name in (*SPLITS, "G1", "G2", "G3"):
        if path_of(root, name).is_file():
            with path_of(root, name).open("rb") as file:
                hasher.update(hashlib.file_digest(file, "sha256").digest())
    return hasher.hexdigest()[:8]
