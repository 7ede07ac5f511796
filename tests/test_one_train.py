"""One `train` at a time in a run directory; Ctrl-C ends it; a finished run can be extended."""

import json
import os
import shutil
import signal
import time

import pytest

from anyorder_jax import run_directory
from small_run import LISTENING, compiled_in, finish, learned, lines, same_parameters, start, wait_for_step

ENDLESS = ("--config.train.num_steps=100000", "--config.log.validate_every_steps=100000")
CONSTANT = ("--config.optimizer.warmup_steps=1", "--config.optimizer.end_learning_rate=2e-3")
"""The recipe's rate throughout: then the length of a run changes nothing but where it ends."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("folder")


def begin(folder, name, *arguments, **keywords):
    kept = compiled_in(folder / "compiled")
    return start(folder / "data", folder / name, *arguments, environment=kept, wrapper=LISTENING, **keywords)


def length(num_steps):
    return (f"--config.train.num_steps={num_steps}", f"--config.log.validate_every_steps={num_steps}")


def test_a_second_one_is_refused_and_ctrl_c_ends_the_first(folder):
    first = begin(folder, "run", *ENDLESS)
    wait_for_step(folder / "run", 7, first)
    code, output = finish(begin(folder, "run", *ENDLESS))
    assert code == 1 and f"process {first.pid} on " in output.splitlines()[-1], output
    assert "another train is at work there" in output and "Traceback" not in output
    assert first.poll() is None
    first.send_signal(signal.SIGINT)
    code, output = finish(first, timeout=60)
    assert code == 130 and output.splitlines()[-1].startswith("train: interrupted; the same command"), output
    assert output.count("interrupted") == 1 and "Traceback" not in output and "Exception ignored" not in output
    assert not (folder / "run" / "train.lock").exists()
    steps = [line["step"] for line in lines(folder / "run")]
    assert steps == list(range(1, len(steps) + 1))
    code, output = finish(begin(folder, "run", *ENDLESS, "--config.seed=1"))
    assert "holds a run with other settings (seed" in output  # it comes in again


def test_a_requeued_job_waits_for_the_one_before_it(tmp_path, monkeypatch):
    monkeypatch.setattr(run_directory, "REQUEUED_SECONDS", 1)
    with run_directory.alone(tmp_path):
        for count, least in (("0", 0.0), ("1", 1.0)):
            monkeypatch.setenv("SLURM_RESTART_COUNT", count)
            began = time.monotonic()
            with pytest.raises(ValueError, match=rf"process {os.getpid()} on"), run_directory.alone(tmp_path):
                raise AssertionError("two are inside")
            assert least <= time.monotonic() - began < least + 30


def test_a_terminal_that_is_closed_saves_like_sigterm(folder):
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored, also by what is started
    try:
        one = begin(folder, "closed", *ENDLESS)
    finally:
        signal.signal(signal.SIGHUP, before)
    wait_for_step(folder / "closed", 7, one)
    one.send_signal(signal.SIGHUP)
    code, output = finish(one)
    assert code == 75, output
    saved = max(int(path.name) for path in (folder / "closed" / "checkpoints").iterdir() if path.name.isdigit())
    assert saved == len(lines(folder / "closed")) > 6


def test_ten_steps_and_ten_more_are_twenty(folder):
    """Weights, moments, data and masks: bit for bit, where the schedule is the same."""
    for name, num_steps in (("twenty", 20), ("ten", 10)):
        code, output = finish(begin(folder, name, *CONSTANT, *length(num_steps)))
        assert code == 0, output
    shutil.copytree(folder / "ten", folder / "unfinished")
    code, output = finish(begin(folder, "ten", *CONSTANT, *length(20)))
    assert code == 1 and "holds a run of 10 updates, and train.num_steps is 20. Give --extend" in output, output
    code, output = finish(begin(folder, "ten", *CONSTANT, *length(20), "--extend", "--config.seed=1"))
    assert code == 1 and "other settings (seed: 0 -> 1)" in output, output
    code, output = finish(begin(folder, "ten", *CONSTANT, *length(20), "--extend"))
    assert code == 0 and "from 10 to 20 updates: optimizer moments and data order go on" in output, output
    assert "it was 0.002, is 0.002 now and ends at 0.002" in output
    assert learned(folder / "ten") == learned(folder / "twenty")
    same_parameters(folder / "ten", folder / "twenty")
    assert run_directory.read_meta(folder / "ten")["extended_after"] == [10]
    assert json.loads((folder / "ten" / "config.json").read_text())["train"]["num_steps"] == 20
    shutil.rmtree(folder / "unfinished" / "checkpoints" / "10")
    code, output = finish(begin(folder, "unfinished", *CONSTANT, *length(20), "--extend"))
    assert code == 1 and "this one is at update 6 of 10. Finish it with --config.train.num_steps=10 first" in output
