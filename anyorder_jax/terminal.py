"""The terminal, whatever its encoding: what it cannot show is spelled, and no command ends because of a letter."""

from __future__ import annotations

import io
import sys


def accept_any_letter() -> None:
    """Call first in a command: stdout and stderr write `\\u6a21` for a letter that their encoding does not have."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
