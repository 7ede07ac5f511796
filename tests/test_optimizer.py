"""What each optimizer holds, that its rounding is right on average, and that it learns."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyorder_jax import checkpoint, digest, optimizer
from anyorder_jax.config import CheckpointConfig, ModelSelection, OptimizerConfig
from runs import MeshConfig, Trainer, random_batch, tiny_config

BATCH = random_batch(0)
NARROW = ModelSelection(param_dtype="bfloat16")
OPTIONS = {
    "float32": (OptimizerConfig(), ModelSelection()),
    "float32, computed in bfloat16": (OptimizerConfig(), ModelSelection(compute_dtype="bfloat16")),
    "bfloat16 moments": (OptimizerConfig(moment_dtype="bfloat16"), ModelSelection()),
    "8 bits": (OptimizerConfig(name="adamw8bit"), ModelSelection()),
    "adafactor": (OptimizerConfig(name="adafactor"), ModelSelection()),
    "muon": (OptimizerConfig(name="muon"), ModelSelection()),
    "bfloat16 weights": (OptimizerConfig(stochastic_rounding=True, moment_dtype="bfloat16"), NARROW),
    "bfloat16 weights, 8 bits": (OptimizerConfig(stochastic_rounding=True, name="adamw8bit"), NARROW),
}
BYTES_PER_WEIGHT = {
    "float32": 12, "float32, computed in bfloat16": 12, "bfloat16 moments": 8, "8 bits": 6.13, "adafactor": 4.6,
    "muon": 9, "bfloat16 weights": 6, "bfloat16 weights, 8 bits": 4.13,
}  # fmt: skip


def config_of(option, **sections):
    optimizer_config, model = OPTIONS[option]
    optimizer_config = dataclasses.replace(optimizer_config, warmup_steps=2, learning_rate=1e-2)
    return tiny_config(optimizer=optimizer_config, model=model, **sections)


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_learns_and_holds_what_it_says(option):
    trainer = Trainer(config_of(option))
    held = sum(x.nbytes for x in jax.tree.leaves((trainer.state.params, trainer.state.opt_state)))
    num_weights = sum(x.size for x in jax.tree.leaves(trainer.state.params))
    assert held / num_weights < BYTES_PER_WEIGHT[option] * 1.02
    losses = trainer.run([BATCH] * 30)
    assert losses[-1] < 0.7 * losses[0]


def test_rounding_is_a_function_of_the_step_so_that_a_resumed_run_repeats_it():
    one, other = (Trainer(config_of("bfloat16 weights, 8 bits")).run([BATCH] * 4) for _ in range(2))
    assert one == other


def test_quantised_moments_lie_with_their_weights_on_a_mesh(devices):
    mesh = MeshConfig(data=1, fsdp=2, expert=2)
    trainer = Trainer(config_of("8 bits", mesh=mesh), devices[:4])
    moments = trainer.state.opt_state.inner_states["trained"].inner_state[1][0]
    bits, weight = moments.first["moe"]["expert_down"].bits, trainer.state.params["moe"]["expert_down"]
    assert bits.sharding == weight.sharding and not bits.sharding.is_fully_replicated
    alone = Trainer(config_of("8 bits"))
    np.testing.assert_allclose(trainer.run([BATCH] * 3), alone.run([BATCH] * 3), rtol=1e-2)


def test_muon_moves_every_head_gate_and_expert_alike_and_the_rest_as_adamw():
    shapes = Trainer(config_of("muon")).state.params
    grads = jax.tree.map(lambda p: jax.random.normal(jax.random.key(p.size), p.shape), shapes)
    width = shapes["moe"]["key_norm"].shape[-1]
    grads["moe"]["query_key_value"] = grads["moe"]["query_key_value"].at[..., :width].multiply(1e3)  # a loud head
    config = dataclasses.replace(OPTIONS["muon"][0], weight_decay=0, clip_norm=1e9, learning_rate=1.0, warmup_steps=1)
    moved = {}
    for name in ("muon", "adamw"):
        rule, _ = optimizer.make_optimizer(dataclasses.replace(config, name=name), 100, shapes)
        moved[name] = rule.update(grads, rule.init(shapes), shapes)[0]
    for path in (("embedding",), ("head",), ("moe", "router"), ("moe", "input_norm")):
        one, other = (functools.reduce(lambda node, key: node[key], path, moved[name]) for name in ("muon", "adamw"))
        np.testing.assert_array_equal(one, other)
    qkv = np.asarray(moved["muon"]["moe"]["query_key_value"])
    heads = np.moveaxis(qkv.reshape(*qkv.shape[:2], -1, width), 2, 1)
    gates = np.moveaxis(np.asarray(moved["muon"]["moe"]["expert_gate_up"]), 3, 2)
    for matrices in (heads, gates, np.asarray(moved["muon"]["moe"]["attention_output"])):
        sizes = np.sqrt(np.square(matrices).mean((-2, -1)))
        # five Newton-Schulz steps bring singular values near 1, not to it
        assert (abs(sizes / optimizer.MUON_RMS - 1) < 0.25).all()
    assert np.linalg.cond(heads).max() < 3


def test_muon_on_a_plain_matrix_is_optaxs():
    tree = {"down": jax.random.normal(jax.random.key(0), (1, 12, 8))}
    ours = optimizer.scale_by_matrix_muon(4, "float32")
    theirs = optax.contrib.muon(1.0, consistent_rms=optimizer.MUON_RMS)
    plain = {"down": tree["down"][0]}
    states = [ours.init(tree), theirs.init(plain)]
    for scale in (1.0, -0.5):
        one, states[0] = ours.update(jax.tree.map(lambda x, s=scale: x * s, tree), states[0])
        other, states[1] = theirs.update(jax.tree.map(lambda x, s=scale: x * s, plain), states[1], plain)
        np.testing.assert_allclose(one["down"][0], -other["down"], rtol=1e-5)


def test_muons_momentum_lies_with_its_weights_on_a_mesh(devices):
    mesh = MeshConfig(data=1, fsdp=2, expert=2)
    trainer = Trainer(config_of("muon", mesh=mesh), devices[:4])
    rule = trainer.state.opt_state.inner_states["trained"].inner_state[1][0]
    momentum = rule.inner_states["muon"].inner_state.mu["moe"]
    for name in ("query_key_value", "expert_down"):
        weight = trainer.state.params["moe"][name]
        assert momentum[name].sharding == weight.sharding and not weight.sharding.is_fully_replicated
    second = rule.inner_states["adamw"].inner_state.nu["embedding"]
    assert second.sharding == trainer.state.params["embedding"].sharding
    alone = Trainer(config_of("muon"))
    np.testing.assert_allclose(trainer.run([BATCH] * 3), alone.run([BATCH] * 3), rtol=1e-2)


def test_moments_that_wait_on_the_host_change_nothing(tmp_path):
    plain = config_of("bfloat16 moments")
    offloaded = dataclasses.replace(plain, optimizer=dataclasses.replace(plain.optimizer, offload=True))
    trainers = [Trainer(config) for config in (plain, offloaded)]
    losses = [trainer.run([BATCH] * 3) for trainer in trainers]
    assert losses[0] == losses[1]
    kinds = [{x.sharding.memory_kind for x in jax.tree.leaves(t.state.opt_state) if x.ndim} for t in trainers]
    assert kinds == [{"device"}, {"pinned_host"}]
    assert digest.of_arrays(trainers[0].state.opt_state) == digest.of_arrays(trainers[1].state.opt_state)
    store = checkpoint.Checkpointer(tmp_path, CheckpointConfig())
    store.save(trainers[1].state, {}, {})
    store.close()
    store = checkpoint.Checkpointer(tmp_path, CheckpointConfig())
    trainers[1].state = store.restore_newest(trainers[1].shapes, lambda meta: None).state
    assert trainers[0].run([BATCH]) == trainers[1].run([BATCH])


def test_our_adam_in_float32_is_optaxs():
    grads = {"a": jnp.linspace(-1, 1, 12).reshape(3, 4), "b": jnp.array([1e-4])}
    ours, theirs = optimizer.scale_by_adam(0.9, 0.98, 1e-8, "float32"), optax.scale_by_adam(0.9, 0.98, 1e-8)
    states = [ours.init(grads), theirs.init(grads)]
    for scale in (1.0, -0.3, 0.01):
        step = jax.tree.map(lambda g, scale=scale: g * scale, grads)
        one, states[0] = ours.update(step, states[0])
        other, states[1] = theirs.update(step, states[1])
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), one, other)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99), width=st.sampled_from([5, 64, 192]), power=st.sampled_from([2, 4]))
def test_eight_bits_are_near_and_zero_stays_zero(seed, width, power):
    x = np.random.default_rng(seed).normal(size=(3, width)).astype(np.float32)
    x[0, 0] = 0
    bits = optimizer.noise(x.shape, jax.random.key(seed))
    back = np.asarray(optimizer.dequantise(optimizer.quantise(jnp.asarray(x), power, bits), power))
    assert back[0, 0] == 0 and (np.sign(back) * np.sign(x) >= 0).all()
    blocks = x.reshape(3, -1, 64) if width % 64 == 0 else x[:, None]
    largest = np.broadcast_to(np.abs(blocks).max(-1, keepdims=True), blocks.shape).reshape(x.shape)
    spacing = power * np.maximum(np.abs(x) / largest, (1 / 127) ** power) ** (1 - 1 / power) / 127 * largest
    assert (np.abs(back - x) <= 2.5 * spacing).all()


def test_stochastic_rounding_keeps_updates_that_plain_rounding_loses():
    start, update = jnp.ones(4096, jnp.bfloat16), jnp.full(4096, 1e-4)
    plain, rounded = start, start
    for n in range(100):
        plain = optimizer.apply_updates([plain], [update], None)[0]
        rounded = optimizer.apply_updates([rounded], [update], jax.random.key(n))[0]
    assert (plain == 1).all()
    np.testing.assert_allclose(rounded.astype(jnp.float32).mean(), 1.01, atol=1e-3)
    bits = optimizer.noise((2,), jax.random.key(0))
    assert optimizer.round_stochastically(jnp.array([jnp.inf, 1.0]), bits).tolist() == [jnp.inf, 1.0]


@pytest.mark.parametrize("shape", [(1 << 16,), (3, 64, 512), (4, 2, 8, 1024), (1, 65536)])
def test_noise_is_even_and_of_every_element_layer_and_key_its_own(shape):
    """Every bit is set half of the time; no two neighbours, layers, halves or keys go together (|r| within 5 deviations
    of independent draws)."""
    draws = [np.asarray(optimizer.noise(shape, jax.random.key(n))) for n in range(2)]
    bound = 5 / np.sqrt(draws[0].size)
    for draw in draws:
        for bit in range(32):
            assert abs((draw >> bit & 1).mean() - 0.5) <= bound / 2 * 1.5, bit
    halves = [(draw & 0xFFFF).ravel() / 65536 for draw in draws] + [(draw >> 16).ravel() / 65536 for draw in draws]
    for n, one in enumerate(halves):
        pairs = [
            (one[:-step], one[step:]) for step in (1, 2, shape[-1], one.size // shape[0]) if 0 < step < one.size // 2
        ]
        for a, b in [*pairs, *((one, other) for other in halves[n + 1 :])]:
            assert abs(np.corrcoef(a, b)[0, 1]) <= 5 / np.sqrt(a.size)
    assert np.unique(draws[0]).size > 0.99 * draws[0].size
