"""What the ways of decoding give and cost, in a world of text: a trained run plays the same test tasks with each.

    python benchmarks/decoding_ways.py --checkpoint=runs/words --num_tasks=60
        [--ways=plain,reuse_prefix,guided,checked,planned,doubtful --wrong=0,0.3 --thresholds=0.95,1.01]

Two tables. `played`: success and forward passes an action, with each way; with a share `wrong` of what is shown of the
history (all observations but the newest) replaced by observations of other episodes, each by the same one for as long
as it is shown. `written`: actions and observations of the expert's episodes on these tasks, written with the prefix
reused and without: how many are the expert's, how many the same either way, and milliseconds for each. The run of
docs/babyai_in_words.md is meant; any run of text whose world opens will do. Writes
benchmarks/results/decoding_ways.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from anyorder_jax import keys, weights
from anyorder_jax.acting import evaluation
from anyorder_jax.acting.choosing import CHOICES
from anyorder_jax.acting.decoding import Decoding
from anyorder_jax.acting.episode import Decision, Episode
from anyorder_jax.acting.generator import Generator, with_decoding
from anyorder_jax.acting.policy import Advised, Generated, Policy
from anyorder_jax.acting.rollout import play
from anyorder_jax.data import sources
from anyorder_jax.environments.server import Server
from anyorder_jax.task import Task, open_task
from anyorder_jax.types import DECISION, ROLES, Kind, Trajectory, Unit
from benchmarks.about import about

RESULT = Path(__file__).parent / "results" / "decoding_ways.json"
NUM_OTHERS = 200
"""Training episodes from which wrong observations are taken."""


def arguments() -> argparse.Namespace:
    """What is measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--checkpoint", required=True, help="a run of text")
    parser.add_argument("--env", default="", help="its world (default: that of its episodes)")
    parser.add_argument("--num_tasks", type=int, default=60)
    parser.add_argument("--ways", default="plain,reuse_prefix,guided,checked,planned,doubtful", help='"": none')
    parser.add_argument("--wrong", default="0,0.3", help="shares of the history that are wrong")
    parser.add_argument("--thresholds", default="0.95,1.01", help="of `written`")
    parser.add_argument("--output", type=Path, default=RESULT)
    return parser.parse_args()


class Misled:
    """A policy that is shown a history some of whose observations are of other episodes."""

    def __init__(self, policy: Policy, share: float, others: Sequence[Unit]) -> None:
        self._policy, self._share, self._others = policy, share, others

    def act(self, episodes: Sequence[Episode]) -> Sequence[Decision]:
        """The policy's decisions."""
        return self._policy.act([dataclasses.replace(e, units=self._seen(e)) for e in episodes])

    def _seen(self, episode: Episode) -> list[Unit]:
        last = max((i for i, unit in enumerate(episode.units) if unit.kind in DECISION), default=-1)
        return [self._told(episode.task, i, unit) if i < last else unit for i, unit in enumerate(episode.units)]

    def _told(self, task: str, number: int, unit: Unit) -> Unit:
        rng = keys.generator(0, "wrong observation", *task.encode(), number)
        if unit.kind != Kind.OBSERVATION or rng.random() >= self._share:
            return unit
        return dataclasses.replace(unit, text=self._others[int(rng.integers(len(self._others)))].text)


def policy_of(way: str, task: Task, generator: Generator) -> Policy:
    """The policy of a way."""
    if way in CHOICES:
        return evaluation._choosing(task, generator, CHOICES[way])
    decoding = Decoding(reuse_prefix=way == "reuse_prefix")
    return Generated(with_decoding(generator, decoding), task.decision())


def played(task: Task, generator: Generator, server: Server, how: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each way and share of wrong history."""
    tasks = evaluation.tasks_of(task.directory, "test", how.num_tasks)
    train = play(server, evaluation.tasks_of(task.directory, "train", NUM_OTHERS), Advised())
    others = [unit for episode in train for unit in episode.units if unit.kind == Kind.OBSERVATION]
    rows = []
    for share in map(float, how.wrong.split(",")):
        for way in filter(None, how.ways.split(",")):
            begun = time.perf_counter()
            episodes = play(server, tasks, Misled(policy_of(way, task, generator), share, others))
            found = evaluation.measures(episodes)
            names = ("success", "passes_per_action", "steps")
            row = {"way": way, "wrong": share, **{n: found[n].as_json() for n in names if n in found}}
            rows.append(row | {"seconds": round(time.perf_counter() - begun, 1)})
            print(json.dumps(rows[-1]), flush=True)
    return rows


def written(task: Task, generator: Generator, server: Server, how: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each threshold."""
    seen: dict[Kind, list[Trajectory]] = {Kind.ACTION: [], Kind.OBSERVATION: []}
    expert: dict[Kind, list[str | None]] = {Kind.ACTION: [], Kind.OBSERVATION: []}
    for played_by_expert in play(server, evaluation.tasks_of(task.directory, "test", how.num_tasks), Advised()):
        episode = played_by_expert.trajectory()
        for i, unit in enumerate(episode.units):
            if unit.kind in seen and i > 1:
                seen[unit.kind].append(dataclasses.replace(episode, units=episode.units[:i]))
                expert[unit.kind].append(unit.text)
    rows = []
    for kind, threshold in itertools.product(seen, map(float, how.thresholds.split(","))):
        texts: dict[str, list[str | None]] = {}
        row: dict[str, Any] = {"written": ROLES[kind], "threshold": threshold, "units": len(seen[kind])}
        for name in ("exact", "reused", "exact", "reused"):  # the first round compiles
            generated = with_decoding(generator, Decoding(threshold=threshold, reuse_prefix=name == "reused"))
            begun = time.perf_counter()
            answers = generated.write(seen[kind], [(kind,)] * len(seen[kind]))
            milliseconds = 1e3 * (time.perf_counter() - begun) / len(seen[kind])
            texts[name] = [w.units[-1].text for w in answers]
            row[name] = {
                "is_the_experts": float(np.mean([a == b for a, b in zip(texts[name], expert[kind], strict=True)])),
                "passes": float(np.mean([w.num_passes for w in answers])), "milliseconds": round(milliseconds, 2),
            }  # fmt: skip
        row["is_same_text"] = float(np.mean([a == b for a, b in zip(*texts.values(), strict=True)]))
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows


def main() -> None:
    """Measures, prints a line for each row and writes the result."""
    how = arguments()
    config, model_config, params, tokenizer = weights.load_for_inference(how.checkpoint)
    task = open_task(config, tokenizer)
    generator = Generator(config, model_config, params, task)
    first = next(iter(sources.iterate_trajectories(task.directory, "test")))
    with Server(how.env or first.source["environment"], 32, 1, 120.0) as server:
        tables = {
            name: table(task, generator, server, how) for name, table in (("written", written), ("played", played))
        }
    result = {
        **about("decoding_ways"), "context_tokens": config.data.context_tokens,
        **tables,
    }  # fmt: skip
    how.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
