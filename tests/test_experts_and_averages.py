"""What fine-tuning of mixtures asks for: even experts without a loss, a frozen router, histograms, running averages."""

import dataclasses

import jax
import numpy as np
import pytest

from anyorder_jax import checkpoint, run_directory, sharding, step, weights
from anyorder_jax.config import CheckpointConfig, LogConfig, LoRAConfig, OptimizerConfig, freeze, to_json
from runs import Trainer, random_batch, tiny_config, tiny_model

BATCHES = [random_batch(seed) for seed in range(4)]


def rules(**changes):
    return OptimizerConfig(warmup_steps=2, learning_rate=1e-2, eps=1e-3, **changes)


def train(trainer, batches):
    """The metrics of every update."""
    found = []
    for batch in batches:
        trainer.state, metrics = trainer.train_step(trainer.state, sharding.place_batch(batch, trainer.mesh))
        found.append({name: float(value) for name, value in metrics.items()})
    return found


def numbers(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def test_biases_move_by_their_rate_towards_an_even_load_and_nothing_else_changes():
    plain, evened = Trainer(tiny_config()), Trainer(tiny_config(optimizer=rules(expert_bias_rate=0.01)))
    first, _ = train(plain, BATCHES[:1]), train(evened, BATCHES[:1])
    bias = np.asarray(evened.state.params["moe"].pop("expert_bias"))
    assert not np.asarray(plain.state.params["moe"].pop("expert_bias")).any()
    assert set(np.round(np.abs(bias), 6).ravel()) <= {0.0, np.float32(0.01)}
    for ours, theirs in zip(numbers(evened.state.params), numbers(plain.state.params), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert first[0]["expert_max_load"] > 1


def test_the_sign_is_that_of_the_mean_load_less_the_own():
    bias = step.evened(np.zeros((2, 4), np.float32), np.array([[9.0, 1, 2, 4], [3.0, 3, 3, 3]]), 0.5)
    np.testing.assert_array_equal(bias, [[-0.5, 0.5, 0.5, 0.0], [0, 0, 0, 0]])


def test_moving_biases_even_the_load():
    model = tiny_model(n_group=1)  # groups limit what a bias can do
    busiest = {}
    for rate in (0.0, 0.02):
        trainer = Trainer(tiny_config(optimizer=rules(expert_bias_rate=rate)), model_config=model)
        busiest[rate] = np.mean([one["expert_max_load"] for one in train(trainer, BATCHES * 10)[-8:]])
    assert busiest[0.02] < 0.75 * busiest[0.0], busiest


def test_biases_stay_with_an_update_that_is_not_applied():
    trainer = Trainer(tiny_config(optimizer=rules(expert_bias_rate=0.01, ema_decay=0.9)))
    before = numbers(trainer.state._replace(step=0))
    trainer.state, metrics = trainer.train_step(trainer.state, sharding.place_batch(BATCHES[0], trainer.mesh), 1e-9)
    assert not metrics["is_applied"]
    for ours, theirs in zip(numbers(trainer.state._replace(step=0)), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_biases_are_not_moved_beside_factors():
    with pytest.raises(ValueError, match="expert_bias_rate: expected 0 with LoRA"):
        tiny_config(optimizer=rules(expert_bias_rate=0.01), lora=LoRAConfig(rank=2))


def test_a_frozen_router_stays_and_has_no_moments():
    frozen, free = Trainer(tiny_config(optimizer=rules(freeze_router=True))), Trainer(tiny_config())
    before = np.asarray(frozen.state.params["moe"]["router"])
    metrics = train(frozen, BATCHES)
    router, free_metrics = np.asarray(frozen.state.params["moe"]["router"]), train(free, BATCHES)
    np.testing.assert_array_equal(router, before)
    assert (np.asarray(free.state.params["moe"]["router"]) != before).any()
    assert metrics[0]["grad_norm"] < free_metrics[0]["grad_norm"]
    difference = len(jax.tree.leaves(free.state.opt_state)) - len(jax.tree.leaves(frozen.state.opt_state))
    assert difference == 2


def test_the_histogram_counts_experts_by_load():
    load = np.array([[0.0, 0, 10, 10], [5, 5, 5, 5]])
    found = {name: float(value) for name, value in step.load_histogram(load, 1).items() if value}
    assert found == {"load_layer01_0": 0.5, "load_layer01_to_2": 0.5, "load_layer02_to_1": 1.0}


def test_a_step_reports_histograms_when_it_is_asked_to():
    plain = train(Trainer(tiny_config()), BATCHES[:1])[0]
    asked = train(Trainer(tiny_config(log=LogConfig(expert_load=True))), BATCHES[:1])[0]
    own = {name: value for name, value in asked.items() if name.startswith("load_layer01_")}
    assert len(own) == 7 and sum(own.values()) == pytest.approx(1)
    assert {name: value for name, value in asked.items() if name not in own} == plain


def test_the_average_is_that_of_its_equation():
    trainer = Trainer(tiny_config(optimizer=rules(ema_decay=0.5)))
    mean = numbers(trainer.state.params)
    for n, batch in enumerate(BATCHES):
        train(trainer, [batch])
        d = min(0.5, (1 + n) / (10 + n))
        mean = [d * m + (1 - d) * p for m, p in zip(mean, numbers(trainer.state.params), strict=True)]
    for ours, theirs in zip(numbers(trainer.state.opt_state.ema), mean, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)


def test_what_is_off_leaves_the_state_as_it_was():
    names = [str(path) for path, _ in jax.tree_util.tree_leaves_with_path(Trainer(tiny_config()).state)]
    assert not any("ema" in name for name in names)


@pytest.mark.parametrize("rank", [0, 2])
def test_a_run_with_an_average_resumes_bit_for_bit_and_is_read_back(tmp_path, rank):
    config = tiny_config(
        optimizer=rules(ema_decay=0.9, expert_bias_rate=0.0 if rank else 0.01),
        lora=LoRAConfig(rank=rank), model=freeze(dataclasses.asdict(tiny_config())).model,
    )  # fmt: skip
    whole, halves = Trainer(config), Trainer(config)
    train(whole, BATCHES)
    train(halves, BATCHES[:2])

    def stored(state):
        own = {key: value for key, value in state.params.items() if not rank or key == "lora"}
        return state._replace(params=own)

    def refuse_nothing(meta):
        pass

    meta = run_directory.describe(config, halves.model_config, {})
    if rank:
        meta["base"] = weights.load_base(config, halves.model_config, halves.mesh)[1]
    (tmp_path / "config.json").write_text(to_json(config), encoding="utf-8")
    with checkpoint.Checkpointer(tmp_path, CheckpointConfig()) as saver:
        saver.save(stored(halves.state), {}, meta)
    average = numbers(halves.state.opt_state.ema)
    with checkpoint.Checkpointer(tmp_path, CheckpointConfig()) as saver:
        restored = saver.restore_newest(stored(halves.shapes), refuse_nothing)
    frozen = {key: value for key, value in halves.state.params.items() if rank and key != "lora"}
    halves.state = restored.state._replace(params={**frozen, **restored.state.params})
    train(halves, BATCHES[2:])
    for ours, theirs in zip(numbers(halves.state), numbers(whole.state), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    read = weights.load_for_inference(tmp_path, is_average=True)[2]
    for ours, theirs in zip(numbers(read["lora"] if rank else read), average, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_run_without_an_average_says_so(tmp_path):
    trainer = Trainer(tiny_config())
    with checkpoint.Checkpointer(tmp_path, CheckpointConfig()) as saver:
        saver.save(trainer.state, {}, run_directory.describe(tiny_config(), trainer.model_config, {}))
    with pytest.raises(ValueError, match=r"ema_decay = 0\."):
        weights.load_for_inference(tmp_path, is_average=True)


@pytest.mark.parametrize("text", ["10", "13:10", "a:b", "3:3"])
def test_a_window_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match=r"log\.profile_steps: expected FIRST:LAST"):
        LogConfig(profile_steps=text)
