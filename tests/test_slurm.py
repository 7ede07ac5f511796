"""The batch files of launch/slurm on a real SLURM: two nodes of this machine, processes on the CPU.

`tests/slurm/cluster.sh` starts it and says why where it cannot. Every job is the shipped file, made small by its
arguments; `--gres=none` takes the GPU out.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from anyorder_jax import process
from anyorder_jax.data import sources
from small_run import ROOT, SMALL, finish, learned, lines, start

CLUSTER = ROOT / "tests" / "slurm" / "cluster.sh"
STEPS = 120
LONGER = [f"--config.train.num_steps={STEPS}", f"--config.log.validate_every_steps={STEPS}"]
LONG = [*SMALL, *LONGER]
ONLY_ON_SIGNAL = "--config.checkpoint.save_every_steps=100000"


class Slurm:
    """Commands of SLURM, and the environment that its jobs inherit."""

    def __init__(self, directory):
        self.directory = directory
        self.environment = {**os.environ, "SLURM_CONF": f"{directory}/slurm.conf", "ANYORDER_VENV": sys.prefix}
        self.environment["PATH"] = f"{Path(sys.executable).parent}:{self.environment['PATH']}"

    def run(self, *command, timeout=180):
        done = subprocess.run(
            command, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=timeout, check=False
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout.strip()

    def submit(self, name, *arguments, options=()):
        """(job, its log). Every task of an array writes into the same log."""
        log = self.directory / f"{name}-{len(list(self.directory.glob('*.out')))}.out"
        file = f"launch/slurm/{name}.sbatch"
        command = ["sbatch", "--parsable", "--gres=none", "--open-mode=append", f"--output={log}", *options, file]
        return self.run(*command, *map(str, arguments)), log

    def state(self, job):
        """e.g. RUNNING; of an array, the set of its tasks' states joined by commas."""
        shown = self.run("scontrol", "show", "job", job)
        return ",".join(sorted(set(re.findall(r"JobState=(\S+)", shown))))

    def wait(self, job, states, log, timeout=300, hurry=True):
        """Waits for one of `states`. SLURM lets a requeued job wait for two minutes; `hurry`: seconds."""
        end = time.monotonic() + timeout
        while (state := self.state(job)) not in states:
            assert time.monotonic() < end, (job, state, log.read_text()[-3000:])
            assert state not in ("FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"), (state, log.read_text()[-3000:])
            if hurry and state == "PENDING" and "Reason=BeginTime" in self.run("scontrol", "show", "job", job):
                self.run("scontrol", "update", f"JobId={job}", "StartTime=now+3")  # not in the second of the requeue:
                time.sleep(4)  # its credential was revoked then
            time.sleep(0.2)
        return state

    def wait_for_step(self, job, workdir, step, log):
        end = time.monotonic() + 300
        while len(lines(workdir)) < step:
            assert time.monotonic() < end, log.read_text()[-3000:]
            self.wait(job, ("RUNNING", "COMPLETING"), log)
            time.sleep(0.1)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    directory = tmp_path_factory.mktemp("slurm")
    started = subprocess.run(["bash", CLUSTER, "start", directory], capture_output=True, text=True, check=False)
    if started.returncode == 77:
        pytest.skip(started.stdout.splitlines()[-1])
    assert started.returncode == 0, started.stdout + started.stderr
    slurm = Slurm(directory)
    yield slurm
    subprocess.run(["scancel", "--user=root"], env=slurm.environment, check=False)
    subprocess.run(["bash", CLUSTER, "stop", directory], check=True)
    assert not [pid for pid in directory.glob("*.pid") if Path(f"/proc/{pid.read_text().strip()}").exists()]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Episodes (the first run collects them), and beside them the run directories."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def one(data):
    """The run of one process outside of SLURM."""
    code, output = finish(start(data, data / "one", *LONGER), timeout=600)
    assert code == 0, output
    return data / "one"


@pytest.fixture(scope="module")
def whole(slurm, data):
    """The log of two nodes that nobody disturbed."""
    job, log = slurm.submit(
        "train", *LONG, f"--config.data.cache_dir={data}", f"--workdir={data}/whole", options=["--nodes=2"]
    )
    slurm.wait(job, ("COMPLETED",), log)
    return data / "whole"


def test_two_nodes_train_to_the_same_losses_as_one_process(one, whole):
    ours, theirs = (np.array([line["loss"] for line in lines(path)]) for path in (whole, one))
    assert len(ours) == STEPS
    np.testing.assert_allclose(ours, theirs, rtol=2e-3)  # rounding, grown over the updates
    np.testing.assert_allclose(ours[:20], theirs[:20], rtol=1e-5)


def test_signals_and_requeues_lose_no_step(slurm, data, whole):
    """What --signal=B:TERM sends before the time limit, a signal to the tasks, and a requeue, one after another. No
    checkpoint but theirs: a lost step could not be hidden."""
    workdir = data / "disturbed"
    job, log = slurm.submit(
        "train", *LONG, ONLY_ON_SIGNAL, f"--config.data.cache_dir={data}", f"--workdir={workdir}",
        options=["--nodes=2"],
    )  # fmt: skip
    commands = (
        ("scancel", "--batch", "--signal=TERM", job), ("scancel", "--signal=TERM", job), ("scontrol", "requeue", job),
    )  # fmt: skip
    for number, command in enumerate(commands, start=1):
        slurm.wait_for_step(job, workdir, len(lines(workdir)) + 5, log)
        slurm.run(*command)
        slurm.wait(job, ("PENDING",), log, hurry=False)
        stopped = re.findall(r"Stopped by SIGTERM after step (\d+)", log.read_text())
        assert len(stopped) == number and int(stopped[-1]) == len(lines(workdir)), log.read_text()
    slurm.wait(job, ("COMPLETED",), log)
    assert re.findall(r"Resuming .* at step (\d+)", log.read_text()) == stopped
    assert learned(workdir) == learned(whole)


def test_a_dead_process_ends_the_job_with_an_error(slurm, data):
    """Within a minute: at once by the broken connection, at the latest by heartbeat and srun --wait."""
    workdir = data / "killed"
    job, log = slurm.submit(
        "train", *LONG, "--config.train.num_steps=100000", f"--config.data.cache_dir={data}", f"--workdir={workdir}",
        options=["--nodes=2"],
    )  # fmt: skip
    slurm.wait_for_step(job, workdir, 5, log)
    os.kill(pid_of(job, task=1), signal.SIGKILL)
    died = time.monotonic()
    while slurm.state(job) in ("RUNNING", "COMPLETING"):
        assert time.monotonic() - died < process.HEARTBEAT_SECONDS + 60, log.read_text()[-3000:]
        time.sleep(0.2)
    assert slurm.state(job) == "FAILED"


def pid_of(job, task):
    """The training process of a task, by the variables that SLURM gave it."""
    wanted = {f"SLURM_JOB_ID={job}".encode(), f"SLURM_PROCID={task}".encode(), b"SLURM_STEP_ID=0"}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            is_python = b"anyorder_jax.train" in (entry / "cmdline").read_bytes().split(b"\0")
            if is_python and wanted <= set((entry / "environ").read_bytes().split(b"\0")):
                return int(entry.name)
        except OSError:
            continue
    raise LookupError(f"no process of task {task} of job {job}")


def test_a_cancelled_job_stays_cancelled(slurm, data):
    workdir = data / "cancelled"
    job, log = slurm.submit(
        "train", *LONG, "--config.train.num_steps=100000", f"--config.data.cache_dir={data}", f"--workdir={workdir}"
    )
    slurm.wait_for_step(job, workdir, 3, log)
    slurm.run("scancel", job)
    end = time.monotonic() + 60
    while slurm.run("squeue", "--noheader", f"--jobs={job}"):
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.2)
    assert slurm.state(job) == "CANCELLED" and "Stopped by SIGTERM" in log.read_text(), log.read_text()


def test_an_array_collects_each_range_of_seeds_once(slurm, tmp_path):
    job, log = slurm.submit(
        "collect", tmp_path / "parts", "--env=BabyAI-GoToObj-v0", "--num_episodes=6", "--num_validation_episodes=2",
        "--num_test_episodes=2", options=["--array=0-2", "--cpus-per-task=1"],
    )  # fmt: skip
    slurm.wait(job, ("COMPLETED",), log)
    parts = sorted((tmp_path / "parts").iterdir())
    assert [part.name for part in parts] == ["part-0", "part-1", "part-2"]
    joined = [sys.executable, "-m", "anyorder_jax.data.join", *map(str, parts), f"--output_dir={tmp_path}/all"]
    slurm.run(*joined)
    seeds = {
        split: [trajectory.source["seed"] for trajectory in sources.read_trajectories(tmp_path / "all", split)]
        for split in sources.SPLITS
    }
    assert {split: len(found) for split, found in seeds.items()} == {"train": 18, "validation": 2, "test": 2}
    assert len(set(seeds["train"])) == 18
    assert [seed // 10**7 for seed in seeds["train"]] == [0] * 6 + [1] * 6 + [2] * 6


def test_an_array_runs_a_suite_and_a_last_job_compares(slurm, data, tmp_path):
    suite = tmp_path / "pair.py"
    arguments = (*SMALL, "--config.train.num_steps=4", f"--config.data.cache_dir={data}")
    suite.write_text(
        "from anyorder_jax.evaluation.suite import Suite\n"
        f"def get_suite():\n    return Suite('Which?', {{'a': {arguments!r}, 'b': {arguments!r}}}, (3,), "
        "('--num_episodes=2', '--modes=greedy', '--num_windows=1'))\n"
    )
    listed = slurm.run(sys.executable, "-m", "anyorder_jax.ablate", f"--suite={suite}", "--list")
    assert len(listed.splitlines()) == 2
    job, log = slurm.submit("ablate", suite, tmp_path / "out", options=["--array=0-1"])
    last, last_log = slurm.submit("ablate", suite, tmp_path / "out", options=[f"--dependency=afterok:{job}"])
    slurm.wait(last, ("COMPLETED",), log, hurry=False)
    assert "| a |" in last_log.read_text() and "| b |" in last_log.read_text(), last_log.read_text()
    assert (tmp_path / "out" / "pair" / "comparison.md").is_file()


def test_setup_and_test_goes_from_a_model_to_a_smoke_job(slurm, tmp_path):
    """On the tiny reference model, with one quick file of tests."""
    environment = {
        **slurm.environment, "ANYORDER_SBATCH": "--gres=none", "ANYORDER_TESTS": "tests/test_config.py",
        "ROW_LENGTH": "240",
    }  # fmt: skip
    model = ROOT / "tests" / "golden" / "a" / "merged_bf16"
    command = ["bash", "launch/setup_and_test.sh", model, tmp_path / "out"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0 and "smoke: passed" in done.stdout, done.stdout + done.stderr
    last = json.loads((tmp_path / "out" / "smoke" / "metrics" / "train.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 20
