"""kill -9 at random moments: does the finished run equal the uninterrupted one, bit for bit?

    python benchmarks/kill_resume.py [--kills=10] [--seed=0]

Runs the real `train` command small (also killed while it starts, compiles, saves), resumes it after every kill, and
compares every logged loss and the final weights' bytes with an uninterrupted run. Prints a line per kill and a verdict;
exits non-zero when anything differs.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
SPEED = {"tokens_per_second", "targets_per_second", "time"}


def start(data: Path, workdir: Path) -> subprocess.Popen:
    """One run of 200 updates that saves every 10."""
    arguments = [
        "--config=configs/any_order.py:smoke", "--config.data.window=1", "--config.data.row_length=72",
        "--config.data.num_episodes=50", "--config.data.num_validation_episodes=10",
        "--config.data.num_test_episodes=10", "--config.train.num_steps=200", "--config.log.every_steps=1",
        "--config.checkpoint.save_every_steps=10", f"--config.data.cache_dir={data}", f"--workdir={workdir}",
    ]  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-m", "anyorder_jax.train", *arguments], cwd=ROOT, env={**os.environ, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def learned(workdir: Path) -> list[dict]:
    """Every logged step, without its speed."""
    path = workdir / "metrics" / "train.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [{k: v for k, v in line.items() if k not in SPEED} for line in lines]


def weights(workdir: Path) -> list[bytes]:
    """The final parameters' bytes."""
    import jax
    import numpy as np

    from anyorder_jax import checkpoint

    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(checkpoint.load_for_inference(workdir)[2])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        data, whole, killed = (Path(folder) / name for name in ("data", "whole", "killed"))
        begin = time.perf_counter()
        if start(data, whole).wait():
            sys.exit("the uninterrupted run failed")
        seconds = time.perf_counter() - begin
        for number in range(options.kills):
            process = start(data, killed)
            moment = rng.uniform(0.1, 0.9) * seconds
            try:
                process.wait(timeout=moment)
                outcome = "had finished"
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                outcome = f"killed after {moment:.1f} s"
            print(f"{number + 1:2d}: {outcome}, {len(learned(killed))} steps logged", flush=True)
        if start(data, killed).wait():
            sys.exit("the resumed run failed")
        same_log, same_weights = learned(killed) == learned(whole), weights(killed) == weights(whole)
        print(f"{len(learned(whole))} losses equal: {same_log}; weights equal, byte for byte: {same_weights}")
        sys.exit(not (same_log and same_weights))


if __name__ == "__main__":
    main()
