"""Stream: the records of a JSON document of any size, one after the other, in little memory."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

_BLOCK = 2**20
_SPACE = re.compile(r"[\s,]*")
_DECODER = json.JSONDecoder()
_SLACK = 64  # an error so near to the end of what was read may only mean that more is to come


class BrokenError(ValueError):
    """The document is no JSON from here on."""


def broken_text(error: UnicodeDecodeError) -> str:
    """What is wrong with bytes that are no UTF-8, and what to do."""
    return f"no UTF-8 ({error}): write the file again as UTF-8"


def text_reader(file: BinaryIO, num_bytes: int) -> Callable[[], str]:
    """A function that gives the next piece of text of a file, and "" at the end.

    Args:
      file: open at the first byte.
      num_bytes: to read; -1: all.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    left = num_bytes

    def read() -> str:
        nonlocal left
        while left:
            block = file.read(_BLOCK if left < 0 else min(_BLOCK, left))
            if not block:
                break
            left -= len(block) if left > 0 else 0
            try:
                if text := decoder.decode(block):
                    return text
            except UnicodeDecodeError as error:
                raise BrokenError(broken_text(error)) from error
        return ""

    return read


def _num_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


class _Buffer:
    """Text that was read and not yet used."""

    def __init__(self, read: Callable[[], str]):
        self._read = read
        self.text, self.position, self.is_at_end = "", 0, False

    def more(self, num_characters: int) -> None:
        """Reads on, so that at least so many characters are there, if the document has them."""
        pieces = [self.text]
        length = len(self.text)
        while length < num_characters and not self.is_at_end:
            piece = self._read()
            self.is_at_end = not piece
            pieces.append(piece)
            length += len(piece)
        self.text = "".join(pieces)

    def skip_space(self) -> str:
        """Goes to the next character that is neither space nor comma, and gives it; "" at the end."""
        while True:
            found = _SPACE.match(self.text, self.position)
            assert found is not None
            self.position = found.end()
            if self.position < len(self.text) or self.is_at_end:
                return self.text[self.position : self.position + 1]
            self.more(len(self.text) + 1)

    def value(self) -> Any:
        """The JSON value at the position."""
        while True:
            try:
                value, self.position = _DECODER.raw_decode(self.text, self.position)
                return value
            except RecursionError as error:
                raise BrokenError("JSON that is nested too deeply") from error
            except json.JSONDecodeError as error:
                is_open = error.msg.startswith("Unterminated string") or error.pos >= len(self.text) - _SLACK
                if self.is_at_end or not is_open:
                    raise BrokenError(f"broken JSON ({error.msg})") from error
                self.more(2 * max(len(self.text) - self.position, _BLOCK) + self.position)


def elements(read: Callable[[], str], *, is_start: bool, has_end: bool) -> Iterator[tuple[Any, int, bool]]:
    """The records of a document: those of its array, or its values one after the other.

    Args:
      read: gives the next text.
      is_start: the text begins where the document does, else between two records.
      has_end: the text ends where the document does, so an array has to be closed.

    Yields:
      (record, bytes from the end of the one before to its end, whether the document is known to be an array).

    Raises:
      BrokenError: no JSON from here on, text behind the array's end, or an array without one.
    """
    buffer = _Buffer(read)
    buffer.more(1)
    buffer.position = int(is_start and buffer.text.startswith("\ufeff"))
    is_array = is_start and buffer.skip_space() == "["
    buffer.position += is_array
    mark = 0  # up to where the buffer was yielded
    while character := buffer.skip_space():
        if character == "]":
            buffer.position += 1
            if buffer.skip_space():
                raise BrokenError("broken JSON (text behind the end of the array)")
            return
        value = buffer.value()
        yield value, _num_bytes(buffer.text[mark : buffer.position]), is_array
        mark = buffer.position
        if mark > _BLOCK:
            buffer.text, buffer.position, mark = buffer.text[mark:], 0, 0
    if is_array and has_end:
        raise BrokenError("broken JSON (the array does not end: the file is cut off)")
