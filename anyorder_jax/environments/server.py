"""Server: sessions of worlds of text in processes of their own, so that none can take the program along.

    program                         process 0   sessions 0 2 4
    submit(2, "step", unit)   ->    reads a line, does it, writes a line      a few sessions each, one thing at a time
    Future[TextStep]          <-    process 1   sessions 1 3 5

What goes wrong in a session is an answer (`SessionError`, with the reason), and ends its episode alone: an error in the
world, a process that dies, an answer that does not come in time. A dead or silent process is replaced; its other
sessions are put where they were by the same task and actions, for a world is a function of these.

The processes' side is `serving`.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

from anyorder_jax.environments import calls, registry
from anyorder_jax.environments.base import Start, TextStep
from anyorder_jax.environments.pool import worker_variables
from anyorder_jax.environments.serving import unit_from_json, unit_to_json
from anyorder_jax.types import Unit

VERBS = ("reset", "step", "parse_error", "advice", "valid_actions", "functions")
START_SECONDS = 120.0
"""Until a process has imported its world."""


class SessionError(RuntimeError):
    """A session that is over: its episode failed, for the reason that the message gives."""


class WorldError(RuntimeError):
    """A world that cannot be opened at all."""


class _DeadError(Exception):
    """A process that is gone, or does not answer in time."""


@dataclass
class _Session:
    """What was done in a session: enough to do it again. answers: to each of `requests`, in order."""

    requests: list[tuple[str, Any]] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)
    lost: str = ""


class _Process:
    """A process with sessions. Used by one thread at a time."""

    def __init__(self, environment_id: str, timeout_seconds: float) -> None:
        arguments = [environment_id, repr(timeout_seconds)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "anyorder_jax.environments.serving", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is the parent's; and what a world starts is killed with it
            env=worker_variables(),
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._requests, self._replies = self._process.stdin, self._process.stdout
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()
        found = self._line(START_SECONDS, "start")
        if "error" in found:
            self.close()
            raise WorldError(found["error"])

    def _read(self) -> None:
        for line in self._replies:
            self._lines.put(line)
        self._lines.put(b"")

    def _line(self, seconds: float, verb: str) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            raise _DeadError(f"no answer to {verb} within {seconds:g} seconds") from None
        if not line.endswith(b"\n"):
            raise _DeadError(f"its process died on {verb} ({_ending(self._process.wait())})")
        found: dict[str, Any] = json.loads(line)
        return found

    def ask(self, session: int, verb: str, argument: Any, seconds: float) -> Any:
        """The answer. Raises _DeadError, or SessionError for one that the world itself could not give."""
        line = json.dumps({"session": session, "verb": verb, "argument": argument}).encode() + b"\n"
        with contextlib.suppress(BrokenPipeError):  # then its answer does not come either
            self._requests.write(line)
            self._requests.flush()
        reply = self._line(seconds, verb)
        if "error" in reply:
            raise SessionError(reply["error"])
        return reply["answer"]

    def close(self) -> None:
        """Ends the process and what it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._requests, self._replies):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


class Sessions(Protocol):
    """What answers for the sessions of an environment: a `Server`, or `local.LocalServer`."""

    num_sessions: int

    def submit(self, session: int, verb: str, argument: Any = None) -> Future[Any]:
        """See `Server.submit`."""
        ...


class Server:
    """Sessions of one environment, numbered from 0.

    Args:
      environment_id: a registered world of text.
      num_sessions: episodes that can be played at a time, >= 1.
      num_processes: that hold them, >= 1; session s lies in process s % num_processes.
      timeout_seconds: for each answer.

    Raises:
      ValueError: no such world.
      WorldError: one that does not open; with what it said.
    """

    def __init__(
        self, environment_id: str, num_sessions: int, num_processes: int = 2, timeout_seconds: float = 30.0
    ) -> None:
        if not registry.is_text(environment_id):
            raise ValueError(f"server: {environment_id!r} is no registered world of text.")
        if num_sessions < 1 or num_processes < 1 or timeout_seconds <= 0:
            raise ValueError(
                "server: expected num_sessions >= 1, num_processes >= 1 and timeout_seconds > 0, got "
                f"{num_sessions}, {num_processes} and {timeout_seconds:g}."
            )
        self._environment_id, self._timeout = environment_id, timeout_seconds
        self.num_sessions, self.num_replaced = num_sessions, 0
        """num_replaced: processes that had to be."""
        self._sessions = [_Session() for _ in range(num_sessions)]
        count = min(num_processes, num_sessions)
        self._threads = [ThreadPoolExecutor(1) for _ in range(count)]
        self._processes: list[_Process | None] = [None] * count
        try:
            for opened in [thread.submit(self._open, p) for p, thread in enumerate(self._threads)]:
                opened.result()
        except _DeadError as error:
            self.close()
            raise WorldError(f"server: {environment_id}: {error}") from None
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends all processes; what was submitted and is not answered fails."""
        for thread in self._threads:
            thread.shutdown(wait=False, cancel_futures=True)
        for process in self._processes:
            if process is not None:
                process.close()

    def submit(self, session: int, verb: str, argument: Any = None) -> Future[Any]:
        """Asks a session, and does not wait; what is asked of one session is answered in order.

        Args:
          session: number, below `num_sessions`.
          verb: reset (argument: the task; Start), step (the action unit; TextStep), parse_error (a text; why it is no
            action, or ""), advice (units of the expert), valid_actions (texts), functions (that may be called).
          argument: see `verb`.

        Returns:
          The answer to come. Its `result()` raises SessionError for an episode that is over by it (and for every later
          question until the next reset); of the last three also where there are none, and then only
          the answer is missing.
        """
        assert verb in VERBS, verb
        return self._threads[session % len(self._threads)].submit(self._ask, session, verb, argument)

    def call(self, verb: str, arguments: Mapping[int, Any]) -> dict[int, Any]:
        """`submit` for several sessions (session -> argument), and all answers; a SessionError is an answer here."""
        asked = {session: self.submit(session, verb, argument) for session, argument in arguments.items()}
        found = {}
        for session, future in asked.items():
            try:
                found[session] = future.result()
            except SessionError as error:
                found[session] = error
        return found

    def _open(self, number: int) -> _Process:
        process = _Process(self._environment_id, self._timeout)
        self._processes[number] = process
        return process

    def _ask(self, number: int, verb: str, argument: Any) -> Any:
        session = self._sessions[number]
        if verb == "reset":
            session.requests, session.answers, session.lost = [], [], ""
        elif session.lost:
            raise SessionError(session.lost)
        sent = unit_to_json(argument) if isinstance(argument, Unit) else argument
        process = self._processes[number % len(self._threads)]
        assert process is not None
        try:
            answer = process.ask(number, verb, sent, self._timeout)
        except _DeadError as error:
            session.lost = f"{self._environment_id}: {error}"
            self._replace(number % len(self._threads))
            raise SessionError(session.lost) from None
        except SessionError as error:
            if verb in ("reset", "step"):
                session.lost = str(error)
            raise
        if verb in ("reset", "step"):
            session.requests.append((verb, sent))
            session.answers.append(answer)
        return _answer(verb, answer)

    def _replace(self, number: int) -> None:
        """A new process for a dead one, and its sessions where they were."""
        old = self._processes[number]
        assert old is not None
        old.close()
        self.num_replaced += 1
        mine = self._sessions[number :: len(self._threads)]
        try:
            process = self._open(number)
            for place, session in enumerate(mine):
                if not session.lost and session.requests:
                    self._replay(process, number + place * len(self._threads), session)
        except (_DeadError, WorldError) as error:
            for session in mine:
                session.lost = session.lost or f"{self._environment_id}: its process was lost with another's ({error})"

    def _replay(self, process: _Process, number: int, session: _Session) -> None:
        try:
            again = [process.ask(number, verb, sent, self._timeout) for verb, sent in session.requests]
        except SessionError as error:
            session.lost = str(error)
            return
        if again != session.answers:
            session.lost = f"{self._environment_id}: its process was lost, and the same actions led elsewhere"


def _ending(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _answer(verb: str, answer: Any) -> Any:
    if verb in ("reset", "step"):
        made = Start if verb == "reset" else TextStep
        return made(tuple(map(unit_from_json, answer[0])), *answer[1:])
    if verb == "functions":
        return calls.of_json(answer)
    return tuple(map(unit_from_json, answer)) if verb == "advice" else answer
