"""Response: what an agent says at the end of a task, in the four fields that the official scorer reads.

    send_msg_to_user('{"task_type": "NAVIGATE", "status": "SUCCESS"}')     the object itself
    send_msg_to_user('Quest Lumaflex Band')                                RETRIEVE, SUCCESS, ["Quest Lumaflex Band"]
    send_msg_to_user('["a", "b"]')                                         RETRIEVE, SUCCESS, ["a", "b"]
    report_infeasible('There is no such order.')                           RETRIEVE, NOT_FOUND_ERROR, with details

Nothing is taken from the task: what an agent does not say is never filled in from what is expected.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from anyorder_jax.environments.web.calls import Action

TASK_TYPES = ("RETRIEVE", "MUTATE", "NAVIGATE")
SUCCESS, NOT_FOUND = "SUCCESS", "NOT_FOUND_ERROR"
STATUSES = (
    SUCCESS, "ACTION_NOT_ALLOWED_ERROR", "PERMISSION_DENIED_ERROR", NOT_FOUND, "DATA_VALIDATION_ERROR", "UNKNOWN_ERROR",
)  # fmt: skip
ANSWERS = ("send_msg_to_user", "report_infeasible")
"""Actions that end an episode."""


class Response(NamedTuple):
    """task_type: one of TASK_TYPES. status: one of STATUSES. retrieved_data: a list of texts, numbers, truth values or
    objects, None where nothing was retrieved. error_details: why not, None for a success."""

    task_type: str
    status: str
    retrieved_data: list[Any] | None = None
    error_details: str | None = None

    def json(self) -> str:
        """As it stands in the file that is scored."""
        return json.dumps(self._asdict(), ensure_ascii=False, indent=1)

    def said(self) -> str:
        """The action that says it, as short as it can be written."""
        if self.task_type == "RETRIEVE" and self.status == SUCCESS and self.retrieved_data:
            data = self.retrieved_data
            text = data[0] if len(data) == 1 and _is_plain(data[0]) else json.dumps(data, ensure_ascii=False)
            return f"send_msg_to_user({text!r})"
        fields = {key: value for key, value in self._asdict().items() if value is not None}
        return f"send_msg_to_user({json.dumps(fields, ensure_ascii=False)!r})"


def of(action: Action) -> Response:
    """What an action says that ends an episode.

    Raises:
      ValueError: for an object with other fields or values; a sentence for the agent.
    """
    (text,) = action.arguments.values()
    found = _object(text)
    if isinstance(found, dict) and "task_type" in found:
        return _checked(found)
    if action.name == "report_infeasible":
        return Response("RETRIEVE", NOT_FOUND, None, text)
    if isinstance(found, list):
        return _checked({"task_type": "RETRIEVE", "status": SUCCESS, "retrieved_data": found})
    return Response("RETRIEVE", SUCCESS, [found if isinstance(found, dict) else text])


def _object(text: str) -> Any:
    """What a text is in JSON, if it is a list or an object."""
    if not text.strip().startswith(("{", "[")):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _is_plain(value: Any) -> bool:
    return isinstance(value, str) and _object(value) is None


def _checked(found: dict[str, Any]) -> Response:
    if unknown := [key for key in found if key not in Response._fields]:
        raise ValueError(f"an answer has the fields {', '.join(Response._fields)}, got {unknown[0][:40]!r}")
    kind, status = (str(found.get(key, "")).upper() for key in ("task_type", "status"))
    for name, value, known in (("task_type", kind, TASK_TYPES), ("status", status, STATUSES)):
        if value not in known:
            raise ValueError(f"{name} is one of {', '.join(known)}, got {value[:40]!r}")
    data, details = found.get("retrieved_data"), found.get("error_details")
    if not (data is None or isinstance(data, list)):
        raise ValueError("retrieved_data is a list or null")
    if not (details is None or isinstance(details, str)):
        raise ValueError("error_details is a text or null")
    return Response(kind, status, data, details)
