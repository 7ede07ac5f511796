"""Text: takes apart what agents write: thinking, calls in tags, "Thought: ... Action: ...", fenced actions."""

from __future__ import annotations

import re
from collections.abc import Sequence

from anyorder_jax.formats.parts import Part, Reading, call, calls_in

_REACT = re.compile(
    r"(?P<before>.*?)(?:^|\n)[ \t]*(?P<label>Action|ACTION|Act|Final Answer):[ \t]*(?P<action>.*)", re.DOTALL
)
_REACT_LABELS = ("Action:", "ACTION:", "Act:", "Final Answer:")
_INPUT = re.compile(r"(?P<name>[^\n]*?)[ \t]*\n\s*Action Input:\s*(?P<input>.*)", re.DOTALL)
_LABEL = re.compile(r"\s*(?:Thought:|THOUGHT:|Think:|DISCUSSION\b:?)\s*")
_FENCE = re.compile(r"^[ \t]*```[^\n`]*$", re.MULTILINE)
_TAG = re.compile(r"<(execute_\w+|execute|function)(?:=[^>\n]+)?>.*</\1>\s*$", re.DOTALL)
_TAGGED_CALL = re.compile(r"<tool_call>\s*\{")
_COMMANDS = re.compile(r"\b(action|bash|command|environment|execute|execution|shell|terminal|tool)s?\b", re.IGNORECASE)
_COMMAND_FENCE = re.compile(r"^```\w*(action|command)", re.MULTILINE)


def split_thinking(text: str) -> tuple[list[Part], str]:
    """(thoughts, the rest) of a turn that begins with <think>...</think>, once or more.

    The opening tag may be missing (some templates write it into the prompt) or the closing one (cut off).
    """
    thoughts: list[Part] = []
    rest = text
    while True:
        start = rest.lstrip()
        if start.startswith("<think>"):
            thought, tag, after = start[len("<think>") :].partition("</think>")
        elif not thoughts and "</think>" in rest and "<think>" not in rest:
            thought, tag, after = rest.partition("</think>")
        else:
            return thoughts, rest
        if thought.strip():
            thoughts.append(Part("thought", thought.strip()))
        rest = after.lstrip("\n")
        if not tag:
            return thoughts, ""


def _split_tagged_calls(text: str, reading: Reading) -> list[Part]:
    parts: list[Part] = []
    said, *rest = text.split("<tool_call>")
    for piece in ["", *rest]:
        if piece:
            inside, tag, after = piece.partition("</tool_call>")
            parts += calls_in(inside.strip(), reading)
            said = after if tag else ""
        if said.strip():
            parts.append(Part("text", said.strip()))
    return parts


def _unlabelled(text: str) -> str:
    """Without "Thought:" before it and space around it."""
    label = _LABEL.match(text)
    return text[label.end() if label else 0 :].strip()


def _react(text: str) -> re.Match[str] | None:
    return _REACT.fullmatch(text) if any(label in text for label in _REACT_LABELS) else None


def split_react(text: str, reading: Reading) -> list[Part] | None:
    """Thought and action of "Thought: ...\\nAction: ..."; None when there is no action.

    With "Action Input: ..." below, the action is a call of that name.
    """
    found = _react(text)
    if found is None or not found["action"].strip():
        return None
    thought = _unlabelled(found["before"])
    parts = [Part("thought", thought)] if thought else []
    action = found["action"].strip()
    with_input = _INPUT.fullmatch(action)
    if found["label"] == "Final Answer":
        parts.append(Part("text", f"Final Answer: {action}"))
    elif with_input and with_input["name"].strip():
        parts.append(call(with_input["name"].strip(), with_input["input"].strip(), None, reading))
    else:
        parts.append(Part("text", action))
    return parts


def split_block(text: str) -> list[Part] | None:
    """Thought and action of a turn that ends in its one fenced block (or <execute>, <function=...> tags); the fence
    with its language is part of the action. None when it does not."""
    fences = list(_FENCE.finditer(text))
    openers = [fence for fence in fences if fence[0].strip() != "```"]
    start = -1
    if len(fences) >= 2 and fences[-1][0].strip() == "```" and not text[fences[-1].end() :].strip():
        if len(openers) == 1:  # bare fences further inside are the action's own text
            start = openers[0].start()
        elif len(fences) == 2 and not openers:
            start = fences[0].start()
    if start < 0:
        tag = _TAG.search(text) if text.rstrip().endswith(">") else None
        if tag is None:
            return None
        start = tag.start()
    thought = _unlabelled(text[:start])
    return [*([Part("thought", thought)] if thought else []), Part("text", text[start:].strip())]


def style_of(agent_texts: Sequence[str], prompt: str) -> str:
    """How an agent that has no calls writes its actions: "react", "block" or "plain".

    Args:
      agent_texts: its turns, in order.
      prompt: what stands before the first of them.
    """
    texts = [split_thinking(text)[1] for text in agent_texts if text.strip()]
    if not texts:
        return "plain"
    num_react = sum(_react(text) is not None for text in texts)
    if num_react and 2 * num_react >= len(texts) - 1:  # the first may only say OK, the last only end it
        return "react"
    num_block = sum(split_block(text) is not None for text in texts)
    if num_block < max(1, 0.8 * (len(texts) - 1)):
        return "plain"
    if any(_TAG.search(text) for text in texts) or _COMMAND_FENCE.search("\n".join(texts)):
        return "block"
    is_asked_for = "```" in prompt and _COMMANDS.search(prompt) is not None
    return "block" if is_asked_for and len(texts) > 1 else "plain"  # else it is a chat about code


def agent_parts(text: str, style: str, reading: Reading) -> list[Part]:
    """The parts of what an agent wrote; what cannot be taken apart is one text, as it is."""
    thoughts, rest = split_thinking(text)
    if not rest.strip():
        return thoughts
    if _TAGGED_CALL.search(rest):
        return thoughts + _split_tagged_calls(rest, reading)
    parts = None
    if style == "react":
        parts = split_react(rest, reading)
    elif style == "block":
        parts = split_block(rest)
    return thoughts + (parts or [Part("text", rest)])
