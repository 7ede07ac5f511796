"""MiniWoB++: how often the experts succeed, how fast they play, whether episodes repeat, whether browsers stay behind.

    python benchmarks/miniwob.py [--only=experts,axes,repeats,speed,kills]      10 minutes; results/miniwob.json

experts   every expert on 20 test seeds: successes, steps, and characters of its pages
axes      every expert on one test seed under each option of `folds.OPTIONS`: what an agent can be compared with
repeats   60 kinds, each in three fresh browsers that play them in different orders: how many are the same, byte by byte
speed     steps a second of one process and of two at once, in turns; the reset of each episode is in it
kills     100 processes with an open page are killed: browsers and zombies that are left

Each part replaces its own entry of the file, with the load of the machine at that time.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from anyorder_jax.data import sources
from anyorder_jax.environments import registry
from anyorder_jax.environments.base import ExpertError, TextEnvironment
from anyorder_jax.environments.miniwob.experts import EXPERTS
from anyorder_jax.environments.miniwob.folds import OPTIONS, SEEDS
from anyorder_jax.environments.play import play_text_episode
from anyorder_jax.types import Kind, Trajectory

RESULT = Path(__file__).parent / "results" / "miniwob.json"
TEST = SEEDS["test"].start
ROUNDS, EPISODES = 3, 178
PAGE_OPEN = (
    "import sys; from anyorder_jax.environments import registry;"
    "s = registry.make_session('MiniWoB-all'); s.reset('click-button/0'); print('open', flush=True); sys.stdin.read()"
)


def played(session: TextEnvironment, task: str) -> Trajectory | None:
    """The expert's episode, None where it fails."""
    try:
        return play_text_episode(session, task)
    except ExpertError:
        return None


def experts(num_seeds: int) -> dict[str, Any]:
    session = registry.make_session("MiniWoB-experts")
    kinds: dict[str, Any] = {}
    for kind in EXPERTS:
        done = [t for n in range(num_seeds) if (t := played(session, f"{kind}/{TEST + n}"))]
        pages = [len(u.text or "") for t in done for u in t.units if u.kind is Kind.OBSERVATION]
        kinds[kind] = {
            "successes": len(done),
            "mean_steps": statistics.mean(t.outcome["num_steps"] for t in done) if done else None,
            "mean_characters": round(statistics.mean(pages)) if pages else None,
        }
        print(kind, kinds[kind], flush=True)
    session.close()
    enough = sum(one["successes"] >= 0.95 * num_seeds for one in kinds.values())
    return {"num_seeds": num_seeds, "kinds_with_95_percent": enough, "kinds": kinds}


def axes(num_seeds: int) -> dict[str, Any]:
    found = {}
    for axis in ("", *(f"+{name}{'=' * bool(value)}{value}" for name, values in OPTIONS.items() for value in values)):
        session = registry.make_session(f"MiniWoB-experts{axis}")
        failed = [f"{k}/{n}" for k in EXPERTS for n in range(num_seeds) if not played(session, f"{k}/{TEST + n}")]
        session.close()
        found[axis or "plain"] = {"success": 1 - len(failed) / len(EXPERTS) / num_seeds, "failed": failed}
        print(axis, found[axis or "plain"]["success"], flush=True)
    return {"num_seeds": num_seeds, "axes": found}


def repeats(num_kinds: int) -> dict[str, Any]:
    lines = defaultdict(set)
    tasks = [f"{kind}/{TEST}" for kind in list(EXPERTS)[:num_kinds]]
    for number in range(3):
        random.Random(number).shuffle(tasks)
        session = registry.make_session("MiniWoB-experts")
        for task in tasks:
            trajectory = played(session, task)
            lines[task].add(sources.encode(trajectory) if trajectory else b"")
        session.close()
    return {"num_tasks": num_kinds, "num_same": sum(len(one) == 1 for one in lines.values())}


def tasks_of(number: int) -> Iterator[str]:
    for n in range(EPISODES // 2):
        yield f"{list(EXPERTS)[n % len(EXPERTS)]}/{2 * n + number}"


def serve(number: int) -> None:
    """A process that plays its half of the episodes for each line, and answers with its steps."""
    session = registry.make_session("MiniWoB-experts")
    session.reset("click-button/0")
    print("ready", flush=True)
    for _ in sys.stdin:
        done = [played(session, task) for task in tasks_of(number)]
        print(sum(t.outcome["num_steps"] for t in done if t), flush=True)
    os._exit(0)


def speed() -> dict[str, Any]:
    command = [sys.executable, __file__, "--serve"]
    players = [
        subprocess.Popen([*command, str(n)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8")
        for n in range(2)
    ]

    def steps_a_second(some: list[subprocess.Popen[str]]) -> float:
        begun = time.perf_counter()
        for player in some:
            assert player.stdin is not None
            player.stdin.write("\n")
            player.stdin.flush()
        steps = sum(int(player.stdout.readline()) for player in some if player.stdout is not None)
        return steps / (time.perf_counter() - begun)

    for player in players:
        assert player.stdout is not None and player.stdout.readline() == "ready\n"
    rounds = [{"one": steps_a_second(players[:1]), "two": steps_a_second(players)} for _ in range(ROUNDS)]
    for player in players:
        player.kill()
        player.wait()
    return {
        "rounds": rounds,
        "steps_per_second": statistics.median(one["one"] for one in rounds),
        "two_over_one": statistics.median(one["two"] / one["one"] for one in rounds),
    }


def browsers() -> dict[int, str]:
    """Browsers of ours, and whether each is a zombie. Linux."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state = (folder / "stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0]
            line = (folder / "cmdline").read_bytes()
            name = (folder / "comm").read_text(encoding="utf-8")
        except OSError:
            continue
        if b"anyorder-chromium" in line or (state == "Z" and "chrom" in name):
            found[int(folder.name)] = state
    return found


def kills(num: int) -> dict[str, Any]:
    before = set(browsers())
    command = [sys.executable, "-c", PAGE_OPEN]
    for _ in range(num // 4):
        some = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(4)]
        for process in some:
            assert process.stdout is not None and process.stdout.readline() == b"open\n"
            process.kill()
            process.communicate()
    deadline = time.monotonic() + 60
    while (left := set(browsers()) - before) and time.monotonic() < deadline:
        time.sleep(0.1)
    states = browsers()
    return {"num_killed": num, "num_left": len(left), "states": sorted(states[p] for p in left if p in states)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="experts,axes,repeats,speed,kills")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        serve(options.serve)
    parts = {
        "experts": lambda: experts(20),
        "axes": lambda: axes(1),
        "repeats": lambda: repeats(60),
        "speed": speed,
        "kills": lambda: kills(100),
    }
    found = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    version = registry.make_session("MiniWoB-all").version
    for name in options.only.split(","):
        begun = time.perf_counter()
        found[name] = parts[name]() | {"version": version, "load_average": os.getloadavg(), "num_cpus": os.cpu_count()}
        found[name]["seconds"] = round(time.perf_counter() - begun)
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        print(json.dumps({name: found[name]}, indent=2))


if __name__ == "__main__":
    main()
