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


@pytest.mark.parametrize(
    ("arguments", "num_parts"),
    [
        ([], 7),
        (["--config.train.objective=block_diffusion", "--only=block diffusion"], 1),
        (["--torch", "--only=head"], 1),
    ],
    ids=["every part", "block diffusion", "torch"],
)
def test_the_step_of_a_recipe(arguments, num_parts):
    if "--torch" in arguments:
        pytest.importorskip("torch")
    out = run(
        "benchmarks/gpu_step.py", "--config=configs/any_order.py", "--num_layers=2", "--config.train.batch_size=1",
        "--config.data.row_length=64", "--peak_size=64", "--repeats=1", *arguments,
    )  # fmt: skip
    rate = re.search(r"step of 64 tokens: ([\d.]+) ms, ([\d,]+) tokens/s, .* of the measured peak", out)
    assert float(rate[2].replace(",", "")) == pytest.approx(64e3 / float(rate[1]), rel=0.05)
    assert out.count("ms forward and backward, once") == num_parts and "a whole layer" in out
    assert ("the same layer in PyTorch" in out) == ("--torch" in arguments)


def test_our_step_beside_pytorch():
    """The script itself refuses to measure when the losses of three updates differ."""
    pytest.importorskip("torch")
    out = run("benchmarks/step_vs_torch.py", "--rounds=1", "--only=tiny")
    assert re.search(r"ours makes [\d.]+ x the tokens/s", out)
