"""TextRenderer: units of plain text, of any world or none. What is written is the text itself, byte for byte.

    unit    'red mug\\n2 in stock'                 {"name":"buy","arguments":{"item":"mug","count":2}}
    line    |red mug\\n|2 in stock|                |{"name":"buy","arguments":{|"item":"mug",|"count":2|}}|
    word    |red| mug|\\n|2| in| stock|            |{"name":"buy","arguments":{|"item":"mug",|"count":2|}}|

In the JSON of a tool call every argument is a line of its own, so that one argument can be hidden and asked.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence

from anyorder_jax.types import TEXT_LEVELS, Field, Kind, Slot, Unit

_CALL_HEAD = re.compile(r'\{\s*"name"\s*:\s*"(?:[^"\\]|\\.)*"\s*,\s*"arguments"\s*:\s*\{')
_SPACE = re.compile(r"[\s]*")


class TextRenderer:
    """Between units of text and their parts: lines (or arguments of a tool call), and words."""

    name = "text"
    levels = TEXT_LEVELS
    is_running_text = True

    def lexicon(self) -> Mapping[Field, Sequence[str]]:
        """No word is known beforehand."""
        return {}

    def slots(self, unit: Unit) -> list[Slot]:
        """The unit's text in words, each with the white space before it; `cell` numbers lines, `attribute` words.

        Raises:
          ValueError: for a unit without text (structured data belongs to an environment's own renderer).
        """
        if unit.text is None:
            raise ValueError(
                f"text: the {unit.kind.name.lower()} of step {unit.step} has structured data and no text. Only the "
                "environment that wrote it can read it; name it in the record's source, or give the unit text."
            )
        slots: list[Slot] = []
        for number, line in enumerate(lines_of(unit.text)):
            for word in words_of(line):
                slots.append(Slot(word, Field.TEXT, number, len(slots)))
        return slots

    def call_parts(self, unit: Unit) -> list[str]:
        """A tool call as [head, argument, ..., end], its lines; empty for a unit that is none."""
        return _call_parts(unit.text or "")

    def unit(self, kind: Kind, step: int, words: Sequence[str]) -> Unit:
        """The unit that has these words: the inverse of `slots`, and never an error, for any text is one."""
        return Unit(kind, step, text="".join(words))


def lines_of(text: str) -> list[str]:
    """A text cut behind each newline, or a tool call cut into head, arguments and tail; joined they are the text."""
    return _call_parts(text) or text.splitlines(keepends=True)


def words_of(line: str) -> list[str]:
    """A line cut before the white space that precedes each word (as byte-pair tokens are); joined they are the line."""
    return re.findall(r"\s*\S+|\s+", line)


def _call_parts(text: str) -> list[str]:
    """[head, argument, ..., tail] of `{"name": ..., "arguments": {...}}`; empty for any other text."""
    head = _CALL_HEAD.match(text)
    if not head or not text.rstrip().endswith("}"):
        return []
    try:
        ends = list(_argument_ends(text, head.end()))
    except (ValueError, IndexError):
        return []
    borders = [0, head.end(), *ends, len(text)]
    return [text[start:end] for start, end in itertools.pairwise(borders) if end > start]


def _argument_ends(text: str, place: int) -> Iterator[int]:
    """Where each `"key": value,` of an object ends; `place` is behind its opening bracket."""
    decoder = json.JSONDecoder()
    while text[place := _skip(text, place)] != "}":
        if text[place] != '"':
            raise ValueError("expected a key")
        _, place = decoder.raw_decode(text, place)
        place = _skip(text, place)
        if text[place] != ":":
            raise ValueError("expected a colon")
        _, place = decoder.raw_decode(text, _skip(text, place + 1))
        if text[_skip(text, place)] == ",":
            place = _skip(text, place) + 1
        yield place


def _skip(text: str, place: int) -> int:
    match = _SPACE.match(text, place)
    return match.end() if match else place
