"""The batch files of launch/slurm on a real SLURM: two nodes of this machine, processes on the CPU.

`tests/slurm/cluster.sh` starts it and says why where it cannot. Every job is the shipped file, made small by its
arguments; `--gres=none` takes the GPU out. Jobs mostly wait, so several run at the same time (`happened`), and each
test looks at one when it has ended.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from anyorder_jax import process
from anyorder_jax.data import sources
from anyorder_jax.data.tokenization import Vocabulary
from anyorder_jax.environments import registry
from small_run import ROOT, SMALL, compiled_in, finish, learned, lines, start, wait_for_step

pytestmark = pytest.mark.xdist_group("slurm")  # one cluster, also when pytest runs on several processes

CLUSTER = ROOT / "tests" / "slurm" / "cluster.sh"
STEPS = 120
ONLY_ON_SIGNAL = "--config.checkpoint.save_every_steps=100000"
LONGER = [f"--config.train.num_steps={STEPS}", f"--config.log.validate_every_steps={STEPS}", ONLY_ON_SIGNAL]
LONG = [*SMALL, *LONGER]
ENDLESS = [*LONG, "--config.train.num_steps=100000"]


class Slurm:
    """Commands of SLURM, the environment that its jobs inherit, and the folder where all of them write.

    folder/data      episodes, collected before any job starts
    folder/NAME      the run directory of a job
    folder/NAME.out  what it printed; every task of an array writes into the same
    """

    def __init__(self, folder):
        self.folder = folder
        self.environment = {
            **os.environ, **compiled_in(folder / "compiled"), "SLURM_CONF": f"{folder}/cluster/slurm.conf",
            "ANYORDER_VENV": sys.prefix, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }  # fmt: skip

    def run(self, *command, timeout=180):
        done = subprocess.run(
            [*map(str, command)], cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=timeout,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout.strip()

    def log(self, name):
        path = self.folder / f"{name}.out"
        return path.read_text() if path.exists() else ""

    def submit(self, file, name, *arguments, options=()):
        """The number of the job."""
        return self.run(
            "sbatch", "--parsable", "--gres=none", "--open-mode=append", f"--output={self.folder}/{name}.out",
            *options, f"launch/slurm/{file}.sbatch", *arguments,
        )  # fmt: skip

    def train(self, name, *arguments, options=("--nodes=2",)):
        """The number of a training job, and its run directory."""
        more = (f"--config.data.cache_dir={self.folder}/data", f"--workdir={self.folder}/{name}")
        return self.submit("train", name, *arguments, *more, options=options), self.folder / name

    def shown(self, job):
        return self.run("scontrol", "show", "job", job)

    def state(self, job):
        """e.g. RUNNING; of an array, the set of its tasks' states joined by commas."""
        return ",".join(sorted(set(re.findall(r"JobState=(\S+)", self.shown(job)))))

    def wait(self, job, states, name, timeout=300):
        """Waits for one of `states`. A requeued job waits for two minutes in SLURM: here, as an operator may."""
        end = time.monotonic() + timeout
        while (state := self.state(job)) not in states:
            assert time.monotonic() < end, (job, state, self.log(name)[-3000:])
            assert state not in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"), (
                state,
                self.log(name)[-3000:],
            )
            if state == "PENDING" and "Reason=BeginTime" in self.shown(job):
                self.run("scontrol", "update", f"JobId={job}", "StartTime=now+2")  # not in the second of the requeue:
                time.sleep(2.5)  # its credential was revoked then
            time.sleep(0.2)
        return state

    def wait_for_step(self, job, workdir, step):
        end = time.monotonic() + 300
        while len(lines(workdir)) < step:
            assert time.monotonic() < end, self.log(workdir.name)[-3000:]
            if not lines(workdir):
                self.wait(job, ("RUNNING", "COMPLETING"), workdir.name)
            time.sleep(0.1)


def whole(slurm):
    """Two nodes that nobody disturbs."""
    job, workdir = slurm.train("whole", *LONG)
    slurm.wait(job, ("COMPLETED",), "whole")
    return workdir


def disturbed(slurm):
    """What --signal=B:TERM sends before the time limit, a signal to the tasks, and a requeue, one after another; then
    to the end. (Steps that the signals stopped at, run directory)"""
    job, workdir = slurm.train("disturbed", *LONG)
    commands = (
        ("scancel", "--batch", "--signal=TERM", job), ("scancel", "--signal=TERM", job), ("scontrol", "requeue", job),
    )  # fmt: skip
    logged = []
    for command in commands:
        slurm.wait(job, ("RUNNING",), "disturbed")
        slurm.wait_for_step(job, workdir, len(lines(workdir)) + 5)
        slurm.run(*command)
        slurm.wait(job, ("PENDING",), "disturbed")
        logged.append(len(lines(workdir)))
    slurm.wait(job, ("COMPLETED",), "disturbed")
    return logged, workdir


def killed(slurm):
    """A kill -9 of the second node's process: (state at the end, seconds until then)."""
    job, workdir = slurm.train("killed", *ENDLESS)
    slurm.wait_for_step(job, workdir, 5)
    os.kill(pid_of(job, task=1), signal.SIGKILL)
    died = time.monotonic()
    while (state := slurm.state(job)) in ("RUNNING", "COMPLETING") and time.monotonic() - died < 200:
        time.sleep(0.2)
    return state, time.monotonic() - died


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


def cancelled(slurm):
    """The state of a job that was cancelled while it trained."""
    job, workdir = slurm.train("cancelled", *ENDLESS, options=())
    slurm.wait_for_step(job, workdir, 3)
    slurm.run("scancel", job)
    end = time.monotonic() + 120
    while slurm.run("squeue", "--noheader", f"--jobs={job}") and time.monotonic() < end:
        time.sleep(0.2)
    return slurm.state(job)


def collected(slurm):
    """Where three tasks of an array wrote their episodes."""
    job = slurm.submit(
        "collect", "collected", slurm.folder / "parts", "--env=BabyAI-GoToObj-v0", "--num_episodes=6",
        "--num_validation_episodes=2", "--num_test_episodes=2", options=["--array=0-2", "--cpus-per-task=1"],
    )  # fmt: skip
    slurm.wait(job, ("COMPLETED",), "collected")
    return slurm.folder / "parts"


def ablated(slurm):
    """An array over a suite of two runs, and the job that compares: (the suite's list, its folder)."""
    suite = slurm.folder / "pair.py"
    arguments = (*SMALL, "--config.train.num_steps=4", f"--config.data.cache_dir={slurm.folder}/data")
    suite.write_text(
        "from anyorder_jax.evaluation.suite import Suite\n"
        f"def get_suite():\n    return Suite('Which?', {{'a': {arguments!r}, 'b': {arguments!r}}}, (3,), "
        "('--num_episodes=2', '--modes=greedy', '--num_windows=1'))\n"
    )
    job = slurm.submit("ablate", "ablated", suite, slurm.folder / "suite", options=["--array=0-1"])
    last = slurm.submit("ablate", "compared", suite, slurm.folder / "suite", options=[f"--dependency=afterok:{job}"])
    listed = slurm.run(sys.executable, "-m", "anyorder_jax.ablate", f"--suite={suite}", "--list")
    slurm.wait(last, ("COMPLETED",), "ablated")
    return listed.splitlines(), slurm.folder / "suite" / "pair"


def set_up(slurm):
    """setup_and_test.sh on the tiny reference model, with one quick file of tests: (how it ended, its folder)."""
    environment = {
        **slurm.environment, "ANYORDER_SBATCH": "--gres=none", "ANYORDER_TESTS": "tests/test_config.py",
        "ROW_LENGTH": "240", "MODEL_CHECK": "off",
    }  # fmt: skip
    model, output = slurm.folder / "model", slurm.folder / "set_up"
    shutil.copytree(ROOT / "tests" / "golden" / "a" / "merged_bf16", model)
    Vocabulary.builtin(registry.make_codec("BabyAI-GoToObj-v0", "joint")).save(model)
    command = ["bash", "launch/setup_and_test.sh", model, output]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200, check=False)
    return done, output


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slurm")
    (folder / "cluster").mkdir()
    started = subprocess.run(
        ["bash", CLUSTER, "start", folder / "cluster"], capture_output=True, text=True, check=False
    )
    if started.returncode == 77:
        pytest.skip(started.stdout.splitlines()[-1])
    assert started.returncode == 0, started.stdout + started.stderr
    slurm = Slurm(folder)
    yield slurm
    subprocess.run(["scancel", "--user=root"], env=slurm.environment, check=False)
    subprocess.run(["bash", CLUSTER, "stop", folder / "cluster"], check=True)
    assert not [pid for pid in folder.glob("*/*.pid") if Path(f"/proc/{pid.read_text().strip()}").exists()]


@pytest.fixture(scope="module")
def one(slurm):
    """(process outside of SLURM that trains alone, its run directory); it has collected the episodes."""
    workdir = slurm.folder / "one"
    alone = start(slurm.folder / "data", workdir, *LONGER, environment=slurm.environment)
    wait_for_step(workdir, 1, alone)
    return alone, workdir


@pytest.fixture(scope="module")
def happened(slurm, one):
    """`happened(whole)` is what `whole` returned. Four at a time run, the longest first."""
    acts = (disturbed, set_up, ablated, killed, whole, cancelled, collected)
    with ThreadPoolExecutor(4) as threads:
        futures = {act: threads.submit(act, slurm) for act in acts}
        yield lambda act: futures[act].result()


def test_a_dead_process_ends_the_job_with_an_error(happened, slurm):
    """Within a minute: at once by the broken connection, at the latest by heartbeat and srun --wait."""
    state, seconds = happened(killed)
    assert state == "FAILED" and seconds < process.HEARTBEAT_SECONDS + 60, seconds
    log = slurm.log("killed")
    assert "process 0: another process of this run ended (" in log and "Traceback" not in log, log


def test_a_cancelled_job_stays_cancelled(happened, slurm):
    assert happened(cancelled) == "CANCELLED"
    assert "Stopped by SIGTERM" in slurm.log("cancelled"), slurm.log("cancelled")


def test_two_nodes_train_to_the_same_losses_as_one_process(happened, one):
    code, output = finish(one[0])
    assert code == 0, output
    ours, theirs = (np.array([line["loss"] for line in lines(path)]) for path in (happened(whole), one[1]))
    assert len(ours) == STEPS
    np.testing.assert_allclose(ours[:20], theirs[:20], rtol=1e-5)
    # Rounding grows over the updates until a router's choice between two near experts falls the other way. Two
    # batches of this run differ by 30% in their losses: another order of the data would show here all the same.
    apart = np.abs(ours / theirs - 1)
    assert apart.mean() < 0.02 and apart.max() < 0.15, apart


def test_signals_and_requeues_lose_no_step(happened, slurm):
    """No checkpoint but theirs: a lost step could not be hidden."""
    logged, workdir = happened(disturbed)
    log = slurm.log("disturbed")
    stopped = re.findall(r"Stopped by SIGTERM after step (\d+)", log)
    assert [int(step) for step in stopped] == logged and len(stopped) == 3, log
    assert re.findall(r"Resuming .* at step (\d+)", log) == stopped, log
    assert learned(workdir) == learned(happened(whole))


def test_an_array_collects_each_range_of_seeds_once(happened, slurm, tmp_path):
    parts = sorted(happened(collected).iterdir())
    assert [part.name for part in parts] == ["part-0", "part-1", "part-2"]
    slurm.run(sys.executable, "-m", "anyorder_jax.data.join", *parts, f"--output_dir={tmp_path}/all")
    seeds = {
        split: [trajectory.source["seed"] for trajectory in sources.read_trajectories(tmp_path / "all", split)]
        for split in sources.SPLITS
    }
    assert {split: len(found) for split, found in seeds.items()} == {"train": 18, "validation": 2, "test": 2}
    assert len(set(seeds["train"])) == 18
    assert [seed // 10**7 for seed in seeds["train"]] == [0] * 6 + [1] * 6 + [2] * 6


def test_an_array_runs_a_suite_and_a_last_job_compares(happened, slurm):
    listed, folder = happened(ablated)
    assert len(listed) == 2
    log = slurm.log("compared")
    assert "| a |" in log and "| b |" in log, log
    assert (folder / "comparison.md").is_file()


def test_setup_and_test_goes_from_a_model_to_a_smoke_job(happened):
    done, output = happened(set_up)
    assert done.returncode == 0 and "smoke: passed" in done.stdout, done.stdout + done.stderr
    last = json.loads((output / "smoke" / "metrics" / "train.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 20
