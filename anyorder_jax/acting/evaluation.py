"""Acting in a world of text: the model beside the expert and policies without a model, on the same tasks."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from anyorder_jax import statistics
from anyorder_jax.acting import call_measures
from anyorder_jax.acting.choosing import Choosing, Chosen
from anyorder_jax.acting.constrained import Constrained
from anyorder_jax.acting.doubt import Doubt
from anyorder_jax.acting.episode import Episode
from anyorder_jax.acting.generator import Generator
from anyorder_jax.acting.names import CALL_MEASURES, TEXT_MEASURES
from anyorder_jax.acting.policy import Advised, Copied, Frequent, Generated, Policy, Random, Repeated, frequent_actions
from anyorder_jax.acting.rollout import play
from anyorder_jax.data import sources
from anyorder_jax.environments import registry
from anyorder_jax.environments.server import Server
from anyorder_jax.statistics import Estimate
from anyorder_jax.task import Task

MODEL, EXPERT = "model", "expert"
MAX_COUNTED = 2000
"""Training episodes whose actions are counted."""


@dataclass(frozen=True)
class Sessions:
    """How many episodes are played at a time, in how many processes, and the limit for each answer of a world."""

    num_sessions: int = 32
    num_processes: int = 2
    timeout_seconds: float = 30.0


def tasks_of(directory: Any, split: str, limit: int = 0) -> list[str]:
    """The tasks of a split's episodes (`source.task`, or the number in `source.seed`), the first `limit` (0: all).

    Raises:
      ValueError: for an episode that names none.
    """
    tasks = []
    for trajectory in itertools.islice(sources.iterate_trajectories(directory, split), limit or None):
        task = trajectory.source.get("task", trajectory.source.get("seed"))
        if task is None:
            raise ValueError(
                f"acting: {split} episode {trajectory.id} names no task (source.task), so none is replayed."
            )
        tasks.append(str(task))
    return tasks


def tasks_in(environment_id: str, recorded: Sequence[str], split: str, limit: int) -> list[str]:
    """The tasks of a run that a world has as well; where it has none of them, the first `limit` of its own list."""
    lists = registry.tasks(environment_id)
    if lists is None:  # every number is a task
        named = recorded if all(map(str.isdecimal, recorded)) else map(str, sources.seed_range(0, split))
        return list(itertools.islice(named, limit))
    listed = {task for tasks in lists.values() for task in tasks}
    return [task for task in recorded if task in listed] or list(lists[split][:limit])


def policies_of(
    task: Task,
    generator: Generator,
    seed: int = 0,
    choosing: Mapping[str, Choosing] | None = None,
    has_functions: bool = False,
) -> dict[str, Policy]:
    """The model (as "model/NAME" with other ways to choose), three policies without one, and the expert, by name.

    Args:
      task: of the run; the baselines count the actions of its training split.
      generator: of the checkpoint.
      seed: of random actions.
      choosing: other ways by name (`choosing.CHOICES`).
      has_functions: whether actions are calls (`registry.has_functions`): one more policy without a model.
    """
    episodes = sources.iterate_trajectories(task.directory, "train", on_bad=lambda sentence: None)
    every, first = frequent_actions(itertools.islice(episodes, MAX_COUNTED))
    return {
        MODEL: Generated(generator, task.decision()),
        **{f"{MODEL}/{n}": _choosing(task, generator, how) for n, how in (choosing or {}).items()},
        "random_valid": Random(seed),
        "most_frequent": Frequent(every),
        "repeat_last": Repeated(first),
        **({"copy_request": Copied()} if has_functions else {}),
        EXPERT: Advised(),
    }


def _choosing(task: Task, generator: Generator, how: Choosing) -> Policy:
    if how.is_constrained:
        return Constrained(generator, task.decision())
    if how.doubt:
        return Generated(generator, task.decision(), Doubt(generator, task.decision(), how.doubt))
    return Chosen(generator, task.decision(), how)


def evaluate(
    task: Task,
    generator: Generator,
    environment_id: str,
    tasks: Sequence[str],
    *,
    sessions: Sessions = Sessions(),
    seed: int = 0,
    choosing: Mapping[str, Choosing] | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Plays the same tasks with every policy.

    Args:
      task: the run's data: what a decision is, and the actions that the baselines count.
      generator: the checkpoint, and how its holes are filled.
      environment_id: a registered world of text.
      tasks: one an episode (`tasks_of`).
      sessions: how they are played.
      seed: of random actions.
      choosing: ways in which the model chooses beside plain writing, by name.
      say: told which policy plays.

    Returns:
      {"tasks": [...], "policies": {policy: {"measures": {measure: Estimate}, "reasons": {reason: episodes}, "episodes":
      [Episode]}}}; measures as `measures` says, and where calls were made `call_measures`.

    Raises:
      ValueError, WorldError: an unknown world, no task, or a world that does not open.
    """
    if not tasks:
        raise ValueError("acting: no task to play.")
    found: dict[str, dict[str, Any]] = {}
    has_functions = registry.has_functions(environment_id)
    count = min(sessions.num_sessions, len(tasks), registry.max_sessions(environment_id) or len(tasks))
    with Server(environment_id, count, sessions.num_processes, sessions.timeout_seconds) as server:
        for name, policy in policies_of(task, generator, seed, choosing, has_functions).items():
            say(f"acting: {name}, {len(tasks)} episodes")
            episodes = play(server, tasks, policy)
            reasons = collections.Counter(e.reason for e in episodes if e.reason)
            found[name] = {"measures": measures(episodes), "reasons": dict(reasons.most_common()), "episodes": episodes}
    if any(call_measures.has_calls(one["episodes"]) for one in found.values()):
        for one in found.values():
            one["measures"] |= call_measures.measures(one["episodes"])
    return {"tasks": list(tasks), "policies": found}


def as_json(found: Mapping[str, Any]) -> dict[str, Any]:
    """What `evaluate` found, for a report: {"measures": {policy: {measure: {"value", "low", "high", ...}}}, "reasons":
    {policy: {reason: episodes}}, "episodes": {policy: [{"task", "success", "return", "best_return", "steps", "invalid",
    "reason"}]}}.
    """
    policies = found["policies"]
    return {
        "measures": {n: {m: e.as_json() for m, e in one["measures"].items()} for n, one in policies.items()},
        "reasons": {n: one["reasons"] for n, one in policies.items()},
        "episodes": {
            n: [
                {"task": e.task, "success": e.is_success, "return": e.total_reward, "best_return": e.best_return,
                 "steps": e.num_steps,
                 "invalid": e.num_invalid, "reason": e.reason}
                for e in one["episodes"]
            ]
            for n, one in policies.items()
        },
    }  # fmt: skip


def write_played(directory: Path, environment_id: str, episodes: Sequence[Episode]) -> None:
    """Writes played episodes as a directory of episodes, its test split; the actions that the world did not take and
    what became of the episode stand in it as they were.

    Raises:
      OSError: when the disk refuses.
    """
    times: collections.Counter[str] = collections.Counter()
    lines, num_steps = [], 0
    for episode in episodes:
        if not episode.units:
            continue  # its session could not begin
        times[episode.task] += 1
        again = f"#{times[episode.task]}" if times[episode.task] > 1 else ""
        played = episode.trajectory()
        source = {"environment": environment_id, "policy": MODEL, **played.source}
        lines.append(sources.encode(replace(played, id=f"{environment_id}/{episode.task}{again}", source=source)))
        num_steps += episode.num_steps
    file = "test/shard-00000.jsonl"
    num_bytes, digest = sources.write_shard(directory / file, lines)
    shard = sources.Shard(file, len(lines), num_steps, num_bytes, digest)
    sources.write_manifest(directory, sources.Manifest(environment_id, {"policy": MODEL}, {"test": (shard,)}))


def table(found: Mapping[str, Any]) -> str:
    """A line for every measure, a column for every policy, and the reasons of episodes cut off, for a terminal."""
    policies = found["policies"]
    lines = [f"{'acting':18}" + "".join(f"{name:>20}" for name in policies)]
    is_of_calls = any(name in one["measures"] for one in policies.values() for name in CALL_MEASURES)
    for measure in TEXT_MEASURES + CALL_MEASURES * is_of_calls:
        cells = (one["measures"].get(measure) for one in policies.values())
        shown = ("-" if e is None else f"{e.value:.2f} [{e.low:.2f}, {e.high:.2f}]" for e in cells)
        lines.append(f"{measure:18}" + "".join(f"{cell:>20}" for cell in shown))
    for name, one in policies.items():
        lines += [f"{name}: {count} x {reason}" for reason, count in one["reasons"].items()]
    return "\n".join(lines)


def measures(episodes: Sequence[Episode]) -> dict[str, Estimate]:
    """What came of episodes.

    success             share of episodes solved (Wilson's interval; the others are bootstrapped over episodes)
    return              mean sum of rewards; of a world that keeps a score, the final score
    best_return         mean of the highest sum on the way: the best score reached
    steps               mean number of actions
    cut_off             share of episodes that the world did not end: out of steps, a session that crashed or hung, a
                        policy that gave up (the reasons are counted beside)
    invalid             share of actions that the world did not take
    repeated            share of actions that were done before at the same evidence
    repaired            share of actions that did not parse and were written anew
    passes_per_action   forward passes
    tokens_per_action   tokens written, thoughts and first ends included
    """
    steps_E = np.array([e.num_steps for e in episodes], float)

    def per_action(count: Callable[[Episode], float], is_share: bool = True) -> Estimate | None:
        return statistics.ratio(np.array([count(e) for e in episodes], float), steps_E, is_proportion=is_share)

    found: dict[str, Estimate | None] = {
        "success": statistics.success_rate(np.array([e.is_success for e in episodes])),
        "return": statistics.mean(np.array([e.total_reward for e in episodes])),
        "best_return": statistics.mean(np.array([e.best_return for e in episodes])),
        "steps": statistics.mean(steps_E),
        "cut_off": statistics.success_rate(np.array([bool(e.reason) for e in episodes])),
        "invalid": per_action(lambda e: e.num_invalid),
        "repeated": per_action(lambda e: e.num_repeated),
        "repaired": per_action(lambda e: sum(d.num_repairs for d in e.decisions)),
        "passes_per_action": per_action(lambda e: sum(d.num_passes for d in e.decisions), False),
        "tokens_per_action": per_action(lambda e: sum(d.num_tokens for d in e.decisions), False),
    }
    return {name: found[name] for name in TEXT_MEASURES if found[name] is not None}  # type: ignore[misc]
