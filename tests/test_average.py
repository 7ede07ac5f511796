"""The mean of checkpoints is their mean, opens like any run, and nothing goes on from it."""

import json

import jax
import numpy as np
import pytest

from anyorder_jax import checkpoint, run_directory, sharding, weights
from anyorder_jax.config import CheckpointConfig, LoRAConfig, to_json
from conversion import __main__ as conversion
from conversion.average import average
from runs import Trainer, random_batch, tiny_config

LOSSES = {2: 1.5, 4: 1.2, 6: 1.3}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(a run with three steps, the parameters of each)."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    trainer, params = Trainer(tiny_config()), {}
    meta = run_directory.describe(tiny_config(), trainer.model_config, {})
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "tokenizer" / "tokenizer.json").write_text("{}", encoding="utf-8")
    (folder / "config.json").write_text(to_json(tiny_config()), encoding="utf-8")
    with checkpoint.Checkpointer(folder, CheckpointConfig(keep_last=3, keep_best=3)) as saver:
        for step, loss in LOSSES.items():
            for seed in (step, step + 1):
                batch = sharding.place_batch(random_batch(seed), trainer.mesh)
                trainer.state, _ = trainer.train_step(trainer.state, batch)
            params[step] = [np.asarray(leaf) for leaf in jax.tree.leaves(trainer.state.params)]
            saver.save(trainer.state, {}, meta, loss)
    return folder, params


@pytest.mark.parametrize(
    ("flags", "steps"),
    [("--last=2", [4, 6]), ("--best=2", [4, 6]), ("--steps=2,6", [2, 6]), ("--last=3", [2, 4, 6])],
)
def test_it_is_the_mean_and_opens_like_a_run(run, tmp_path, flags, steps):
    folder, params = run
    output = tmp_path / "mean"
    command = ["average", f"--checkpoint={folder}", f"--output_path={output}", flags]
    assert conversion.main(command) == 0
    found = weights.load_for_inference(output)[2]
    for ours, *theirs in zip(jax.tree.leaves(found), *(params[step] for step in steps), strict=True):
        np.testing.assert_allclose(ours, np.mean(theirs, 0), rtol=1e-6, atol=1e-7)
    assert run_directory.read_meta(output)["average_of"] == steps
    assert (output / "tokenizer" / "tokenizer.json").is_file()
    assert conversion.main(["inspect", str(output)]) == 0  # its digests


def test_best_is_by_validation_loss(run, tmp_path):
    average(run[0], tmp_path / "mean", best=2)
    assert run_directory.read_meta(tmp_path / "mean")["average_of"] == [4, 6]
    assert sorted(LOSSES, key=LOSSES.get)[:2] == [4, 6]


@pytest.mark.parametrize(
    ("which", "told"),
    [
        ({"last": 1}, "expected 2 checkpoints or more"),
        ({"last": 4}, "expected 4 checkpoints or more"),
        ({"last": -1}, "expected 2 checkpoints or more"),
        ({"best": 5}, "only 3 checkpoints"),
        ({"steps": "2,5"}, r"there are \[2, 4, 6\]"),
        ({"steps": "2,x"}, "--steps: expected numbers"),
    ],
)
def test_what_cannot_be_averaged_is_refused_and_leaves_nothing(run, tmp_path, which, told):
    with pytest.raises(ValueError, match=told):
        average(run[0], tmp_path / "mean", **which)
    assert not list(tmp_path.iterdir())


def test_a_damaged_step_is_refused_and_leaves_nothing(run, tmp_path):
    meta = run[0] / "checkpoints" / "4" / "meta" / "metadata"
    before = meta.read_text()
    values = run_directory.verified(json.loads(before))
    values["digests"]["params"][0] += 1
    try:
        meta.write_text(json.dumps(run_directory.sealed(values)))
        with pytest.raises(ValueError, match="damaged"):
            average(run[0], tmp_path / "mean", steps="2,4")
    finally:
        meta.write_text(before)
    assert not (tmp_path / "mean").exists()


def test_factors_are_not_averaged(run, tmp_path, monkeypatch):
    config = tiny_config(lora=LoRAConfig(rank=2))
    trainer = Trainer(config)
    meta = run_directory.describe(config, trainer.model_config, {})
    with checkpoint.Checkpointer(tmp_path / "run", CheckpointConfig(keep_last=2)) as saver:
        for step in (1, 2):
            batch = sharding.place_batch(random_batch(step), trainer.mesh)
            trainer.state, _ = trainer.train_step(trainer.state, batch)
            saver.save(trainer.state._replace(params={"lora": trainer.state.params["lora"]}), {}, meta)
    with pytest.raises(ValueError, match="the mean of factors"):
        average(tmp_path / "run", tmp_path / "mean", last=2)
