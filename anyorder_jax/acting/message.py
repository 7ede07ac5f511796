"""Message: where, in one text of the assistant, its thought ends and its action begins.

    I do not know the color.        I need two files.              It is a mug.
    Which color do you want?        {"name":"open",...}            ```bash
    -----------------------         ------------------             ls
    the last line                   a call                         ```  a fenced block

A served model writes both into one message, with nothing but a newline between them (`data.frames.ChatFrames`).
"""

from __future__ import annotations

import itertools
import json

from anyorder_jax.data.chat_template import Calls

FENCE = "```"


def action_start(text: str, calls: Calls | None) -> int:
    """The character at which the action begins: the first call, else a fenced block at the end, else the last line."""
    starts = list(itertools.accumulate((len(line) for line in text.splitlines(keepends=True)[:-1]), initial=0))
    if calls and (at := text.find(calls.before.lstrip())) >= 0:
        return at
    for start in starts:
        if text.startswith("{", start) and _is_call(text[start:]):
            return start
    fences = [start for start in starts if text.startswith(FENCE, start)]
    if len(fences) > 1 and fences[-1] == starts[-1]:
        return fences[-2]
    return starts[-1]


def _is_call(text: str) -> bool:
    try:
        content, _ = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(content, dict) and "name" in content
