"""Literal text: a tokenizer's backend that reads what spells a special token as the text that it is."""

from __future__ import annotations

import copy
import itertools
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from tokenizers import Tokenizer, pre_tokenizers


def as_text(tokenizer: Any) -> Tokenizer:
    """A copy of the tokenizer that reads special tokens as the text that spells them."""
    literal = copy.deepcopy(tokenizer.backend_tokenizer)
    literal.encode_special_tokens = True
    literal.no_truncation()
    literal.no_padding()
    return literal


def is_lossless(backend: Tokenizer) -> bool:
    """Whether any text comes back from its ids as it was: a byte-level tokenizer that changes nothing and knows every
    byte."""
    state = json.loads(backend.to_str())
    before = state["pre_tokenizer"] or {}
    steps = before["pretokenizers"] if before.get("type") == "Sequence" else [before]
    byte_level = [step for step in steps if step.get("type") == "ByteLevel"]
    return (
        state["normalizer"] is None
        and bool(byte_level)
        and not any(step["add_prefix_space"] for step in byte_level)
        and (state["decoder"] or {}).get("type") == "ByteLevel"
        and set(pre_tokenizers.ByteLevel.alphabet()) <= backend.get_vocab().keys()
    )


def cut(text: str, reserved: re.Pattern[str]) -> list[tuple[int, str]]:
    """(start, part) of the text, cut inside whatever spells a reserved token: halves of it spell none.

    "a <mask> b" -> (0, "a <"), (3, "mask> b"). Tokenizers that heed `encode_special_tokens` need no cut, but those with
    reserved tokens among their ordinary ones do.
    """
    borders = [0, *(match.start() + 1 for match in reserved.finditer(text)), len(text)]
    return [(a, text[a:b]) for a, b in itertools.pairwise(borders) if b > a]


def num_spaces(text: str) -> int:
    """White space before the first other character; 0 where there is nothing else."""
    stripped = text.lstrip()
    return len(text) - len(stripped) if stripped else 0


def without_reserved(texts: Iterable[str], reserved: Sequence[str]) -> Iterable[str]:
    """The texts in parts that spell none of the reserved tokens."""
    pattern = re.compile("|".join(map(re.escape, reserved)))
    return (part for text in texts for _, part in cut(text, pattern))
