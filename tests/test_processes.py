"""Several processes of one run: they learn what one learns, stop together, and none waits for one that died."""

import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import golden_checkpoint
from anyorder_jax import flops, process, weights
from anyorder_jax.config import freeze
from anyorder_jax.model import presets
from small_run import ROOT, compiled_in, finish, lines, places, start, start_processes, wait_for_step


def logged(workdir, name):
    return np.array([line[name] for line in lines(workdir)])


@pytest.mark.parametrize(
    ("cores", "changes", "devices"),
    [
        (2, {}, 2),
        (1, {}, 0),
        (6, {}, 4),  # the most that divide 8 rows
        (64, {}, 8),
        (2, {"mesh": {"num_cpu_devices": 1}}, 1),  # as it is asked for
        (2, {"mesh": {"fsdp": 2, "data": 1}}, 0),
        (2, {"model": {"path": "a-model"}}, 0),
        (2, {"train": {"accumulation_steps": 8}}, 0),  # a row at a time
        (2, {"data": {"row_length": 2048}}, 0),  # temporaries that a thread's heap does not keep
        (8, {"data": {"row_length": 464}}, 8),
        (2, {"model": {"preset": "babyai"}}, 0),
    ],
)
def test_a_small_model_is_split_over_the_cores(cores, changes, devices, monkeypatch):
    monkeypatch.setattr(process, "num_cores", lambda: cores)
    config = freeze(changes)
    assert flops.cpu_devices(config, presets.get(config.model.preset)) == devices
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "localhost:1")  # one of several has what it is told
    assert flops.cpu_devices(config, presets.get(config.model.preset)) == config.mesh.num_cpu_devices


def test_two_processes_train_like_one(tmp_path):
    """Of two devices each, with their rows and parts of the matrices and experts; stopped by a signal that only the
    second got; resumed with each half of every matrix; broken by a kill -9; finished by one alone."""
    kept = {"environment": compiled_in(tmp_path / "compiled")}
    # A large epsilon: Adam divides a gradient of rounding noise by its own size, which would hide what is compared.
    epsilon = "--config.optimizer.eps=1e-3"
    assert finish(start(tmp_path, tmp_path / "one", epsilon, **kept))[0] == 0
    workdir = tmp_path / "two"
    mesh = [f"--config.mesh.{axis}" for axis in ("data=1", "fsdp=2", "expert=2", "num_cpu_devices=2")]
    pair = start_processes(2, tmp_path, workdir, epsilon, *mesh, **kept)
    wait_for_step(workdir, 9, pair[0])
    pair[1].send_signal(signal.SIGTERM)
    ended = [finish(one) for one in pair]
    assert [code for code, _ in ended] == [process.REQUEUE] * 2, ended
    stopped = len(lines(workdir))
    assert f"Stopped by SIGTERM after step {stopped}" in ended[0][1] and 9 <= stopped < 24

    mesh = ["--config.mesh.data=1", "--config.mesh.tensor=2"]
    pair = start_processes(2, tmp_path, workdir, epsilon, *mesh, **kept)
    wait_for_step(workdir, stopped + 4, pair[0])
    pair[0].kill()
    died = time.monotonic()
    code, output = finish(pair[1])
    seconds = time.monotonic() - died
    finish(pair[0])
    assert code not in (0, None, process.REQUEUE), output
    assert seconds < process.HEARTBEAT_SECONDS + 20, output

    code, output = finish(start(tmp_path, workdir, epsilon, **kept))
    assert code == 0 and "Resuming" in output, output
    assert len(lines(workdir)) == 24
    for name in ("loss", "grad_norm"):
        np.testing.assert_allclose(logged(workdir, name), logged(tmp_path / "one", name), rtol=2e-6, err_msg=name)
    ours, theirs = (weights.load_for_inference(run)[2] for run in (workdir, tmp_path / "one"))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert np.linalg.norm(a - b) <= 1e-5 * np.linalg.norm(b)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"JAX_COORDINATOR_ADDRESS": "h:1", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "3"}, ("h:1", 4, 3)),
        ({"JAX_COORDINATOR_ADDRESS": "h:1", "JAX_NUM_PROCESSES": "4"}, "JAX_PROCESS_ID=''"),
        ({"JAX_COORDINATOR_ADDRESS": "h:1", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "4"}, "in 0..P-1"),
        ({"JAX_COORDINATOR_ADDRESS": "h", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "1"}, "expected host:port"),
    ],
)
def test_the_place_told_by_variables_is_read_or_refused(environ, expected):
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected):
            process.explicit_place(environ)
    else:
        assert process.explicit_place(environ) == expected


def test_how_long_to_wait_for_the_others_is_read_or_refused():
    assert process.connect_seconds({}) == process.CONNECT_SECONDS
    assert process.connect_seconds({"ANYORDER_CONNECT_SECONDS": "45"}) == 45
    for text in ("0", "-1", "soon", ""):
        with pytest.raises(ValueError, match=r"ANYORDER_CONNECT_SECONDS=.*expected a positive number of seconds"):
            process.connect_seconds({"ANYORDER_CONNECT_SECONDS": text})


@pytest.mark.parametrize(
    ("visible", "tasks", "nodes", "local", "extra", "expected"),
    [
        ("", 2, 2, 0, {}, None),  # a CPU job
        ("0,1,2,3", 2, 2, 0, {}, [0, 1, 2, 3]),  # a task a node takes all of it
        ("0,1,2,3", 8, 2, 3, {}, [3]),  # a task a GPU
        ("0,1,2,3", 4, 2, 1, {}, [2, 3]),  # two GPUs a task
        ("2", 8, 2, 3, {}, "cannot share"),
        ("2", 8, 2, 3, {"SLURM_GPUS_PER_TASK": "1"}, [0]),  # bound: sees only its own, as number 0
        ("0,1,2", 4, 2, 0, {}, "2 tasks on a node cannot share its 3 GPUs"),
    ],
)
def test_a_slurm_task_takes_its_gpus(visible, tasks, nodes, local, extra, expected):
    environ = {
        "CUDA_VISIBLE_DEVICES": visible, "SLURM_STEP_NUM_TASKS": str(tasks), "SLURM_STEP_NUM_NODES": str(nodes),
        "SLURM_LOCALID": str(local), **extra,
    }  # fmt: skip
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected):
            process.slurm_gpus(environ)
    else:
        assert process.slurm_gpus(environ) == expected


ONE_CANNOT_READ = """
import sys
from anyorder_jax import checkpoint, process
process.join_others()
import golden_checkpoint, jax
from anyorder_jax.config import CheckpointConfig
run = checkpoint.Checkpointer(sys.argv[1], CheckpointConfig(), print)
print("read", int(run.restore_newest(golden_checkpoint.shapes(jax.devices()), lambda meta: None).state.step))
"""


def test_a_checkpoint_that_only_one_process_cannot_read_is_read_by_none(tmp_path):
    """Each process has a copy of the run; the newest checkpoint of the second's is truncated."""
    (version, *_) = sorted(golden_checkpoint.DIRECTORY.iterdir())
    for index in range(2):
        shutil.copytree(version, tmp_path / str(index))
        shutil.copytree(version / "checkpoints" / "7", tmp_path / str(index) / "checkpoints" / "5")
    weights = tmp_path / "1" / "checkpoints" / "7" / "params"
    file = max((path for path in weights.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    file.write_bytes(b"")
    begin = time.monotonic()
    pair = [
        subprocess.Popen(
            [sys.executable, "-c", ONE_CANNOT_READ, str(tmp_path / str(index))], text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, env={**os.environ, **place, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        )
        for index, place in enumerate(places(2))
    ]  # fmt: skip
    outputs = [finish(one)[1] for one in pair]
    assert time.monotonic() - begin < 200, outputs  # Orbax's barrier alone would take 300 s
    assert "process 1 could not read it" in outputs[0] and all("read 5" in output for output in outputs), outputs
