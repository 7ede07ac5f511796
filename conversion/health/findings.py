"""What was found: a fault, a doubt or a note, each with its name and a sentence."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

FAULT, DOUBT, NOTE = "fault", "doubt", "note"
"""fault: do not train from it. doubt: unusual, look at it; the verdict stays. note: worth knowing."""


class Finding(NamedTuple):
    """weight: FAULT, DOUBT or NOTE. name: of the kind of fault, for programs. sentence: for people."""

    weight: str
    name: str
    sentence: str


def some(items: Iterable[object], most: int = 4) -> str:
    """The first few of many, and how many more there are."""
    listed = [str(item) for item in items]
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")
