"""Collection speed: episodes a second of `collect` beside the bare bot, on the same seeds, in one run.

    python benchmarks/collect_speed.py [--env=BabyAI-GoToObj-v0 --num_episodes=2000 --rounds=3]

The bare bot steps the unwrapped level and records nothing. `collect` is the whole call: starting the workers,
encoding, writing, hashing. Rounds are interleaved and the median counts, because the machine may be shared;
beside the clock stands CPU time (of all processes), which a neighbour disturbs less.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import gymnasium
from minigrid.utils.baby_ai_bot import BabyAIBot

from anyorder_jax.collect import Collection, collect


def bare_bot(environment_id: str, num_episodes: int) -> None:
    level = gymnasium.make(environment_id, disable_env_checker=True).unwrapped
    with contextlib.redirect_stdout(io.StringIO()):
        for seed in range(num_episodes):
            level.reset(seed=seed)
            bot = BabyAIBot(level)
            is_done = False
            while not is_done:
                _, _, is_terminated, is_truncated, _ = level.step(bot.replan())
                is_done = is_terminated or is_truncated


def whole_collect(environment_id: str, num_episodes: int, num_workers: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        wanted = Collection(environment_id, num_episodes, 0, 0, num_workers=num_workers)
        collect(wanted, Path(directory))


def cpu_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def measure(work: Callable[[], None]) -> tuple[float, float]:
    """(seconds on the clock, CPU seconds)."""
    clock, cpu = time.perf_counter(), cpu_seconds()
    work()
    return time.perf_counter() - clock, cpu_seconds() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--env", default="BabyAI-GoToObj-v0")
    parser.add_argument("--num_episodes", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    flags = parser.parse_args()
    subjects: dict[str, Callable[[], None]] = {
        "bare bot": lambda: bare_bot(flags.env, flags.num_episodes),
        "collect, 1 worker": lambda: whole_collect(flags.env, flags.num_episodes, 1),
        "collect, 2 workers": lambda: whole_collect(flags.env, flags.num_episodes, 2),
    }
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in subjects}
    for _ in range(flags.rounds):
        for name, work in subjects.items():
            seconds[name].append(measure(work))
    print(f"{flags.env}, {flags.num_episodes} episodes, median of {flags.rounds} rounds")
    rates = {
        name: [flags.num_episodes / statistics.median(pair[i] for pair in pairs) for i in (0, 1)]
        for name, pairs in seconds.items()
    }
    for name, (per_second, per_cpu_second) in rates.items():
        ratios = [mine / bare for mine, bare in zip(rates[name], rates["bare bot"], strict=True)]
        print(
            f"{name:20s} {per_second:6.0f} episodes/s ({ratios[0]:.2f} x bare)"
            f" {per_cpu_second:6.0f} episodes/CPU-s ({ratios[1]:.2f} x bare)"
        )


if __name__ == "__main__":
    main()
