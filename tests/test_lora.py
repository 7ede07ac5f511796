"""LoRA: the base's numbers at the start, the merged model's gradients, only factors trained; the base in 8 bits."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anyorder_jax.config import LoRAConfig
from anyorder_jax.model import lora, moe, transformer
from anyorder_jax.model.attention import Full
from anyorder_jax.pretrained.load import load_params, read_model_config
from runs import MASK, MeshConfig, Trainer, random_batch, tiny_config, tiny_model

MODEL = tiny_model()
TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, MASK, (2, 8)), jnp.int32)
POSITIONS = jnp.broadcast_to(jnp.arange(8), (2, 8))
CONFIGS = {"base": LoRAConfig(rank=4, alpha=6.0), "int8": LoRAConfig(rank=4, alpha=6.0, base_dtype="int8")}


def parameters(config):
    """Random weights, with B as it is at no start: not zero."""
    params = transformer.init(MODEL, jax.random.key(0), "float32", config)
    noise = np.random.default_rng(1)
    for group in params["lora"].values():
        for own in group.values():
            own["b"] = jnp.asarray(0.05 * noise.normal(size=own["b"].shape), jnp.float32)
    return params


@functools.partial(jax.jit, static_argnums=1)
def logits(params, config):
    return transformer.apply(
        MODEL, params, TOKENS, POSITIONS, Full(), transformer.Computation(lora_config=config)
    ).logits_BLV


def test_the_first_output_is_the_bases_bit_for_bit():
    params = transformer.init(MODEL, jax.random.key(0), "float32", CONFIGS["base"])
    plain = transformer.init(MODEL, jax.random.key(0), "float32")
    np.testing.assert_array_equal(logits(params, CONFIGS["base"]), logits(plain, LoRAConfig()))
    with pytest.raises(ValueError, match="hold no factors"):
        logits(plain, CONFIGS["base"])


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_outputs_and_gradients_are_those_of_the_merged_model(config):
    """W + alpha / rank * A B written out as a dense model, differentiated with respect to A and B."""
    factors, base = lora.split(parameters(config))
    weights = jnp.asarray(np.random.default_rng(2).normal(size=(*TOKENS.shape, MODEL.vocab_size)), jnp.float32)

    def beside(factors):
        return (logits({**base, **factors}, config) * weights).sum()

    def merged(factors):
        return (logits(lora.fold({**base, **factors}, config), LoRAConfig()) * weights).sum()

    (ours, grads), (dense, expected) = (jax.jit(jax.value_and_grad(f))(factors) for f in (beside, merged))
    assert abs(ours - dense) < 1e-4 * abs(dense)
    for (path, grad), theirs in zip(jax.tree.leaves_with_path(grads), jax.tree.leaves(expected), strict=True):
        assert jnp.abs(theirs).max() > 1e-3, path  # every factor is used
        np.testing.assert_allclose(grad, theirs, atol=2e-4 * float(jnp.abs(theirs).max()), err_msg=str(path))


def test_factors_of_experts_for_another_back_end():
    rng = np.random.default_rng(3)
    array = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    T, D, E, F, r = 12, 8, 4, 6, 2
    arrays = array(T, D), array(E, D, 2, F), array(E, F, D)
    factors = array(E, D, 2, r), array(E, r, 2, F), array(E, F, 1, r), array(E, r, 1, D)
    expert, weight = jnp.asarray(rng.integers(0, E - 1, (T, 2)), jnp.int32), array(T, 2)

    def out(backend, gate_up, down, factors):
        return moe.experts(arrays[0], expert, weight, gate_up, down, backend=backend, factors=factors)[0]

    merged = (
        arrays[1] + jnp.einsum("einr,erno->eino", *factors[:2]),
        arrays[2] + jnp.einsum("einr,erno->eio", *factors[2:]),
    )
    expected = out("tiles", *merged, ())
    for backend in ("pieces", "ragged"):
        np.testing.assert_allclose(out(backend, *arrays[1:], factors), expected, rtol=1e-3, atol=1e-3)


@functools.cache
def trained_alone(kind):
    """(trainer after 20 updates on one device, parameters at the start, losses)."""
    trainer = Trainer(tiny_config(lora=CONFIGS[kind]))
    before = jax.tree.map(np.asarray, trainer.state.params)
    return trainer, before, trainer.run([random_batch(0)] * 20)


@pytest.mark.parametrize("kind", CONFIGS)
def test_it_learns_and_trains_factors_only(kind):
    trainer, before, losses = trained_alone(kind)
    assert losses[-1] < 0.7 * losses[0]
    (factors, base), (old_factors, old_base) = lora.split(trainer.state.params), lora.split(before)
    jax.tree.map(np.testing.assert_array_equal, base, old_base)
    assert not any(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), factors, old_factors)))
    num_trained = sum(x.size for x in jax.tree.leaves(factors))
    assert sum(x.size for x in jax.tree.leaves(trainer.state.opt_state)) <= 2 * num_trained + 10


def test_a_mesh_trains_like_one_device(devices):
    _, before, losses = trained_alone("int8")
    mesh = MeshConfig(data=1, fsdp=2, expert=2, tensor=2)
    spread = Trainer(tiny_config(lora=CONFIGS["int8"], mesh=mesh), devices)
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(np.asarray, spread.state.params), before)
    own = spread.state.params["lora"]["moe"]["expert_gate_up"]["b"]
    moments = spread.state.opt_state.inner_states["trained"].inner_state[1][0].mu["lora"]["moe"]["expert_gate_up"]
    assert moments["b"].sharding == own.sharding and not own.sharding.is_fully_replicated
    np.testing.assert_allclose(spread.run([random_batch(0)] * 3), losses[:3], rtol=2e-5)


def test_only_the_targets_get_factors():
    config = LoRAConfig(rank=2, targets="attention,experts", base_dtype="int8")
    params = transformer.init(MODEL, jax.random.key(0), "float32", config)
    assert set(params["lora"]["dense"]) == {"query_key_value", "attention_output"}
    assert set(params["lora"]["moe"]) == {"query_key_value", "attention_output", "expert_gate_up", "expert_down"}
    held = {name for name, node in params["moe"].items() if lora.is_in_bits(node)}
    assert held == lora.ALL_MATRICES - {"gate_up", "down"}


def test_eight_bits_are_within_half_a_step_of_every_output():
    weight = np.random.default_rng(4).normal(size=(3, 5, 16, 2, 4)).astype(np.float32)
    weight[0, 1, :, 1, 2] = 0
    held = lora.quantise(jnp.asarray(weight), 2)
    assert held["bits"].dtype == jnp.int8 and held["scale"].shape == (3, 5, 2, 4)
    assert (jnp.abs(held["bits"]).max(2) == np.where(weight.any(2), 127, 0)).all()  # the whole range is used
    back = lora.widen({"expert_gate_up": jax.tree.map(lambda x: x[0], held)}, jnp.float32)["expert_gate_up"]
    assert (np.abs(back - weight[0]) <= 0.5001 * np.asarray(held["scale"])[0][:, None]).all()
    assert (np.asarray(back)[1, :, 1, 2] == 0).all()


def test_eight_bits_beside_bfloat16_on_the_references_numbers():
    """Logits of golden/a: what 8 bits of the matrices change is of the size of what bfloat16 changes."""
    golden = Path(__file__).parent / "golden" / "a"
    config = read_model_config(golden / "split_bf16")
    params = load_params(golden / "split_bf16", config)
    with np.load(golden / "expected.npz") as file:
        tokens, expected = jnp.asarray(file["input_ids"], jnp.int32), file["full_logits"]
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    lora_config = LoRAConfig(rank=1, base_dtype="int8")
    fresh = lora.split(transformer.parameters(config, "float32", lora_config))[0]
    held = {**lora.hold(params, lora_config), **transformer.draw(fresh, jax.random.key(0))}

    def median(params, lora_config, dtype):
        output = transformer.apply(
            config,
            params,
            tokens,
            positions,
            Full(),
            transformer.Computation(jnp.dtype(dtype), lora_config=lora_config),
        )
        return float(np.median(np.abs(output.logits_BLV - expected)))

    eight, sixteen = median(held, lora_config, "float32"), median(params, LoRAConfig(), "bfloat16")
    print(f"median difference of golden/a logits: int8 matrices {eight:.4f}, bfloat16 {sixteen:.4f}")
    assert 0.01 < eight < 2 * sixteen


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"rank": -1}, "config.lora.rank: expected an integer >= 1, or 0"),
        ({"rank": 2, "targets": "attention,router"}, "config.lora.targets: expected names out of attention, dense"),
        ({"base_dtype": "int8"}, "without factors"),
        ({"rank": 2, "base_dtype": "int4"}, "config.lora.base_dtype: expected 'int8'"),
    ],
)
def test_what_cannot_be_is_refused(values, said):
    with pytest.raises(ValueError, match=said):
        LoRAConfig(**values)
