"""The terminal, whatever its encoding: what it cannot show is spelled, and no command ends because of a letter."""

from __future__ import annotations

import codecs
import io
import sys

_SPELLED = "anyorder_jax.spelled"


def accept_any_letter() -> None:
    """Call first in a command: stdout and stderr write `\\u6a21` for a letter that their encoding does not have."""
    codecs.register_error(_SPELLED, _spell)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_SPELLED)


def _spell(error: UnicodeError) -> tuple[str | bytes, int]:
    """What stands for letters that cannot be encoded; bytes of a file's name that were no text stay what they are."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    spelled = b""
    for letter in error.object[error.start : error.end]:
        is_byte = 0xDC80 <= ord(letter) <= 0xDCFF
        spelled += letter.encode("ascii", "surrogateescape" if is_byte else "backslashreplace")
    return spelled, error.end
