"""Frames: what stands around the units of a text and is never hidden, and the token that ends a unit.

    markers   <goal> Buy a mug. E E <observation> A shop. E <action> buy E E
    chat      <role>HUMAN</role> Buy a mug. E E \\n A shop. R E <role>ASSISTANT</role> buy R E

E is the tokenizer's end-of-text token, R what a chat template closes a message with (`<|role_end|>`, `<|im_end|>`).
What the assistant says in one message has no end-of-text inside, where a server would stop: a thought is followed by a
newline and the action.

    chat      <role>ASSISTANT</role> It is a mug. \\n buy R E
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from anyorder_jax.data.chat_template import (
    ASSISTANT,
    JOINT,
    NEXT_ROLE,
    SYSTEM,
    TOOL,
    USER,
    Calls,
    ChatTemplate,
    Pair,
)
from anyorder_jax.types import DECISION, Kind

VERSION = 2
"""Of chat frames; see `ChatFrames`."""


class Around(NamedTuple):
    """frame: token ids before a unit. end: the id of the first of its end tokens; the others are end-of-text. joint:
    text that follows the unit's own in place of end tokens, where the message goes on; its tokens are the unit's."""

    frame: tuple[int, ...]
    end: int
    joint: str = ""


class Frames(Protocol):
    """end_ids: every token that may end a unit. calls: how tool calls are written, where not as records write them."""

    end_ids: frozenset[int]
    calls: Calls | None

    def around(self, kinds: Sequence[Kind]) -> list[Around]:
        """Of each unit of a trajectory, which begins with its first one. Raises ValueError for kinds that cannot stand
        in such an order."""
        ...

    def content(self) -> list[Any]:
        """What a digest of them is made of."""
        ...


class Markers:
    """Markers of our own, one before each unit.

    Args:
      ids: of the marker of every kind.
      end_id: ends every unit.
    """

    def __init__(self, ids: Mapping[Kind, tuple[int, ...]], end_id: int) -> None:
        self._around = {kind: Around(frame, end_id) for kind, frame in ids.items()}
        self.calls: Calls | None = None
        self.end_ids = frozenset((end_id,))

    def around(self, kinds: Sequence[Kind]) -> list[Around]:
        """See `Frames`."""
        return [self._around[kind] for kind in kinds]

    def content(self) -> list[Any]:
        """See `Frames`."""
        return [list(self._around[kind].frame) for kind in Kind]


class ChatFrames:
    """The frames of a tokenizer's own chat template, so that a model is trained on what it is served.

    System text is a system message where the template has one and it comes first; thoughts and actions are the
    assistant's; tool results are tool messages where the template has those; all else is the user's. Units of one side
    in a row share a message, a newline between them (tool messages excepted), since many templates want the sides to
    alternate. What the template writes between two contents stands before the second one. Where that begins with a
    special token that closes the message, this token is the end of the first unit, as a served model ends its answer.
    Inside a message of the assistant nothing ends: a newline follows the unit's text, and is a token of it. Inside a
    message of the user the end is the end-of-text token. Tool calls are written as the template writes them, where it
    has tool messages and writes calls as JSON between tags.

    Only the roles in a row count, not the texts. A template that writes something else between the same two roles
    elsewhere in a conversation is refused.

    Args:
      tokenizer: a transformers tokenizer with a chat template.
      end_id: end-of-text.
      reserved_ids: of special tokens, which no text becomes.
      version: 1: as the first runs with chat frames have them, with end-of-text inside the assistant's messages too and
        calls as JSON; 2: as above.

    Raises:
      ValueError: no template, or one whose frames depend on more than roles.
    """

    def __init__(self, tokenizer: Any, end_id: int, reserved_ids: frozenset[int], version: int = VERSION) -> None:
        if not tokenizer.chat_template:
            raise ValueError(
                "config.data.frames: 'chat' takes a tokenizer with a chat template, and this one has none. Name a "
                "model's (model.path, data.tokenizer), or use data.frames=markers."
            )
        template = ChatTemplate(tokenizer)
        self._end_id, self._version = end_id, version
        self.calls: Calls | None = None
        self._joint = tuple(tokenizer.encode("\n", add_special_tokens=False))
        self._has_system = template.has_system()
        roles = [USER, ASSISTANT, *[SYSTEM] * self._has_system, *[TOOL] * template.has_tool(self._has_system)]
        if version > 1 and TOOL in roles:
            self.calls = template.calls(self._has_system)
        pairs = [(a, b) for a in (None, *roles) for b in (*roles, None) if a or b]
        texts = {pair: found for pair in pairs if (found := template.between(pair, self._has_system))}
        for core in ((None, USER), (USER, ASSISTANT), (ASSISTANT, USER)):
            if core not in texts:
                raise ValueError(
                    f"config.data.frames: the chat template of the tokenizer has no place {_where(core)}: "
                    f"{template.error or 'it leaves contents out'}. Use data.frames=markers, or another template."
                )
            if len(texts[core]) > 1:
                raise ValueError(_depends(core, texts[core]))
        ids = {
            pair: tuple(tokenizer.encode(next(iter(found)), add_special_tokens=False))
            for pair, found in texts.items()
            if len(found) == 1
        }
        closing = {a: ids[a, b][0] for a, b in ids if b is None and ids[a, b] and ids[a, b][0] in reserved_ids}
        self._around: dict[Pair, Around | str] = {
            (a, b): self._split(ids[a, b], closing.get(a)) if (a, b) in ids else _depends((a, b), found)
            for (a, b), found in texts.items()
            if b
        }
        self._last = dict.fromkeys(roles, end_id)
        for role in roles:
            then = self._around.get((role, NEXT_ROLE[role]))
            if isinstance(then, Around):
                self._last[role] = then.end
        self.end_ids = frozenset((end_id, *self._last.values()))

    def around(self, kinds: Sequence[Kind]) -> list[Around]:
        """See `Frames`. Raises ValueError where the template has no such message after the one before it."""
        found: list[Around] = []
        role: str | None = None
        for kind in kinds:
            before, role = role, self._role(kind, role)
            frame, end, joint = self._joint, self._end_id, ""
            if self._version > 1 and before == role == ASSISTANT:
                frame, joint = (), JOINT
            if before != role or (role == TOOL and kind is Kind.TOOL):
                split = self._around.get((before, role))
                if split is None:
                    raise ValueError(
                        f"frames: the chat template has no place {_where((before, role))}. Use data.frames=markers, or "
                        "leave such records out (data.on_bad_record=skip)."
                    )
                if isinstance(split, str):
                    raise ValueError(split)
                frame, end, joint = split
            if found:
                found[-1] = found[-1]._replace(end=end, joint=joint)
            found.append(Around(frame, self._last[role]))
        return found

    def content(self) -> list[Any]:
        """See `Frames`."""
        splits = [[str(a), b, split if isinstance(split, str) else split[:2]] for (a, b), split in self._around.items()]
        found = [self._joint, sorted(splits)]
        if self._version > 1:
            found.append([JOINT, *([self.calls.before, self.calls.after, self.calls.separators] if self.calls else [])])
        return found

    def _role(self, kind: Kind, open_role: str | None) -> str:
        """The role of the message that a unit of this kind belongs to, behind a message of `open_role`."""
        if kind in DECISION:
            return ASSISTANT
        if kind is Kind.SYSTEM and self._has_system and open_role in (None, SYSTEM):
            return SYSTEM
        if kind is Kind.TOOL and (open_role, TOOL) in self._around:
            return TOOL
        if open_role == TOOL and (TOOL, USER) not in self._around:
            return TOOL  # no user may follow a tool: on the same side, joined
        return USER

    def _split(self, ids: tuple[int, ...], closing: int | None) -> Around:
        """The ids between two contents as the end of the first and the frame before the second."""
        if len(ids) > 1 and ids[0] == closing:
            return Around(ids[1:], ids[0])
        return Around(ids, self._end_id)  # nothing closes, or nothing would be left to open the second message


def _where(pair: Pair) -> str:
    before, after = pair
    return f"for {after} after {before}" if before else f"for {after} at the beginning"


def _depends(pair: Pair, found: Collection[str]) -> str:
    one, other = sorted(found)[:2]
    return (
        f"config.data.frames: the chat template writes {one!r} or {other!r} {_where(pair)}: that depends on more than "
        "these roles, so what is served could not be foreseen. Use data.frames=markers, or another template."
    )
