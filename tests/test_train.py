"""The real command, small: it trains and explains what is wrong. Kills, signals and other faults: test_faults.py."""

import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from anyorder_jax import process as one_process
from small_run import ROOT, finish, learned, lines, same_parameters, start, wait_for_step


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """An uninterrupted run."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    is_new = not any(data.iterdir())  # another test of this process may have come before
    code, output = finish(start(data, workdir))
    assert code == 0, output
    assert ("collecting them now" in output) == is_new
    return workdir


def test_a_run_leaves_what_it_promises(whole):
    for path in ("config.json", "tokenizer/tokenizer.json", "metrics/train.jsonl", "metrics/validation.jsonl"):
        assert (whole / path).is_file(), path
    assert [line["step"] for line in lines(whole)] == list(range(1, 25))
    assert [line["step"] for line in lines(whole, "validation")] == [12, 24]
    assert lines(whole)[-1]["loss"] < lines(whole)[0]["loss"]
    steps = sorted(int(p.name) for p in (whole / "checkpoints").iterdir() if p.name.isdigit())
    assert steps[-2:] == [18, 24]


def test_llada2s_own_objective_learns(data, tmp_path):
    """Block diffusion on [noisy ; clean], every mask beside its inverse, certainty rewarded (LLaDA2.0, section 5)."""
    objective = ["train.objective=block_diffusion", "train.block_size=8", "masking.complementary=True"]
    objective += ["loss.confidence_weight=0.5"]
    code, output = finish(start(data, tmp_path / "run", *(f"--config.{setting}" for setting in objective)))
    assert code == 0, output
    losses = [line["loss"] for line in lines(tmp_path / "run")]
    assert len(losses) == 24 and np.mean(losses[-4:]) < 0.8 * np.mean(losses[:4])
    early, late = lines(tmp_path / "run", "validation")
    assert late["loss"] < early["loss"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.masking.rte=0.3"], "rte"),
        (["--config.masking.rate=2"], r"config.masking.rate: expected a probability in (0, 1], got 2"),
        (["--config.data.environment=BabyAI-GoToOj-v0", "--config.data.num_episodes=3"], "BabyAI-GoToObj-v0"),
        (["--config.data.path=/nowhere/at/all"], "/nowhere/at/all: no such directory"),
        (["--config.mesh.data=3"], "does not lay out 1 device"),
        (["--config.data.row_length=40"], "row_length"),
        (["--config.seed=1"], "holds a run with other settings (seed: 0 -> 1)"),
        (["--config.model.preset=tinny"], "tiny"),
    ],
    ids=lambda v: v[0].split("=")[0] if isinstance(v, list) else "",
)
def test_what_is_wrong_is_said_in_a_sentence(data, whole, tmp_path, arguments, message):
    workdir = whole if "seed" in arguments[0] else tmp_path / "run"
    code, output = finish(start(data, workdir, *arguments))
    assert code not in (0, None) and message in output, output
    assert "Traceback" not in output, output


def test_a_full_disk_is_said_in_a_sentence(data, tmp_path):
    """No file may grow past 100 kB: the first checkpoint cannot be written."""
    import resource

    limit = 100_000
    process = start(
        data, tmp_path / "run", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    )
    code, output = finish(process)
    assert code not in (0, None), output
    last = output.splitlines()[-1]  # the storage library's threads may complain before
    assert last.startswith("OSError") and "a checkpoint could not be written" in last and "Make room" in last, output


def test_training_starts_from_another_runs_weights_and_from_an_export(data, whole, tmp_path):
    """`model.path` takes a run, and what `conversion to_hf` made of it: both start with the same loss."""
    exported = tmp_path / "exported"
    convert = ["-m", "conversion", "to_hf", "--checkpoint", str(whole), "--output_path", str(exported)]
    convert += ["--layout", "merged"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, *convert], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    few = ("--config.train.num_steps=2", "--config.model.check=off")  # the run is too short to be a trained model
    losses = []
    for name, path in (("from_run", whole), ("from_export", exported)):
        code, output = finish(start(data, tmp_path / name, f"--config.model.path={path}", *few))
        assert code == 0, output
        losses.append([line["loss"] for line in lines(tmp_path / name)])
    assert losses[0] == losses[1]
    assert losses[0][0] < 0.8 * lines(whole)[0]["loss"]


def test_checkpoints_and_log_in_a_bucket_outlive_the_machine(data, whole, tmp_path):
    """`checkpoint.remote`, with a folder in the bucket's place: the run directory is lost, and nothing with it."""
    arguments = (data, tmp_path / "run", f"--config.checkpoint.remote={tmp_path}/bucket/run")
    process = start(*arguments)
    wait_for_step(tmp_path / "run", 9, process)
    process.send_signal(signal.SIGTERM)
    code, output = finish(process)
    assert code == one_process.REQUEUE, output
    shutil.rmtree(tmp_path / "run")
    code, output = finish(start(*arguments))
    assert code == 0 and "Resuming" in output, output
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert learned(tmp_path / "run") == learned(tmp_path / "bucket" / "run") == learned(whole)
    same_parameters(tmp_path / "bucket" / "run", whole)
    assert (tmp_path / "bucket" / "run" / "tokenizer" / "tokenizer.json").is_file()
