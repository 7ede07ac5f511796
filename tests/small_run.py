"""The real train command, small: 24 updates in a few seconds. Started, watched, ended, and its log read back."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np

from anyorder_jax import weights

ROOT = Path(__file__).parents[1]
SMALL = [
    "--config=configs/any_order.py:smoke",
    "--config.data.window=1",
    "--config.data.row_length=72",
    "--config.data.num_episodes=20",
    "--config.data.num_validation_episodes=5",
    "--config.data.num_test_episodes=5",
    "--config.train.num_steps=24",
    "--config.log.every_steps=1",
    "--config.log.validate_every_steps=12",
    "--config.log.num_validation_rows=8",
    "--config.checkpoint.save_every_steps=6",
]
LISTENING = [
    sys.executable, "-c",
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execvp(sys.argv[1], sys.argv[1:])",
]  # fmt: skip
"""Put before a command it hears Ctrl-C, which what a shell starts in the background ignores."""


def command(data, workdir, *more):
    return [
        sys.executable, "-m", "anyorder_jax.train", *SMALL, f"--config.data.cache_dir={data}",
        f"--workdir={workdir}", *more,
    ]  # fmt: skip


def start(*arguments, environment=None, wrapper=(), **keywords):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", **(environment or {})}
    return subprocess.Popen(
        [*wrapper, *command(*arguments)], cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, **keywords,
    )  # fmt: skip


def compiled_in(folder):
    """Variables with which commands keep what they compiled in `folder`: the second one starts in half the time."""
    return {
        "JAX_COMPILATION_CACHE_DIR": str(folder), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }  # fmt: skip


def places(count):
    """For each of `count` processes of one run the variables by which it finds the others."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": str(count), "JAX_PROCESS_ID": str(i)}
        for i in range(count)
    ]


def start_processes(count, *arguments, environment=None, **keywords):
    """The same run as `count` processes."""
    return [start(*arguments, environment={**(environment or {}), **place}, **keywords) for place in places(count)]


def finish(process, timeout=600):
    output, _ = process.communicate(timeout=timeout)
    return process.returncode, output


def lines(workdir, name="train"):
    """What is logged so far; a last line that is being written does not count."""
    path = Path(workdir) / "metrics" / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []


def learned(workdir):
    """What a run's log says of learning: everything but speed."""
    timing = {"tokens_per_second", "targets_per_second", "time"}
    return [{k: v for k, v in line.items() if k not in timing} for line in lines(workdir)]


def wait_for_step(workdir, step, process):
    end = time.monotonic() + 600
    while len(lines(workdir)) < step:
        assert process.poll() is None, process.communicate()[0]
        if time.monotonic() > end:
            process.kill()
            raise TimeoutError(f"no step {step} in {workdir}")
        time.sleep(0.05)


def same_parameters(run, other):
    """Raises AssertionError unless the newest checkpoints hold the same bits."""
    ours, theirs = (jax.tree.leaves(weights.load_for_inference(path)[2]) for path in (run, other))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
