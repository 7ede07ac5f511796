"""Parts: the pieces of a turn, out of the many ways in which logs write content, calls and results."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Part(NamedTuple):
    """A piece of a turn. kind: "text" (may still be taken apart), "thought", "call", "action" (any other act) or
    "result". name, id: of a call, or of the call that a result answers, where the log says them."""

    kind: str
    text: str
    name: str | None = None
    id: str | None = None


@dataclass
class Reading:
    """What reading one record may do, and what it did. `counts` names what was dropped, repaired or marked.

    has_placeholders: "<image>" in a text stands for an image (the record lists images beside its turns).
    is_unfinished: the record is not learned from but gone on with, so the agent need not have spoken.
    """

    drop_images: bool = False
    is_unfinished: bool = False
    has_placeholders: bool = False
    counts: Counter[str] = field(default_factory=Counter)

    def image(self) -> None:
        """An image was met: counted where images are dropped, else a ValueError."""
        if not self.drop_images:
            raise ValueError("it holds an image, and only text can be trained on (--drop_images leaves images out)")
        self.counts["images"] += 1


def as_list(value: object) -> list[Any]:
    """A list as it is; anything else is none."""
    return value if isinstance(value, list) else []


def shown(value: object) -> str:
    """A value for an error message, at most 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "..."


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=str)


def loads(text: str) -> Any:
    """The value of a JSON text; None when it is none (or "null"), also for NaN and for absurd nesting."""
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError):
        return None


def dumps(value: Any) -> str:
    """Compact JSON with its letters and the order of its keys as they are."""
    return _ENCODER.encode(value)


def call(name: object, arguments: Any, call_id: object, reading: Reading) -> Part:
    """A call as a part; its text is {"name":...,"arguments":...}.

    Args:
      reading: counts what is odd.
      name: of the function.
      arguments: a JSON value, or a string of JSON; one that does not parse stays a string and is counted.
      call_id: as logged, or None.
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"a tool call has no name (got {shown(name)})")
    if isinstance(arguments, str):
        parsed = loads(arguments)
        if parsed is None and arguments.strip() != "null":
            reading.counts["invalid_arguments"] += 1
        else:
            arguments = parsed
    text = dumps({"name": name, "arguments": {} if arguments is None else arguments})
    return Part("call", text, name, identifier(call_id))


def identifier(value: object) -> str | None:
    """An id as text; None where there is none."""
    return str(value) if isinstance(value, (str, int)) and value != "" else None


def _first(item: Mapping[str, Any], *keys: str) -> Any:
    return next((item[key] for key in keys if item.get(key) is not None), None)


def call_of(item: Any, reading: Reading) -> Part:
    """A call as any of the formats writes one: the name may be deeper (`function`), the arguments under five names."""
    if not isinstance(item, dict):
        raise ValueError(f"a tool call: expected an object, got {shown(item)}")
    call_id = _first(item, "id", "toolCallId", "tool_call_id", "call_id")
    inner = next((item[key] for key in ("function", "custom") if isinstance(item.get(key), dict)), item)
    name = _first(inner, "name", "toolName", "tool_name", "function_name")
    return call(name, _first(inner, "arguments", "args", "input", "parameters", "kwargs"), call_id, reading)


def calls_in(text: str, reading: Reading) -> list[Part]:
    """The calls in a text that should be the JSON of one or of a list; one that is not stays as it is, counted."""
    content = loads(text)
    items = content if isinstance(content, list) else [content]
    if items and all(
        isinstance(item, dict) and isinstance(_first(item, "name", "function"), (str, dict)) for item in items
    ):
        return [call_of(item, reading) for item in items]
    reading.counts["invalid_calls"] += 1
    return [Part("call", text)]


def results_in(text: str, waiting: list[str | None]) -> list[Part]:
    """The results in one tool turn: some logs put those of parallel calls into a list, some into tags.

    Args:
      text: of the turn.
      waiting: names of the calls without a result; a list that fits them not is one result.
    """
    if text.lstrip().startswith("<tool_response>"):
        pieces = [piece.split("</tool_response>")[0].strip() for piece in text.split("<tool_response>")[1:]]
        return [Part("result", piece) for piece in pieces]
    if text.lstrip().startswith("[") and '"content"' in text:
        items = loads(text)
        if (
            isinstance(items, list)
            and 0 < len(items) <= len(waiting)
            and all(
                isinstance(i, dict) and "content" in i and ("tool_call_id" in i or i.get("name") in waiting)
                for i in items
            )
        ):
            return [
                Part("result", plain(i["content"]), i.get("name"), identifier(i.get("tool_call_id"))) for i in items
            ]
    return [Part("result", text)]


def plain(content: Any) -> str:
    """Text of a result: a string as it is, parts joined by newlines, any other JSON value compactly."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and content and all(isinstance(i, dict) and i.get("type") == "text" for i in content):
        return "\n".join(str(_first(item, "text", "value", "content") or "") for item in content)
    if isinstance(content, dict) and "value" in content and content.get("type") in ("text", "json", "error-text"):
        return plain(content["value"])
    return dumps(content)


_TEXT_TYPES = ("text", "input_text", "output_text", "refusal")
_THOUGHT_TYPES = ("reasoning", "thinking", "thought")
_CALL_TYPES = ("tool_call", "tool_use", "function_call", "function")
_RESULT_TYPES = ("tool_result", "tool_response", "function_call_output", "tool_output")
_IMAGE_TYPES = ("image", "image_url", "input_image", "image_file")


def _typed(item: Any, reading: Reading) -> list[Part]:
    if isinstance(item, str):
        return [Part("text", item)]
    if not isinstance(item, dict) or not isinstance(item.get("type", "text"), str):
        raise ValueError(f"a content part: expected text or an object with a type, got {shown(item)}")
    kind = item.get("type", "text").lower().replace("-", "_")
    if kind in _TEXT_TYPES or kind in _THOUGHT_TYPES:
        value = _first(item, "text", "thinking", "reasoning", "value", "content", "refusal")
        if value is None and kind in _THOUGHT_TYPES:
            return []  # encrypted
        if not isinstance(value, str):
            raise ValueError(f"a content part of type {item.get('type')!r}: expected text, got {shown(value)}")
        return [Part("text" if kind in _TEXT_TYPES else "thought", value)]
    if kind in _CALL_TYPES:
        value = item.get("value")
        return calls_in(value, reading) if isinstance(value, str) else [call_of(value or item, reading)]
    if kind in _RESULT_TYPES:
        content = _first(item, "content", "result", "output", "value")
        if isinstance(content, list):
            pictures = [i for i in content if isinstance(i, dict) and i.get("type") in _IMAGE_TYPES]
            for _ in pictures:
                reading.image()
            content = [i for i in content if i not in pictures]
        call_id = identifier(_first(item, "tool_use_id", "toolCallId", "tool_call_id", "call_id"))
        return [Part("result", plain(content), _first(item, "toolName", "name"), call_id)]
    if kind in _IMAGE_TYPES:
        reading.image()
        return []
    if kind == "redacted_thinking":
        return []
    raise ValueError(
        f"a content part has the type {item.get('type')!r}, which is no text, reasoning, call, result or image"
    )


def content_parts(content: Any, reading: Reading) -> list[Part]:
    """The parts of a turn's content: null, a string, a number (its JSON), or a list of strings and typed parts.

    Raises:
      ValueError: anything else, an unknown type, or an image where images are not dropped.
    """
    if content is None or content == "":
        return []
    if isinstance(content, str | int | float):
        parts = [Part("text", content if isinstance(content, str) else dumps(content))]
    elif isinstance(content, list):
        parts = [part for item in content for part in _typed(item, reading)]
    elif isinstance(content, dict):
        parts = _typed(content, reading) if "type" in content else [Part("text", dumps(content))]
    else:
        raise ValueError(f"content: expected null, text or a list of parts, got {shown(content)}")
    if reading.has_placeholders:
        parts = [p._replace(text=p.text.replace("<image>", "")) if p.kind == "text" else p for p in parts]
    return parts
