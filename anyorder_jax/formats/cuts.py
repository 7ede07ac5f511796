"""Cuts: recognises observations that a logger has cut off."""

from __future__ import annotations

import re

from anyorder_jax.formats.parts import loads

# Lengths in characters at which loggers cut (ToolBench: 1024, then "...").
_LENGTHS = frozenset((512, 1000, 1024, 1500, 2000, 2048, 3000, 4000, 4096, 5000, 8000, 8192, 10000, 16000, 16384, 20000,
                      30000, 32000, 32768, 50000, 65536, 100000))  # fmt: skip
_NOTE = re.compile(
    r"<response clipped>|[\[(<]\W*(?:output |response |content )?truncated|truncated[\])>]"
    r"|characters? (?:were |was )?(?:elided|truncated|omitted)",
    re.IGNORECASE,
)
_HINT = re.compile(r"[tT][rR][uU][nN][cC]|clipped|elided|omitted")  # of a note: quicker to look for
_NOTE_LENGTH = 400  # such notes stand at the end
_LONG = 256


def _has_note(text: str) -> bool:
    return _HINT.search(text) is not None and _NOTE.search(text) is not None


def is_cut(text: str) -> bool:
    """Whether an observation ends because its logger had a limit.

    So it is when it says so; when it is exactly as long as a usual limit, or that plus "..."; when it is long JSON
    that never closes; and when the `response` of a ToolBench result is one of these.
    """
    if len(text) < _LONG:
        return _has_note(text)
    ends_in_dots = text.endswith(("...", "\u2026"))
    if ends_in_dots and len(text) - (3 if text.endswith("...") else 1) in _LENGTHS:
        return True
    last = text.rstrip()[-1]
    if len(text) in _LENGTHS and last not in "}]\"'`" and not text.endswith("\n"):
        return True
    if text[0] in "{[" and last not in "}]" and (ends_in_dots or '": ' in text or "': " in text or '":' in text):
        return True
    if text.startswith('{"error"') and last == "}":
        content = loads(text)
        response = content.get("response") if isinstance(content, dict) else None
        if isinstance(response, str) and len(response) >= _LONG and is_cut(response):
            return True
    return _has_note(text[-_NOTE_LENGTH:])
