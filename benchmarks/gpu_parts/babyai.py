"""The default BabyAI recipe end to end with the real command: the `tiny` preset, and `babyai`."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from gpu_parts.measuring import ROOT, Size
from gpu_parts.rows import Rows, Skip, last_line

EPISODES = ROOT / ".gpu" / "episodes"
"""Collected by `gpu_kit.sh`; they travel with the checkout."""


def episodes(rows: Rows, size: Size) -> Path:
    """A directory of episodes: those that travelled, else some collected here."""
    if (EPISODES / "manifest.json").exists() and not size.is_toy:
        rows.add("episodes", "are", str(EPISODES.relative_to(ROOT)))
        return EPISODES
    if importlib.util.find_spec("minigrid") is None:
        raise Skip(f"no episodes in {EPISODES.relative_to(ROOT)} and no minigrid to collect some (extra `babyai`)")
    folder, number = size.folder / "episodes", size.of(1000, toy=24)
    command = [sys.executable, "-m", "anyorder_jax.collect", "--env=BabyAI-GoToObj-v0", f"--output_dir={folder}"]
    counts = [f"--num_episodes={number}", f"--num_validation_episodes={size.of(100, toy=4)}", "--num_test_episodes=4"]
    start = time.perf_counter()
    subprocess.run([*command, *counts], cwd=ROOT, check=True)
    rows.add("episodes", "collected in", time.perf_counter() - start, "s", note=f"{number} for training")
    return folder


def logged(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a metrics file so far."""
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]


def train(rows: Rows, size: Size, preset: str, data: Path) -> None:
    """One run of 500 updates: updates/s between the first and the last line of its log, and its losses."""
    num_steps, every = size.of(500, toy=12), size.of(50, toy=4)
    workdir = size.folder / preset
    command = [
        sys.executable, "-m", "anyorder_jax.train", "--config=configs/any_order.py", f"--workdir={workdir}",
        f"--config.model.preset={preset}", f"--config.data.path={data}", "--config.data.num_episodes=0",
        f"--config.train.num_steps={num_steps}", f"--config.log.every_steps={every}",
        f"--config.log.validate_every_steps={num_steps}", f"--config.optimizer.warmup_steps={every}",
    ]  # fmt: skip
    command += size.of([], toy=["--config.train.batch_size=2", "--config.log.num_validation_rows=4"])
    start = time.perf_counter()
    seen: dict[int, float] = {}
    log = size.folder / f"{preset}.log"
    with (
        log.open("w", encoding="utf-8") as file,
        subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file) as process,
    ):
        while process.poll() is None:
            time.sleep(0.05)
            for line in logged(workdir / "metrics" / "train.jsonl")[len(seen) :]:
                seen[line["step"]] = time.perf_counter() - start
    seconds = time.perf_counter() - start
    what = f"any_order, preset {preset}"
    said = f"exit code {process.returncode}; it ends with: {last_line(log)}"
    rows.judge(what, "ends well", process.returncode == 0, said)
    lines = logged(workdir / "metrics" / "train.jsonl")
    rows.add(what, "whole command", seconds, "s", note=f"{num_steps} updates, compiling, validation, a checkpoint")
    steps = sorted(seen)
    if len(steps) > 1:
        rate = (steps[-1] - steps[0]) / (seen[steps[-1]] - seen[steps[0]])
        rows.add(what, "updates/s", rate, note=f"updates {steps[0]} to {steps[-1]}")
        rows.add(what, "tokens/s", lines[-1]["tokens_per_second"], note="the command's own last line")
        first, last = lines[0]["loss"], lines[-1]["loss"]
        rows.add(what, "last loss over the first", last / first, at_most=1.0, note=f"{first:.3f} to {last:.3f}")


def run(rows: Rows, size: Size) -> None:
    """Both presets on the same episodes."""
    data = episodes(rows, size)
    for preset in ("tiny", "babyai"):
        with rows.attempt(f"any_order, preset {preset}"):
            train(rows, size, preset, data)
