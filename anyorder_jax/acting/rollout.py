"""Rollouts: many episodes over a server of sessions, those that wait for a decision decided together.

session 0   reset . . decide step . . . . decide step                a policy call decides for all that are ready;
session 1   reset . . decide step . . decide . . . step              a session that is done gets the next task
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from anyorder_jax.acting.episode import Episode
from anyorder_jax.acting.policy import Policy
from anyorder_jax.environments.base import Start
from anyorder_jax.environments.server import SessionError, Sessions

GATHER_SECONDS = 0.02
"""How long those that are ready wait for others: a forward pass over several costs little more than over one."""


def play(
    server: Sessions,
    tasks: Sequence[str],
    policy: Policy,
    on_end: Callable[[Episode], None] = lambda episode: None,
) -> list[Episode]:
    """Plays one episode of each task.

    Args:
      server: of the world; its sessions are free.
      tasks: names, any number of them, also the same several times.
      policy: decides. What it decides must not depend on which episodes are ready together.
      on_end: told of each episode that ends.

    Returns:
      The episodes in the order of the tasks, all done. One whose session crashed, hung or could not begin has failed,
      and its `reason` says why.
    """
    episodes: dict[int, Episode] = {}
    waiting: dict[Future[Any], int] = {}
    ready: list[int] = []
    coming = iter(enumerate(tasks))

    def begin(session: int) -> None:
        for number, task in coming:
            episodes[number] = Episode(task, server, session)
            waiting[episodes[number].ask("reset", task)] = number
            return

    def end(number: int) -> None:
        on_end(episodes[number])
        begin(episodes[number].session)

    for session in range(min(server.num_sessions, len(tasks))):
        begin(session)
    while waiting or ready:
        for future in _done(waiting, is_urgent=not ready):
            number = waiting.pop(future)
            _record(episodes[number], future)
            (end if episodes[number].is_done else ready.append)(number)
        if not ready:
            continue
        asked, ready = sorted(ready), []
        for number, decision in zip(asked, policy.act([episodes[n] for n in asked]), strict=True):
            begun = episodes[number].decide(decision)
            if begun is None:
                end(number)
            else:
                waiting[begun] = number
    return [episodes[number] for number in range(len(tasks))]


def _done(waiting: dict[Future[Any], int], is_urgent: bool) -> list[Future[Any]]:
    """The futures that are done: at least one where it is urgent, and those that are soon after it."""
    if is_urgent:
        concurrent.futures.wait(waiting, return_when=concurrent.futures.FIRST_COMPLETED)
    concurrent.futures.wait(waiting, timeout=GATHER_SECONDS)
    return [future for future in waiting if future.done()]


def _record(episode: Episode, future: Future[Any]) -> None:
    try:
        answer = future.result()
    except SessionError as error:
        episode.fail(str(error))
        return
    if isinstance(answer, Start):
        episode.begin(answer)
    else:
        episode.take(answer)
