"""Grammar: what may follow in a call of one of some functions, letter by letter.

    {"name":"mv","arguments":{"so          open    "source" may follow, if mv has it
    {"name":"mv","arguments":{"size        dead    no parameter of mv begins so
    {"name":"mv","arguments":{}}           dead    mv needs a source
    {"name":"pwd","arguments":{}}          whole

A text that is whole is one that `environments.calls` takes. It is written as actions are: compactly, or with the
separators and tags of a chat template.
"""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Callable, Sequence

from anyorder_jax.data.chat_template import Calls
from anyorder_jax.environments.calls import MAX_DEPTH, MAX_ITEMS, Function, Parameter

COMPACT = Calls("", "", (",", ":"))

_LETTER = re.compile(r'[^"\\\x00-\x1f]|\\["\\/bfnrt]')  # what has no short escape is written as it is
_BEGUN_NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,14})?(?:(?<=\d)\.\d{0,12})?")
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?")
_FORMS = {"date": "0000-00-00", "time": "00:00"}


class State(enum.Enum):
    """Of a text: DEAD: no call begins so. OPEN: some do. WHOLE: it is one."""

    DEAD = 0
    OPEN = 1
    WHOLE = 2


class _Dead(Exception):  # noqa: N818 (an outcome)
    pass


class _Open(Exception):  # noqa: N818 (an outcome)
    pass


class Grammar:
    """Of calls of some functions.

    Args:
      functions: that may be called.
      calls: how calls are written.
    """

    def __init__(self, functions: Sequence[Function], calls: Calls = COMPACT) -> None:
        self._parameters = {function.name: function.parameters for function in functions}
        self._calls = calls

    def state(self, text: str, limit: int = 10**9) -> State:
        """What a text is.

        Args:
          text: the first letters of an action, or all of it.
          limit: from this letter on nothing may be written that could be left out: texts and lists end, and only
            required parameters follow. So what is begun comes to its end.
        """
        reader = _Reader(text, limit, self._calls.separators)
        try:
            reader.literal(self._calls.before)
            reader.literal(f'{{"name"{self._calls.separators[1]}"')
            name = reader.one_of([*self._parameters], '"')
            reader.literal(f'{self._calls.separators[0]}"arguments"{self._calls.separators[1]}')
            self._arguments(reader, self._parameters[name])
            reader.literal("}" + self._calls.after)
        except _Open:
            return State.OPEN
        except _Dead:
            return State.DEAD
        return State.WHOLE if reader.is_at_end() else State.DEAD

    def _arguments(self, reader: _Reader, parameters: Sequence[Parameter]) -> None:
        left = {_inner(parameter.name): parameter for parameter in parameters}
        reader.literal("{")
        is_first = True
        while True:
            required = [name for name, parameter in left.items() if parameter.is_required]
            if not required and (not left or reader.may_end()):
                reader.literal("}")
                return
            if not is_first:
                reader.literal(reader.separators[0])
            reader.literal('"')
            name = reader.one_of(required if reader.is_closing() and required else [*left], '"')
            reader.literal(reader.separators[1])
            _value(reader, left.pop(name))
            is_first = False


def _inner(text: str) -> str:
    """A text as JSON writes it, without its quotation marks."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


class _Reader:
    """Reads a text from its beginning; raises _Open where it ends, _Dead where it is none."""

    def __init__(self, text: str, limit: int, separators: tuple[str, str]) -> None:
        self._text, self._limit, self._at, self.separators = text, limit, 0, separators

    def is_at_end(self) -> bool:
        return self._at == len(self._text)

    def is_closing(self) -> bool:
        """Whether only what must be written still may."""
        return self._at >= self._limit

    def next(self) -> str:
        """The next letter."""
        if self.is_at_end():
            raise _Open
        return self._text[self._at]

    def may_end(self) -> bool:
        """Whether what has been read as a whole (a list, an object) ends here; where it need not and the text goes on
        otherwise, False."""
        return self.next() in "]}" or self.is_closing()

    def literal(self, wanted: str) -> None:
        found = self._text[self._at : self._at + len(wanted)]
        if found == wanted:
            self._at += len(wanted)
        elif wanted.startswith(found):
            raise _Open
        else:
            raise _Dead

    def one_of(self, names: Sequence[str], end: str = "") -> str:
        """The one of the names that stands here, with `end` behind it."""
        rest = self._text[self._at :]
        for name in names:
            if rest.startswith(name + end):
                self._at += len(name + end)
                return name
        if any((name + end).startswith(rest) for name in names):
            raise _Open
        raise _Dead

    def string(self) -> str:
        start = self._at
        self.literal('"')
        while not self.is_closing() and (found := _LETTER.match(self._text, self._at)):
            self._at = found.end()
        if self.is_at_end() or (not self.is_closing() and self._text[self._at :] == "\\"):
            raise _Open
        self.literal('"')
        return json.loads(self._text[start : self._at])

    def form(self, form: str) -> None:
        """A text of digits in a form ("00:00")."""
        self.literal('"')
        for letter in form:
            if letter != "0":
                self.literal(letter)
            elif self.next() in "0123456789":
                self._at += 1
            else:
                raise _Dead
        self.literal('"')

    def number(self, is_whole: bool, most: float) -> None:
        found = _BEGUN_NUMBER.match(self._text, self._at)
        assert found is not None
        begun, start = found[0], self._at
        self._at = found.end()
        digits = begun.strip("-").rstrip(".")
        if (digits and float(digits) > most) or (is_whole and "." in begun):
            raise _Dead
        last = self._at - 1
        if last > start and last >= self._limit and _NUMBER.fullmatch(begun[:-1]):
            raise _Dead  # it could have ended before
        if self.is_at_end():
            raise _Open
        if not _NUMBER.fullmatch(begun):
            raise _Dead

    def items(self, item: Callable[[], None], last: str) -> None:
        """Items with separators between them, up to a bracket; the opening one has been read."""
        if self.next() == last or self.is_closing():
            self.literal(last)
            return
        for number in range(1, MAX_ITEMS + 1):
            item()
            if number == MAX_ITEMS or self.may_end():
                self.literal(last)
                return
            self.literal(self.separators[0])


def _value(reader: _Reader, parameter: Parameter, depth: int = 0) -> None:
    """A value of a parameter's type."""
    kind = parameter.type
    if parameter.choices:
        reader.literal('"')
        reader.one_of([_inner(choice) for choice in parameter.choices], '"')
        return
    if parameter.is_text_too and reader.next() == '"':
        kind = "string"
    match kind:
        case "string":
            reader.string()
        case "date" | "time":
            reader.form(_FORMS[kind])
        case "integer" | "float":
            reader.number(kind == "integer", parameter.most)
        case "boolean":
            reader.one_of(("true", "false"))
        case "array":
            reader.literal("[")
            item = Parameter("", parameter.item_type or "any", True)
            reader.items(lambda: _value(reader, item, depth + 1), "]")
        case "dict":
            reader.literal("{")
            keys: set[str] = set()
            reader.items(lambda: _entry(reader, keys, depth + 1), "}")
        case _:
            begun = {'"': "string", "t": "boolean", "f": "boolean", "[": "array", "{": "dict"}
            found = begun.get(reader.next(), "float")
            if depth >= MAX_DEPTH - 1 and found in ("array", "dict"):
                raise _Dead
            _value(reader, Parameter("", found, True), depth)


def _entry(reader: _Reader, keys: set[str], depth: int) -> None:
    """An entry of an object, whose key is none of those before it."""
    key = reader.string()
    if key in keys:
        raise _Dead
    keys.add(key)
    reader.literal(reader.separators[1])
    _value(reader, Parameter("", "any", True), depth)
