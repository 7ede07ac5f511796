"""One update: the same on every mesh, the same for every split into micro-batches, harmless when not finite."""

import dataclasses
import runpy
from pathlib import Path

import jax
import numpy as np
import pytest

from anyorder_jax import sharding, step
from anyorder_jax.config import LossConfig, ModelSelection, OptimizerConfig, TrainConfig, freeze
from anyorder_jax.model import transformer
from runs import MeshConfig, Trainer, random_batch, tiny_config, tiny_model

BATCHES = [random_batch(seed) for seed in range(6)]


def as_numpy(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def run(trainer):
    """Losses and norms of the gradients of six updates, and the weights after them."""
    metrics = []
    for batch in BATCHES:
        trainer.state, one = trainer.train_step(trainer.state, sharding.place_batch(batch, trainer.mesh))
        metrics.append((float(one["loss"]), float(one["grad_norm"])))
    return np.array(metrics), as_numpy(trainer.state.params)


def compare(alone, trainer):
    metrics, params = run(trainer)
    np.testing.assert_allclose(metrics, alone[0], rtol=2e-5)
    for ours, theirs in zip(params, alone[1], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)


@pytest.fixture(scope="module")
def alone():
    return run(Trainer(tiny_config()))


def test_the_loss_falls(alone):
    trainer = Trainer(tiny_config())
    losses = trainer.run([BATCHES[0]] * 30)
    assert losses[-1] < 0.7 * losses[0]


MESHES = [
    (2, MeshConfig(data=2)),
    (2, MeshConfig(data=1, fsdp=2)),
    (2, MeshConfig(data=1, expert=2)),
    (2, MeshConfig(data=1, tensor=2)),
    (4, MeshConfig(data=1, fsdp=2, expert=2)),
    (8, MeshConfig(data=1, fsdp=2, expert=2, tensor=2)),
    (8, MeshConfig(data=1, fsdp=8)),
]


def axes_split(mesh):
    return frozenset(axis for axis in sharding.AXES if getattr(mesh, axis) != 1)


@pytest.mark.parametrize("recipe", sorted(Path(__file__).parents[1].glob("configs/*.py")), ids=lambda p: p.stem)
def test_every_recipe_splits_a_mesh_that_is_tried_here(recipe):
    mesh = freeze(runpy.run_path(str(recipe))["get_config"]()).mesh
    assert axes_split(mesh) in {axes_split(tried) for _, tried in MESHES}


@pytest.mark.parametrize(
    ("count", "mesh"), MESHES,
    ids=lambda v: str(v) if isinstance(v, int) else f"d{v.data}f{v.fsdp}e{v.expert}t{v.tensor}",
)  # fmt: skip
def test_every_mesh_trains_like_one_device(alone, devices, count, mesh):
    compare(alone, Trainer(tiny_config(mesh=mesh), devices[:count]))


def test_block_routing_on_a_mesh_trains_like_one_device(devices):
    model = tiny_model(block_size=4, expert_capacity=3)
    alone = run(Trainer(tiny_config(), model_config=model))
    mesh = MeshConfig(data=1, fsdp=2, expert=2, tensor=2)
    compare(alone, Trainer(tiny_config(mesh=mesh), devices, model))


def test_a_mesh_of_the_large_recipes_trains_like_one_device(devices, monkeypatch):
    """Scanned layers that are recomputed, each device with its part of the weights and of the experts, against an
    unrolled stack."""
    model = tiny_model(num_hidden_layers=4)
    alone = run(Trainer(tiny_config(), model_config=model))
    monkeypatch.setattr(transformer, "MAX_UNROLLED_LAYERS", 0)
    config = tiny_config(mesh=MeshConfig(data=1, fsdp=2, expert=4), model=ModelSelection(remat="full"))
    compare(alone, Trainer(config, devices, model))


@pytest.mark.parametrize("normalisation", ["kind", "token"])
def test_micro_batches_make_the_large_batch(normalisation):
    def train(num_micro):
        config = tiny_config(train=TrainConfig(num_steps=50, accumulation_steps=num_micro))
        config = dataclasses.replace(config, loss=dataclasses.replace(config.loss, normalisation=normalisation))
        trainer = Trainer(config)
        return trainer.run(BATCHES), as_numpy(trainer.state.params)

    (losses, params), (losses_4, params_4) = train(1), train(4)
    np.testing.assert_allclose(losses_4, losses, rtol=2e-5)
    for ours, theirs in zip(params_4, params, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_a_step_that_is_not_finite_changes_nothing():
    trainer = Trainer(tiny_config())
    trainer.run(BATCHES[:1])
    before = as_numpy((trainer.state.params, trainer.state.opt_state))
    poisoned = BATCHES[1]._replace(rate=np.zeros_like(BATCHES[1].rate))
    config = tiny_config()
    config = dataclasses.replace(config, loss=dataclasses.replace(config.loss, normalisation="rate"))
    other = Trainer(config)
    other.state = trainer.state
    other.run([poisoned])
    for now, then in zip(as_numpy((other.state.params, other.state.opt_state)), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_frozen_and_undecayed_weights(alone):
    optimizer = OptimizerConfig(weight_decay=0.5, update_pad_embedding=False, decay="all")
    trainer = Trainer(tiny_config(optimizer=optimizer))
    before = jax.tree.map(np.asarray, trainer.state.params)
    trainer.run(BATCHES[:2])
    after = trainer.state.params
    np.testing.assert_array_equal(after["moe"]["expert_bias"], before["moe"]["expert_bias"])
    row = np.asarray(after["embedding"])[38] / before["embedding"][38]
    np.testing.assert_allclose(row, row[0], rtol=1e-5)  # decayed only: every entry shrinks alike
    assert row[0] < 1


def test_optimizer_rules_cover_what_they_should():
    from anyorder_jax.optimizer import DECAY, FROZEN, match_rules

    params = Trainer(tiny_config()).state.params
    decayed = match_rules(params, DECAY["matrices"])
    assert decayed["embedding"] and decayed["moe"]["expert_down"] and not decayed["final_norm"]
    assert not decayed["moe"]["query_norm"] and not decayed["moe"]["expert_bias"]
    frozen = match_rules(params, FROZEN)
    assert [k for k, v in frozen["moe"].items() if v] == ["expert_bias"]
    with pytest.raises(ValueError, match="no rule covers final_norm"):
        match_rules({"final_norm": 0}, ((r"embedding", True),))


def test_micro_batches_of_bfloat16_weights_are_summed_in_float32():
    """Sixteen times the same row, one at a time, is that row: bfloat16 sums of the sixteenths would be rounded."""
    row = jax.tree.map(lambda x: x[:1], BATCHES[0])
    rows = jax.tree.map(lambda x: np.repeat(x, 16, 0), row)

    def norm(batch, num_rows):
        train = TrainConfig(num_steps=50, batch_size=num_rows, accumulation_steps=num_rows)
        trainer = Trainer(tiny_config(train=train, model=ModelSelection(param_dtype="bfloat16")))
        _, metrics = trainer.train_step(trainer.state, sharding.place_batch(batch, trainer.mesh))
        return float(metrics["grad_norm"])

    np.testing.assert_allclose(norm(rows, 16), norm(row, 1), rtol=1e-6)


@pytest.mark.parametrize("normalisation", ["kind", "token", "rate"])
def test_validation_does_not_depend_on_how_rows_are_cut(devices, normalisation):
    rows = random_batch(0, rows=16)
    rows = rows._replace(is_target=rows.is_target & (np.arange(16)[:, None] != 3))  # a row without targets
    rows = rows._replace(kind=np.where(np.arange(16)[:, None] < 8, 1, rows.kind).astype(np.int8))  # kinds come later
    found = []
    for batch_size, accumulation, num_devices in ((16, 1, 1), (4, 1, 1), (2, 1, 2), (16, 4, 1), (8, 1, 8)):
        config = tiny_config(
            train=TrainConfig(batch_size=batch_size, accumulation_steps=accumulation),
            loss=LossConfig(normalisation=normalisation, confidence_weight=0.5),
            mesh=MeshConfig(),
        )
        trainer = Trainer(config, devices[:num_devices])
        validate = step.make_validation_step(config, trainer.model_config, trainer.mesh)
        found.append(jax.device_get(validate(trainer.state.params, sharding.place_batch(rows, trainer.mesh))))
    for other in found[1:]:
        assert other.keys() == found[0].keys()
        for name, value in found[0].items():
            np.testing.assert_allclose(other[name], value, rtol=1e-5, err_msg=name)
