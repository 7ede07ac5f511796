"""The model computes what the reference computed (golden a, b), and refuses configurations it would get
wrong."""

import dataclasses
import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from safetensors.numpy import load_file

from anyorder_jax import sharding, step
from anyorder_jax.config import Config, LossConfig, MeshConfig, TrainConfig
from anyorder_jax.loss import target_weights
from anyorder_jax.model import presets, transformer
from anyorder_jax.model.attention import BlockDiffusion, Full, Segments
from anyorder_jax.model.config import ModelConfig
from anyorder_jax.model.layers import rotary
from anyorder_jax.types import Batch

GOLDEN = Path(__file__).parent / "golden"


def is_declared(node):
    return isinstance(node, transformer.Parameter)


def read_json(path):
    return json.loads(path.read_text())


def places(config):
    """(reference name with merged experts, group, leaf, index into the stacked leaf, whether it is
    transposed)."""
    yield "model.word_embeddings.weight", None, "embedding", (), False
    yield "model.norm.weight", None, "final_norm", (), False
    yield "lm_head.weight", None, "head", (), True
    for layer in range(config.num_hidden_layers):
        num_dense = config.first_k_dense_replace
        group, n = ("dense", layer) if layer < num_dense else ("moe", layer - num_dense)
        name = f"model.layers.{layer}."
        yield name + "input_layernorm.weight", group, "input_norm", (n,), False
        yield name + "post_attention_layernorm.weight", group, "post_attention_norm", (n,), False
        yield name + "attention.query_layernorm.weight", group, "query_norm", (n,), False
        yield name + "attention.key_layernorm.weight", group, "key_norm", (n,), False
        yield name + "attention.query_key_value.weight", group, "query_key_value", (n,), True
        yield name + "attention.dense.weight", group, "attention_output", (n,), True
        if config.use_qkv_bias:
            yield name + "attention.query_key_value.bias", group, "query_key_value_bias", (n,), False
        if config.use_bias:
            yield name + "attention.dense.bias", group, "attention_output_bias", (n,), False
        mlps = (
            {"mlp.": ("gate_up", "down")} if group == "dense" else {"mlp.experts.": ("expert_gate_up", "expert_down")}
        )
        if group == "moe":
            yield name + "mlp.gate.weight", group, "router", (n,), True
            yield name + "mlp.gate.expert_bias", group, "expert_bias", (n,), False
            if config.num_shared_experts:
                mlps["mlp.shared_experts."] = ("shared_gate_up", "shared_down")
        for prefix, (gate_up, down) in mlps.items():
            suffix = "" if prefix == "mlp.experts." else ".weight"
            for half, part in enumerate(("gate_proj", "up_proj")):
                yield name + prefix + part + suffix, group, gate_up, (n, ..., half, slice(None)), True
            yield name + prefix + "down_proj" + suffix, group, down, (n,), True


def load(folder, config):
    """The split checkpoint as our tree in float32; every tensor is used once and every leaf is filled."""
    tensors = {}
    for shard in sorted(folder.glob("*.safetensors")):
        tensors |= {name: x.astype(np.float32) for name, x in load_file(shard).items()}
    declared = transformer.parameters(config, jnp.float32)
    tree = jax.tree.map(lambda p: np.full(p.shape, np.nan, np.float32), declared, is_leaf=is_declared)
    for name, group, leaf, index, is_transposed in places(config):
        if ".mlp.experts." in name:
            prefix, part = name.rsplit(".", 1)
            value = np.stack([tensors.pop(f"{prefix}.{e}.{part}.weight") for e in range(config.num_experts)])
        else:
            value = tensors.pop(name)
        leaf_array = tree[leaf] if group is None else tree[group][leaf]
        leaf_array[index] = value.swapaxes(-1, -2) if is_transposed else value
    assert not tensors and not any(np.isnan(x).any() for x in jax.tree.leaves(tree))
    return jax.tree.map(jnp.asarray, tree)


def named(tree, config):
    """A tree like the parameters as {reference name: array}."""
    for name, group, leaf, index, is_transposed in places(config):
        value = np.asarray(tree[leaf] if group is None else tree[group][leaf])[index]
        yield name, value.swapaxes(-1, -2) if is_transposed else value


class Golden:
    """One golden model, its expected numbers, and two compiled programs that all tests of it share."""

    def __init__(self, name):
        folder = GOLDEN / name / "split_bf16"
        self.config = ModelConfig.from_hf(read_json(folder / "config.json"))
        self.params = load(folder, self.config)
        self.expected = dict(np.load(GOLDEN / name / "expected.npz"))
        self.full = jax.jit(self._full)
        self.block_diffusion = jax.jit(jax.value_and_grad(self._block_diffusion, has_aux=True))

    def _full(self, params, tokens):
        positions = jnp.broadcast_to(jnp.arange(tokens.shape[1], dtype=jnp.int32), tokens.shape)
        return transformer.apply(self.config, params, tokens, positions, Full(), collect=True)

    def _block_diffusion(self, params, labels):
        """Mean cross-entropy of the noisy half where labels >= 0, as the reference's trainer."""
        tokens, positions = (jnp.asarray(self.expected[k]) for k in ("bd_input_ids", "bd_position_ids"))
        output = transformer.apply(self.config, params, tokens, positions, BlockDiffusion(4), collect=True)
        return cross_entropy(output.logits_BLV[:, : labels.shape[1]], labels), output

    def gradient(self, params, labels):
        """(loss, gradients, output); like torch's padding_idx, the pad token's embedding row gets none."""
        (loss, output), grads = self.block_diffusion(params, jnp.asarray(labels))
        grads["embedding"] = grads["embedding"].at[self.config.pad_token_id].set(0)
        return loss, grads, output


def cross_entropy(logits, labels):
    log_p = jax.nn.log_softmax(logits)
    nll = -jnp.take_along_axis(log_p, jnp.maximum(labels, 0)[..., None], -1)[..., 0]
    return jnp.where(labels >= 0, nll, 0).sum() / (labels >= 0).sum()


@functools.cache
def _golden(name):
    return Golden(name)


@pytest.fixture(params=["a", "b"])
def golden(request):
    return _golden(request.param)


# The README's figures: float32 implementations differ by up to 1e-5 in logits (std 2) and 2.3e-5 in hidden
# states.
CLOSE = {"rtol": 0, "atol": 4e-5}


def test_full_attention(golden):
    e, output = golden.expected, golden.full(golden.params, jnp.asarray(golden.expected["input_ids"]))
    np.testing.assert_allclose(output.logits_BLV, e["full_logits"], **CLOSE)
    np.testing.assert_allclose(output.trace.hidden_NBLD, e["full_hidden"], **CLOSE)
    np.testing.assert_allclose(output.trace.router_logits_NBLE, e["full_router_logits"], **CLOSE)
    np.testing.assert_array_equal(output.trace.expert_NBLK, e["full_topk_idx"])
    np.testing.assert_allclose(output.trace.weight_NBLK, e["full_topk_weight"], **CLOSE)
    load = [np.bincount(layer.ravel(), minlength=golden.config.num_experts) for layer in e["full_topk_idx"]]
    np.testing.assert_array_equal(output.expert_load_NE, load)


def test_scanned_layers_compute_what_unrolled_layers_do(golden, monkeypatch):
    monkeypatch.setattr(transformer, "MAX_UNROLLED_LAYERS", 0)
    output = jax.jit(golden._full)(golden.params, jnp.asarray(golden.expected["input_ids"]))
    np.testing.assert_allclose(output.logits_BLV, golden.expected["full_logits"], **CLOSE)
    np.testing.assert_allclose(output.trace.hidden_NBLD, golden.expected["full_hidden"], **CLOSE)


def test_noisy_tokens_under_full_attention(golden):
    logits = golden.full(golden.params, jnp.asarray(golden.expected["noisy_ids"])).logits_BLV
    np.testing.assert_allclose(logits, golden.expected["noisy_full_logits"], **CLOSE)
    loss = cross_entropy(logits, jnp.asarray(golden.expected["labels"]))
    np.testing.assert_allclose(loss, golden.expected["loss_same_full_attention"], rtol=1e-5)


def test_the_train_steps_block_diffusion_is_the_references(golden):
    """The step's own loss on a batch that holds the golden noisy and clean tokens, and its gradient."""
    e, config = golden.expected, golden.config
    rows, ones = e["labels"] >= 0, np.ones_like(e["labels"])
    length = rows.shape[1]
    batch = Batch(
        tokens=e["noisy_ids"], targets=e["input_ids"], is_target=rows, positions=e["bd_position_ids"][:, :length],
        segment_ids=ones, kind=ones.astype(np.int8), field=ones.astype(np.int8), rate=ones.astype(np.float32),
        example=ones,
    )  # fmt: skip
    run = Config(
        train=TrainConfig(objective="block_diffusion", block_size=4), loss=LossConfig("token", target_share=0.9)
    )
    mesh = sharding.make_mesh(MeshConfig(), jax.devices()[:1])
    weights = target_weights(batch, run.loss)
    gradient = jax.jit(jax.value_and_grad(lambda p: step.batch_loss(p, batch, weights, run, config, mesh)[0]))
    loss, grads = gradient(golden.params)
    np.testing.assert_allclose(loss, e["loss_same"], rtol=1e-5)
    ours, key = dict(named(grads, config)), "model.layers.1.attention.query_key_value.weight"
    for name in ("lm_head.weight", key):
        np.testing.assert_allclose(ours[name], e[f"grad_same:{name}"], rtol=0, atol=2e-5)


def shifted(labels):
    """Labels of the position whose logits predict the next token: logit i is asked for label i + 1."""
    return np.concatenate([labels[:, 1:], np.full_like(labels[:, :1], -100)], axis=1)


@pytest.mark.parametrize("variant", ["same", "shift"])
def test_block_diffusion_and_its_gradients(golden, variant):
    e = golden.expected
    labels = e["labels"] if variant == "same" else shifted(e["labels"])
    loss, grads, output = golden.gradient(golden.params, labels)
    np.testing.assert_allclose(output.logits_BLV, e["bd_logits"], **CLOSE)
    np.testing.assert_array_equal(output.trace.expert_NBLK, e["bd_topk_idx"])
    np.testing.assert_allclose(output.trace.weight_NBLK, e["bd_topk_weight"], **CLOSE)
    np.testing.assert_allclose(loss, e[f"loss_{variant}"], rtol=1e-5)
    ours = dict(named(grads, golden.config))
    norms = [np.linalg.norm(ours[name]) for name in e["param_names"]]
    np.testing.assert_allclose(norms, e[f"grad_norms_{variant}"], rtol=2e-5, atol=1e-7)
    compared = [key for key in e if key.startswith(f"grad_{variant}:")]
    assert len(compared) == 6
    for key in compared:
        scale = np.abs(e[key]).max()
        np.testing.assert_allclose(ours[key.split(":")[1]] / scale, e[key] / scale, rtol=0, atol=2e-5, err_msg=key)
    assert not any(ours[name].any() for name in ours if name.endswith("expert_bias"))


def test_four_adamw_steps():
    """dFactory's optimizer: decay on every weight, none of it on the buffer; the pad row shrinks without
    gradient."""
    golden = _golden("b")
    e, params = golden.expected, golden.params
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3, 0.9, 0.999, 1e-8, weight_decay=0.1))
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    bias, losses, norms = params["moe"]["expert_bias"], [], []
    for _ in range(4):
        loss, grads, _ = golden.gradient(params, e["labels"])
        losses.append(float(loss))
        norms.append(float(optax.tree.norm(grads)))
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
        params["moe"]["expert_bias"] = bias
    np.testing.assert_allclose(losses, e["adamw_losses"], rtol=1e-3)
    np.testing.assert_allclose(norms, e["adamw_grad_norms"], rtol=1e-3)
    pad_row = params["embedding"][golden.config.pad_token_id]
    np.testing.assert_allclose(pad_row, e["adamw_final_pad_row"], rtol=1e-5, atol=1e-8)


def test_bfloat16_compute_stays_near_float32():
    """Golden b routes without near ties; the reference's own bfloat16 model is 0.0168 away in the median."""
    golden = _golden("b")
    tokens = jnp.asarray(golden.expected["input_ids"])
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1], dtype=jnp.int32), tokens.shape)
    output = transformer.apply(
        golden.config, golden.params, tokens, positions, Full(), transformer.Computation(jnp.bfloat16)
    )
    assert output.hidden_BLD.dtype == jnp.bfloat16 and output.logits_BLV.dtype == jnp.float32
    away = np.abs(np.asarray(output.logits_BLV) - golden.expected["full_logits"])
    assert np.median(away) < 2 * 0.0168


def test_angles_are_looked_up_by_position():
    """Those of position * theta^(-2i / dim), to float32's rounding; a position that no row can hold gets NaN."""
    positions = np.array([[0, 1, 2, 0, 1, 5], [5, 4, 6, -1, 3, 3]], np.int32)
    cos, sin = (np.asarray(x, np.float64)[:, :, 0] for x in rotary(jnp.asarray(positions), 8, 100.0, jnp.float32))
    angles = positions[..., None] * 100.0 ** (-np.arange(0, 8, 2) / 8)
    is_held = (positions >= 0) & (positions < 6)
    np.testing.assert_allclose(cos[is_held], np.cos(angles)[is_held], atol=5e-7)
    np.testing.assert_allclose(sin[is_held], np.sin(angles)[is_held], atol=5e-7)
    assert np.isnan(cos[~is_held]).all() and np.isnan(sin[~is_held]).all()


SMALL = dataclasses.replace(
    presets.get("tiny"),
    vocab_size=11,
    hidden_size=16,
    intermediate_size=12,
    head_dim=8,
    moe_intermediate_size=8,
)


@functools.cache
def _small_params():
    return jax.jit(lambda key: transformer.init(SMALL, key, jnp.float32))(jax.random.key(0))


def _block_routed(block_size):
    """`SMALL`, with LLaDA2.2's block routing unless `block_size` is None."""
    return dataclasses.replace(SMALL, block_size=block_size, expert_capacity=block_size and 3)


@functools.partial(jax.jit, static_argnames=("config", "block_size"))
def _logits(config, params, tokens, positions, segments, block_size):
    attention = BlockDiffusion(block_size, segments) if block_size else Segments(segments)
    return transformer.apply(config, params, tokens, positions, attention).logits_BLV


def _small_logits(tokens, positions, segments, block_size=0, routing_block=None):
    config = _block_routed(routing_block)
    return _logits(config, _small_params(), tokens, positions, segments, block_size=block_size)


@pytest.mark.parametrize("routing_block", [None, 3])  # 3: blocks counted over the row would hold two documents
def test_logits_do_not_move_with_padding_or_other_segments(routing_block):
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 11, (1, 12)).astype(np.int32)
    positions = np.array([[0, 1, 2, 3, 0, 1, 2, 3, 4, 0, 0, 0]], np.int32)
    segments = np.array([[1] * 4 + [2] * 5 + [0] * 3], np.int32)
    before = _small_logits(tokens, positions, segments, routing_block=routing_block)
    for _ in range(5):
        changed = np.where(segments == 1, tokens, rng.integers(0, 11, tokens.shape)).astype(np.int32)
        after = _small_logits(changed, positions, segments, routing_block=routing_block)
        np.testing.assert_allclose(after[0, :4], before[0, :4], atol=1e-6)
        assert np.abs(after[0, 4:9] - before[0, 4:9]).max() > 1e-3  # the others do move
    # The same example at another place of the row, behind the other one.
    moved = np.concatenate([tokens[:, 4:9], tokens[:, :4], tokens[:, 9:]], axis=1)
    positions = np.array([[0, 1, 2, 3, 4, 0, 1, 2, 3, 0, 0, 0]], np.int32)
    segments = np.array([[2] * 5 + [1] * 4 + [0] * 3], np.int32)
    found = _small_logits(moved, positions, segments, routing_block=routing_block)
    np.testing.assert_allclose(found[0, 5:9], before[0, :4], atol=1e-6)


@pytest.mark.parametrize(("block_size", "routing_block"), [(2, None), (2, 2), (4, 4), (4, 2)])  # 4: the last is shorter
def test_block_diffusion_does_not_leak_the_answer(block_size, routing_block):
    """Clean tokens of a noisy block's own and later blocks do not move its logits; earlier ones do."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 11, (1, 12)).astype(np.int32)
    positions = np.tile(np.arange(6, dtype=np.int32), (1, 2))
    segments = np.ones((1, 6), np.int32)
    logits = functools.partial(_small_logits, positions=positions, segments=segments, block_size=block_size)
    before = logits(tokens, routing_block=routing_block)
    for first in range(0, 6, block_size):
        changed, end = tokens.copy(), min(first + block_size, 6)
        changed[0, 6 + first :] = (changed[0, 6 + first :] + 1) % 11  # this clean block and those after it
        after = logits(changed, routing_block=routing_block)
        np.testing.assert_allclose(after[0, :end], before[0, :end], atol=1e-6)
        assert end == 6 or np.abs(after[0, end:6] - before[0, end:6]).max() > 1e-3


def test_diffusion_blocks_that_end_inside_a_block_of_experts_are_refused():
    ids = jnp.zeros((1, 12), jnp.int32)
    with pytest.raises(ValueError, match=r"config\.train\.block_size: expected a multiple of 4, .* got 2:"):
        transformer.apply(_block_routed(4), _small_params(), ids, ids, BlockDiffusion(2))


@pytest.mark.parametrize("max_unrolled", [0, 8])
def test_the_last_layer_sends_only_what_is_asked_to_its_experts(max_unrolled, monkeypatch):
    """States and gradients are those of sending all; the last layer's experts see the asked alone."""
    monkeypatch.setattr(transformer, "MAX_UNROLLED_LAYERS", max_unrolled)
    rng, params = np.random.default_rng(0), _small_params()
    tokens = jnp.asarray(rng.integers(0, 11, (2, 6)), jnp.int32)
    positions = jnp.broadcast_to(jnp.arange(6, dtype=jnp.int32), tokens.shape)
    is_asked = jnp.asarray(rng.random((2, 6)) < 0.5)

    def cost(params, is_sent):
        hidden, load_NE, _ = transformer.hidden(SMALL, params, tokens, positions, Full(), is_asked_BL=is_sent)
        return cross_entropy(transformer.head(params, hidden), jnp.where(is_asked, tokens, -100)), load_NE

    gradient = jax.jit(jax.value_and_grad(cost, has_aux=True))
    (value, load_NE), grads = gradient(params, is_asked)
    (expected, load_of_all_NE), expected_grads = gradient(params, None)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), grads, expected_grads)
    each = SMALL.num_experts_per_tok
    assert load_of_all_NE.sum(1).tolist() == [each * 12] * SMALL.num_moe_layers
    assert load_NE.sum(1).tolist() == [*load_of_all_NE.sum(1).tolist()[:-1], each * int(is_asked.sum())]


def test_every_remat_policy_gives_the_same_gradients():
    tokens = jnp.asarray(np.random.default_rng(0).integers(0, 11, (2, 6)), jnp.int32)
    positions = jnp.broadcast_to(jnp.arange(6, dtype=jnp.int32), tokens.shape)

    config = dataclasses.replace(SMALL, num_hidden_layers=2)
    params = jax.tree.map(lambda x: x, _small_params())
    params["moe"] = jax.tree.map(lambda x: x[:1], params["moe"])

    def loss(params, remat):
        logits = transformer.apply(
            config, params, tokens, positions, Full(), transformer.Computation(remat=remat)
        ).logits_BLV
        return cross_entropy(logits, tokens)

    gradient = jax.jit(jax.grad(loss), static_argnums=1)
    expected = gradient(params, "none")
    for remat in ("full", "dots", "save_moe_out"):
        jax.tree.map(
            lambda one, other: np.testing.assert_allclose(one, other, atol=1e-6),
            gradient(params, remat), expected,
        )  # fmt: skip
    with pytest.raises(ValueError, match="unknown policy 'some'; known: none, full"):
        gradient(params, "some")


def test_random_weights_are_the_declared_ones():
    config = dataclasses.replace(SMALL, num_hidden_layers=4, first_k_dense_replace=2)
    declared = transformer.parameters(config, "bfloat16")
    params = jax.jit(lambda key: transformer.init(config, key, "bfloat16"))(jax.random.key(1))
    leaves = jax.tree.leaves(declared, is_leaf=is_declared)
    assert [(p.shape, p.dtype) for p in leaves] == [(x.shape, x.dtype) for x in jax.tree.leaves(params)]
    assert params["moe"]["expert_bias"].dtype == jnp.float32
    rules = dict(sharding.RULES)
    assert all(axis in rules for p in leaves for axis in p.axes) and all(len(p.axes) == len(p.shape) for p in leaves)
    gate_up = params["moe"]["expert_gate_up"].astype(jnp.float32)
    assert 0.05 < gate_up.std() < 0.07 and (gate_up[0] != gate_up[1]).mean() > 0.9
    dense, moe = params["dense"]["attention_output"], params["moe"]["attention_output"]
    assert dense.shape == moe.shape and (dense != moe).mean() > 0.9  # every weight has a key of its own
    assert jnp.abs(params["moe"]["router"]).max() <= 0.25 and (params["final_norm"] == 1).all()


def test_a_model_may_have_no_dense_layer():
    config = dataclasses.replace(SMALL, first_k_dense_replace=0)
    params = {**_small_params()}
    del params["dense"]
    params["moe"] = jax.tree.map(lambda x: jnp.concatenate([x, x[:1]]), params["moe"])
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(
        lambda p: p.shape, transformer.parameters(config, jnp.float32), is_leaf=is_declared
    )
    tokens = jnp.zeros((1, 6), jnp.int32)
    output = jax.jit(lambda t: transformer.apply(config, params, t, t, Full(), collect=True))(tokens)
    assert output.trace.hidden_NBLD.shape == (5, 1, 6, 16) and output.trace.expert_NBLK.shape == (3, 1, 6, 2)
    assert output.expert_load_NE.sum(1).tolist() == [12, 12, 12]


@pytest.mark.parametrize(("name", "billions"), [
    ("llada2_mini", 16.256), ("llada2_flash", 102.890),
    ("llada2.1_mini", 16.256), ("llada2.1_flash", 102.890), ("llada2.2_flash", 102.890),
])  # fmt: skip
def test_published_sizes(name, billions):
    leaves = jax.tree.leaves(transformer.parameters(presets.get(name), "bfloat16"), is_leaf=is_declared)
    assert round(sum(np.prod(p.shape, dtype=np.int64) for p in leaves) / 1e9, 3) == billions


def test_an_unknown_preset_is_refused():
    with pytest.raises(ValueError, match="unknown preset 'tinny'; known: tiny, babyai, text, llada2_mini, "):
        presets.get("tinny")


@pytest.mark.parametrize("name", presets.PRESETS)
def test_hf_round_trip(name):
    config = presets.get(name)
    assert ModelConfig.from_hf(json.loads(json.dumps(config.to_hf()))) == config
    alone = dataclasses.replace(config, num_shared_experts=0, use_bias=True, mask_token_id=3)
    written = alone.to_hf(is_merged=True)
    assert written["num_shared_experts"] is None and written["model_type"] == "llada2_moe_veomni"
    assert ModelConfig.from_hf(written) == alone


PUBLISHED = read_json(GOLDEN / "a" / "split_bf16" / "config.json")


# What dFactory ships for both sizes (inclusionAI/dFactory, configs/model_configs), every key that says something.
MINI = {
    "architectures": ["LLaDA2MoeModelLM"], "attention_dropout": 0.0, "auto_map": {"AutoModel": "x.Y"},
    "num_hidden_layers": 20, "hidden_size": 2048, "intermediate_size": 5120, "first_k_dense_replace": 1,
    "hidden_act": "silu", "max_position_embeddings": 16384, "model_type": "llada2_moe_veomni",
    "moe_intermediate_size": 512, "norm_topk_prob": True, "num_experts_per_tok": 8, "norm_head": False,
    "num_attention_heads": 16, "num_experts": 256, "num_key_value_heads": 4, "rope_theta": 600000,
    "rope_scaling": None, "tie_word_embeddings": False, "torch_dtype": "bfloat16", "use_bias": False,
    "use_rmsnorm": True, "rms_norm_eps": 1e-6, "head_dim": 128, "num_shared_experts": 1, "use_cache": False,
    "use_qkv_bias": False, "embedding_dropout": 0.0, "norm_softmax": False, "output_dropout": 0.0,
    "vocab_size": 157184, "rotary_dim": 64, "using_split_qkv_in_self_attention": False, "router_dtype": "fp32",
    "moe_router_enable_expert_bias": True, "routed_scaling_factor": 2.5, "n_group": 8, "topk_group": 4,
    "score_function": "sigmoid", "initializer_range": 0.02, "max_window_layers": 28, "output_router_logits": False,
    "pad_token_id": 156892, "partial_rotary_factor": 0.5, "use_sliding_window": False,
}  # fmt: skip
FLASH = {
    "num_hidden_layers": 32, "hidden_size": 4096, "intermediate_size": 9216, "moe_intermediate_size": 1024,
    "num_attention_heads": 32,
}  # fmt: skip


def test_published_configs_are_the_presets():
    assert ModelConfig.from_hf(MINI) == presets.get("llada2_mini")
    assert ModelConfig.from_hf(MINI | FLASH) == presets.get("llada2_flash")
    longer = MINI | {"max_position_embeddings": 32768}
    assert ModelConfig.from_hf(longer) == presets.get("llada2.1_mini")
    assert ModelConfig.from_hf(longer | FLASH) == presets.get("llada2.1_flash")
    blocks = MINI | FLASH | {"max_position_embeddings": 131072, "expert_capacity": 48, "block_size": 32}
    assert ModelConfig.from_hf(blocks) == presets.get("llada2.2_flash")


@pytest.mark.parametrize("key", [key for key, value in MINI.items() if isinstance(value, int | float)])
def test_no_number_of_a_published_config_is_ignored(key):
    if key in ("use_cache", "output_router_logits", "max_window_layers"):  # without a meaning here: no cache, no window
        return
    changed = {**MINI, key: not MINI[key] if isinstance(MINI[key], bool) else MINI[key] * 2 or 0.5}
    try:
        assert ModelConfig.from_hf(changed) != presets.get("llada2_mini")
    except ValueError as error:
        assert key in str(error)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llama"}, "model_type is 'llama'; this model reads llada2_moe or"),
        ({"rope_scaling": {"type": "yarn"}}, "rope_scaling = .* does not compute; expected None"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4}}, "only 'default' is computed"),
        ({"use_sliding_window": True}, "use_sliding_window = True"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings = True"),
        ({"norm_topk_prob": False}, "norm_topk_prob = False"),
        ({"score_function": "softmax"}, "score_function = 'softmax' .* expected 'sigmoid'"),
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
        ({"use_qk_norm": False}, "use_qk_norm = False"),
        ({"use_rmsnorm": False}, "use_rmsnorm = False"),
        ({"norm_head": True}, "norm_head = True"),
        ({"moe_router_enable_expert_bias": False}, "moe_router_enable_expert_bias = False"),
        ({"router_dtype": "bf16"}, "router_dtype = 'bf16'"),
        ({"attention_dropout": 0.1}, "attention_dropout = 0.1"),
        ({"rotary_dim": 4}, r"rotary_dim = 4 contradicts head_dim \* partial_rotary_factor = 8"),
        ({"partial_rotary_factor": 0.2}, "partial_rotary_factor: .* even number"),
        ({"num_key_value_heads": 3}, "num_key_value_heads: expected a divisor of 4 heads, got 3"),
        ({"num_hidden_layers": 0}, "num_hidden_layers: expected an integer above 0, got 0"),
        ({"hidden_size": "64"}, "hidden_size: expected an integer above 0, got '64'"),
        ({"rms_norm_eps": -1.0}, "rms_norm_eps: expected a number above 0"),
        ({"use_bias": 1}, "use_bias: expected true or false, got 1"),
        ({"first_k_dense_replace": 4}, "first_k_dense_replace: expected fewer than num_hidden_layers = 4"),
        ({"n_group": 16, "topk_group": 8}, "n_group: .* at least 2 of 16 experts"),
        ({"topk_group": 5}, "topk_group: expected at most n_group = 4, got 5"),
        ({"num_experts_per_tok": 9}, "num_experts_per_tok: expected at most the 8 experts"),
        ({"pad_token_id": 300}, "pad_token_id: expected below vocab_size = 300"),
        ({"expert_capacity": 17, "block_size": 4}, r"expert_capacity: expected None or an integer in \[4, 17\)"),
        ({"expert_capacity": 8}, "block_size: expected a number of tokens, as expert_capacity = 8"),
        ({"num_expert": 4}, r"unknown key 'num_expert' = 4\. Did you mean \['num_experts'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_config_that_asks_for_something_else_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig.from_hf({**PUBLISHED, **changes})


def test_missing_fields_are_named():
    values = {key: value for key, value in PUBLISHED.items() if key not in ("n_group", "rope_theta")}
    with pytest.raises(ValueError, match=r"config\.json: missing rope_theta, n_group"):
        ModelConfig.from_hf(values)


def test_rope_parameters_of_newer_files_are_read():
    values = {**PUBLISHED, "rope_parameters": {"rope_type": "default", "rope_theta": 5000}}
    del values["rope_theta"]
    assert ModelConfig.from_hf(values).rope_theta == 5000
