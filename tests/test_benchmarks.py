"""The benchmark that needs PyTorch runs here at a small size (those of a GPU: `test_gpu_report.py`)."""

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


def test_our_step_beside_pytorch():
    """The script itself refuses to measure when the losses of three updates differ."""
    pytest.importorskip("torch")
    out = run("benchmarks/step_vs_torch.py", "--rounds=1", "--only=tiny")
    assert re.search(r"ours makes [\d.]+ x the tokens/s", out)
