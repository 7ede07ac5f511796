"""How fast experts' episodes of a world of text are collected, beside the simulator's own Python loop.

    python benchmarks/text_worlds_speed.py [--game=CookingWorld --num_episodes=400 --repeats=3]

bare          the package's own loop: reset with the gold path, step after step, nothing kept
collect       what a worker of `collect` does: the same episodes, as lines of a shard
two           two processes at once, half of the episodes each; `speed-up` = against one

Ways take turns, so that a busy machine slows each of them; medians over the repeats. Beside the wall clock stand CPU
seconds of Python and Java (Linux), which other work on the machine hardly changes. Each process plays a first share of
episodes untimed, for Java compiles what runs often. Writes benchmarks/results/text_worlds_speed.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

RESULT = Path(__file__).parent / "results" / "text_worlds_speed.json"
WARM_UP = 200


def bare(game: str) -> Callable[[int], None]:
    """Plays an episode as the package's own examples do."""
    from textworld_express import TextWorldExpressEnv

    from anyorder_jax.environments.textworld_express.folds import GAMES

    name, settings = GAMES[game]
    environment = TextWorldExpressEnv(envStepLimit=100)
    environment.load(name, settings)

    def play(seed: int) -> None:
        environment.reset(seed=seed, gameFold="train", generateGoldPath=True)
        is_done = False
        for action in environment.getGoldActionSequence():
            _, _, is_done, _ = environment.step(action)
        assert is_done

    return play


def collected(game: str) -> Callable[[int], None]:
    """Plays an episode as a worker of `collect` does."""
    from anyorder_jax.data import sources
    from anyorder_jax.environments import registry
    from anyorder_jax.environments.play import play_text_episode

    session = registry.make_session(f"TextWorldExpress-{game}")

    def play(seed: int) -> None:
        sources.encode(play_text_episode(session, str(seed)))

    return play


WAYS = {"bare": bare, "collect": collected}


def serve(way: str, game: str) -> None:
    """A process that plays FIRST..END of each line "FIRST END" and answers."""
    play = WAYS[way](game)
    for line in sys.stdin:
        for seed in range(*map(int, line.split())):
            play(seed)
        print("done", flush=True)
    os._exit(0)


class Player:
    """Such a process, warmed up."""

    def __init__(self, way: str, game: str) -> None:
        command = [sys.executable, __file__, f"--serve={way}", f"--game={game}"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8")
        self.ask(0, WARM_UP)
        self.wait()

    def ask(self, first: int, end: int) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{first} {end}\n")
        self._process.stdin.flush()

    def wait(self) -> None:
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "done\n":
            raise SystemExit("a player died; what it said stands above.")

    def cpu_seconds(self) -> float:
        """Of the process and its Java, until now."""
        return sum(cpu_seconds(pid) for pid in (self._process.pid, *children(self._process.pid)))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def children(pid: int) -> list[int]:
    """The processes that one has started."""
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()))


def cpu_seconds(pid: int) -> float:
    """User and system time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def speed(players: list[Player], num_episodes: int) -> dict[str, float]:
    """Episodes a second, and CPU milliseconds an episode, of 0..num_episodes - 1, a share each."""
    begun, used = time.perf_counter(), sum(player.cpu_seconds() for player in players)
    share = num_episodes // len(players)
    for number, player in enumerate(players):
        player.ask(number * share, (number + 1) * share)
    for player in players:
        player.wait()
    seconds, used = time.perf_counter() - begun, sum(player.cpu_seconds() for player in players) - used
    return {"episodes_per_second": num_episodes / seconds, "cpu_ms_per_episode": 1000 * used / num_episodes}


def ratio(rounds: list[dict[str, dict[str, float]]], above: str, below: str, measure: str) -> float:
    """The median over rounds of one way's value over another's."""
    return statistics.median(r[above][measure] / r[below][measure] for r in rounds)


def measure(game: str, num_episodes: int, repeats: int) -> dict[str, object]:
    """Speed of each way in every round, and ratios: 0.9 and more, and 1.6 and more, are what is wanted of the first
    two; where the CPU times' are about 1, neither writing episodes nor a second process costs anything by itself."""
    players = {"bare": [Player("bare", game)], "collect": [Player("collect", game)]}
    players["two"] = [players["collect"][0], Player("collect", game)]

    try:
        rounds = [{way: speed(mine, num_episodes) for way, mine in players.items()} for _ in range(repeats)]
    finally:
        for player in {player for mine in players.values() for player in mine}:
            player.close()
    return {
        "game": game,
        "num_episodes": num_episodes,
        "rounds": rounds,
        "collect_over_bare": ratio(rounds, "collect", "bare", "episodes_per_second"),
        "two_over_one": ratio(rounds, "two", "collect", "episodes_per_second"),
        "cpu_bare_over_collect": ratio(rounds, "bare", "collect", "cpu_ms_per_episode"),
        "cpu_one_over_two": ratio(rounds, "collect", "two", "cpu_ms_per_episode"),
        "load_average": os.getloadavg(),
        "num_cpus": os.cpu_count(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--game", default="CookingWorld")
    parser.add_argument("--num_episodes", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--serve", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.game)
    found = measure(options.game, options.num_episodes, options.repeats)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
