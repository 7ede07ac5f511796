"""Serving: the process in which sessions of a world of text live. It reads questions from stdin, line by line.

    {"session": 2, "verb": "step", "argument": [3, 0, "buy a mug", null]}   ->   {"answer": ...} or {"error": sentence}

It ends when stdin closes (its parent was killed), even in an endless loop: a thread watches; and where Python itself
hangs, so that no thread of it runs, `faulthandler`, which needs none, ends it after the time limit.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import queue
import sys
import threading
from collections.abc import Sequence
from typing import Any

from anyorder_jax.environments import calls, registry
from anyorder_jax.environments.base import (
    ExpertError,
    HasExpert,
    HasFunctions,
    HasValidActions,
    TextEnvironment,
    parse_error,
    take,
)
from anyorder_jax.types import Kind, Unit


def unit_to_json(unit: Unit) -> list[Any]:
    """A unit as it goes over the pipe."""
    return [int(unit.kind), unit.step, unit.text, None if unit.data is None else dict(unit.data)]


def unit_from_json(found: Sequence[Any]) -> Unit:
    """The inverse of `unit_to_json`."""
    return Unit(Kind(found[0]), *found[1:])


def _do(session: TextEnvironment, verb: str, argument: Any) -> Any:
    match verb:
        case "reset":
            units = list(map(unit_to_json, session.reset(argument)))
            return [units, int(session.max_steps)]
        case "step":
            step = take(session, unit_from_json(argument))
            units = list(map(unit_to_json, step.units))
            return [units, float(step.reward), bool(step.is_done), bool(step.is_success), step.is_invalid]
        case "parse_error":
            return parse_error(session, argument)
        case "advice":
            if not isinstance(session, HasExpert):
                raise ExpertError(f"{session.id} has no expert")
            return list(map(unit_to_json, session.advice()))
        case "functions":
            if not isinstance(session, HasFunctions):
                raise ExpertError(f"the actions of {session.id} are no calls of functions")
            return calls.to_json(session.functions())
    if not isinstance(session, HasValidActions):
        raise ExpertError(f"{session.id} does not tell which actions are valid")
    return list(session.valid_actions())


def _serve(environment_id: str, timeout_seconds: float) -> None:
    """Answers the requests on stdin until it closes."""
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a world prints must not reach the replies
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def watch() -> None:
        for line in sys.stdin.buffer:
            requests.put(line)
        os._exit(0)  # the parent is gone, or wants no more

    def reply(content: dict[str, Any]) -> None:
        replies.write(json.dumps(content).encode() + b"\n")
        replies.flush()

    threading.Thread(target=watch, daemon=True).start()
    sessions: dict[int, TextEnvironment] = {}
    try:
        registry.make_session(environment_id).close()
    except Exception as error:
        reply({"error": f"{environment_id} does not open: {type(error).__name__}: {error}"})
        return
    reply({"answer": "ready"})
    while True:
        asked = json.loads(requests.get())
        number, verb = asked["session"], asked["verb"]
        faulthandler.dump_traceback_later(timeout_seconds + 5, exit=True)  # the parent gave up before
        try:
            if number not in sessions:
                sessions[number] = registry.make_session(environment_id)
            reply({"answer": _do(sessions[number], verb, asked["argument"])})
        except ExpertError as error:
            reply({"error": str(error)})
        except Exception as error:
            reply({"error": f"{environment_id}: {verb} failed: {type(error).__name__}: {error}"})
            with contextlib.suppress(Exception):
                sessions.pop(number).close()
        finally:
            faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    _serve(sys.argv[1], float(sys.argv[2]))
