"""A world of text from collection to acting: a small model solves it, and copies what it buys from the page.

The real commands (a minute or two of two cores): collect, train, then the checkpoint plays the held-out tasks, whose
codes no training episode has.
"""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import shop_world
from anyorder_jax import evaluate, weights
from anyorder_jax.acting import evaluation
from anyorder_jax.acting.decoding import Decoding
from anyorder_jax.acting.generator import Generator
from anyorder_jax.data import sources
from anyorder_jax.environments import registry
from anyorder_jax.evaluation.request import Request
from anyorder_jax.task import open_task
from anyorder_jax.types import Kind

ROOT = Path(__file__).parents[1]
WORLD, NUM_TASKS = "Shop-v0", 100
COLLECT = [f"--env={WORLD}", "--num_episodes=2000", "--num_validation_episodes=50", f"--num_test_episodes={NUM_TASKS}"]
TRAIN = ["--config=configs/new_world.py"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The run's directory and the data's."""
    folder = tmp_path_factory.mktemp("shop_world")
    patch = pytest.MonkeyPatch()
    patch.setenv(registry.WORLDS, "")
    shop_world.register()
    left_out = ("JAX_DISABLE_MOST_OPTIMIZATIONS", "XLA_FLAGS")  # it computes more than it compiles
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    environment |= {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]), "JAX_PLATFORMS": "cpu"}

    def run(name, *arguments):
        command = [sys.executable, "-m", f"anyorder_jax.{name}", *arguments]
        done = subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]

    run("collect", f"--output_dir={folder / 'data'}", *COLLECT)
    run("train", *TRAIN, f"--config.data.path={folder / 'data'}", f"--workdir={folder / 'run'}")
    yield folder / "run", folder / "data"
    patch.undo()


def code_of(text):
    """The code in a text, or None."""
    found = re.search(rf"[{shop_world.UPPER}][{shop_world.DIGITS}][{shop_world.LOWER}]", text or "")
    return found and found[0]


def test_it_is_solved_with_arguments_copied_from_the_page(trained):
    run, data = trained
    config, model_config, params, tokenizer = weights.load_for_inference(run)
    task = open_task(config, tokenizer)
    assert task.decision() == (Kind.ACTION,)
    tasks = evaluation.tasks_of(data, "test")
    found = evaluation.evaluate(task, Generator(config, model_config, params, task), WORLD, tasks)["policies"]
    measures = {name: policy["measures"] for name, policy in found.items()}
    assert measures["model"]["success"].value >= 0.95, {m: str(e) for m, e in measures["model"].items()}
    assert measures["expert"]["success"].value == 1
    for name in ("random_valid", "most_frequent", "repeat_last"):
        assert measures[name]["success"].high < 0.1, name
    bought = {code_of(e.last_action()) for e in found["model"]["episodes"] if e.is_success}
    seen = {
        code_of(unit.text)
        for episode in sources.read_trajectories(data, "train", 2000)
        for unit in episode.units
        if unit.kind in (Kind.ACTION, Kind.OBSERVATION)
    }
    assert len(bought) >= 15 and not bought & seen and len(seen) > 100  # never seen in training, not learned by heart


def test_the_command_acts_with_a_reused_prefix(trained, tmp_path):
    """An approximation: most of the tasks must be solved all the same."""
    request = Request(num_episodes=20, output_dir=str(tmp_path / "out"), decoding=Decoding(reuse_prefix=True))
    with pytest.raises(ValueError, match="--reuse_prefix: expected weights on one device, they lie on 8"):
        evaluate.evaluate(str(trained[0]), request)
    assert not (tmp_path / "out").exists()  # refused before anything is asked
    found = evaluate.evaluate(str(trained[0]), dataclasses.replace(request, mesh="data:1"))
    assert found["acting"]["decoding"] == {"threshold": 0.95, "reuse_prefix": True}
    success = found["acting"]["measures"]["model"]["success"]
    assert success["count"] == 20 and success["value"] >= 0.8, success
