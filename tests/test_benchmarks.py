"""The benchmarks that need a GPU or PyTorch run here at a small size."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_step_of_a_recipe():
    out = run(
        "benchmarks/gpu_step.py", "--config=configs/any_order.py", "--num_layers=2", "--config.train.batch_size=1",
        "--config.data.row_length=64", "--peak_size=64", "--repeats=1", "--only=block diffusion",
    )  # fmt: skip
    rate = re.search(r"step of 64 tokens: ([\d.]+) ms, ([\d,]+) tokens/s, .* of the measured peak", out)
    assert float(rate[2].replace(",", "")) == pytest.approx(64e3 / float(rate[1]), rel=0.05)
    assert "block diffusion of 2L" in out and "a whole layer" in out


def test_our_step_beside_pytorch():
    """The script itself refuses to measure when the losses of three updates differ."""
    pytest.importorskip("torch")
    out = run("benchmarks/step_vs_torch.py", "--rounds=1", "--only=tiny")
    assert re.search(r"ours makes [\d.]+ x the tokens/s", out)
