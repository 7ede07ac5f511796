"""Our model beside a plain PyTorch one, written from the equations, on random configurations (extra `parity`).

The weights travel as a checkpoint: PyTorch makes them under their published names, `load_params` reads them. So parity
of names, layouts, routing, both kinds of attention and gradients does not rest on the golden files alone.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import checkpoints
from anyorder_jax import loss
from anyorder_jax.model import transformer
from anyorder_jax.model.attention import BlockDiffusion, Full
from anyorder_jax.pretrained.load import load_params, read_model_config

torch = pytest.importorskip("torch")


def rms_norm(x, weight, eps):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight


def rotate(x, positions, rotary_dim, theta):
    """Pairs dim i with dim i + rotary_dim / 2; x [B, L, heads, C]."""
    frequency = theta ** (-torch.arange(0, rotary_dim, 2, dtype=torch.float64) / rotary_dim)
    angle = (positions[..., None] * frequency)[:, :, None]
    cos, sin = angle.cos(), angle.sin()
    first, second, rest = x.split([rotary_dim // 2, rotary_dim // 2, x.shape[-1] - rotary_dim], -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], -1)


def attention(c, w, prefix, x, positions, can_attend):
    B, L, _ = x.shape
    H, K, C = c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
    fused = x @ w[prefix + "query_key_value.weight"].T
    if c["use_qkv_bias"]:
        fused = fused + w[prefix + "query_key_value.bias"]
    q, k, v = fused.view(B, L, H + 2 * K, C).split([H, K, K], 2)
    rotary_dim = int(C * c["partial_rotary_factor"])
    q = rotate(
        rms_norm(q, w[prefix + "query_layernorm.weight"], c["rms_norm_eps"]),
        positions,
        rotary_dim,
        c["rope_theta"],
    )
    k = rotate(
        rms_norm(k, w[prefix + "key_layernorm.weight"], c["rms_norm_eps"]),
        positions,
        rotary_dim,
        c["rope_theta"],
    )
    k, v = (t.repeat_interleave(H // K, 2) for t in (k, v))
    scores = torch.einsum("blhc,bmhc->bhlm", q, k) / C**0.5
    scores = scores.masked_fill(~can_attend, -torch.inf)
    mixed = torch.einsum("bhlm,bmhc->blhc", scores.softmax(-1), v).reshape(B, L, H * C)
    out = mixed @ w[prefix + "dense.weight"].T
    return out + w[prefix + "dense.bias"] if c["use_bias"] else out


def gated(w, prefix, x):
    gate, up, down = (w[f"{prefix}.{name}_proj.weight"] for name in ("gate", "up", "down"))
    return (torch.nn.functional.silu(x @ gate.T) * (x @ up.T)) @ down.T


def experts(c, w, prefix, x, length):
    """One token at a time, as the equations say: group choice, expert choice, weights from the unbiased scores.
    `length`: of the rows, or of the halves of [noisy ; clean]; blocks count from the start of each."""
    tokens = x.reshape(-1, x.shape[-1])
    scores = torch.sigmoid(tokens @ w[prefix + "gate.weight"].T)
    biased = scores + w[prefix + "gate.expert_bias"]
    block = c.get("block_size")
    out = []
    for t in range(len(tokens)):
        if block:  # LLaDA2.2: the block's experts are those of the highest score that any of its tokens gives
            start = t // length * length
            first = start + (t - start) // block * block
            last = min(first + block, start + length)
            kept = biased[first:last].max(0).values.topk(c["expert_capacity"]).indices
            choices = biased[t]
        else:
            choices = biased[t].view(c["n_group"], -1)
            kept = choices.topk(2, -1).values.sum(-1).topk(c["topk_group"]).indices
        allowed = torch.full_like(choices, -torch.inf)
        allowed[kept] = choices[kept]
        chosen = allowed.flatten().topk(c["num_experts_per_tok"]).indices
        weight = scores[t, chosen]
        if c["num_experts_per_tok"] > 1:
            weight = weight / (weight.sum() + 1e-20)
        weight = weight * c["routed_scaling_factor"]
        out.append(
            sum(g * gated(w, f"{prefix}experts.{e}", tokens[t]) for g, e in zip(weight, chosen.tolist(), strict=True))
        )
    y = torch.stack(out).reshape(x.shape)
    return y + gated(w, prefix + "shared_experts", x) if c["num_shared_experts"] else y


def reference(c, w, tokens, positions, can_attend):
    """Logits [B, L, V] in float64."""
    x = w["model.word_embeddings.weight"][tokens]
    length = int(positions.max()) + 1
    for i in range(c["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        normed = rms_norm(x, w[layer + "input_layernorm.weight"], c["rms_norm_eps"])
        x = x + attention(c, w, layer + "attention.", normed, positions, can_attend)
        normed = rms_norm(x, w[layer + "post_attention_layernorm.weight"], c["rms_norm_eps"])
        is_dense = i < c["first_k_dense_replace"]
        x = x + (gated(w, layer + "mlp", normed) if is_dense else experts(c, w, layer + "mlp.", normed, length))
    return rms_norm(x, w["model.norm.weight"], c["rms_norm_eps"]) @ w["lm_head.weight"].T


def block_diffusion(length, block):
    """[2L, 2L]: [noisy ; clean], query by key (LLaDA2.0 report, eq. 3)."""
    number = torch.arange(length) // block
    same, earlier = number[:, None] == number[None], number[:, None] > number[None]
    return torch.cat([torch.cat([same, earlier], 1), torch.cat([torch.zeros_like(same), same | earlier], 1)])


@st.composite
def configs(draw):
    groups = draw(st.sampled_from([1, 2, 4]))
    num_experts = groups * draw(st.integers(2, 4))
    topk_group = draw(st.integers(1, groups))
    kv_heads = draw(st.integers(1, 2))
    num_layers = draw(st.integers(1, 3))
    num_chosen = draw(st.integers(1, topk_group * num_experts // groups))
    block_routing = {}
    if draw(st.booleans()):
        block_routing = {"expert_capacity": draw(st.integers(num_chosen, num_experts)), "block_size": 3}
    return checkpoints.CONFIG | block_routing | {
        "initializer_range": 0.02, "n_group": groups, "num_experts": num_experts, "topk_group": topk_group,
        "num_experts_per_tok": num_chosen,
        "num_key_value_heads": kv_heads, "num_attention_heads": kv_heads * draw(st.integers(1, 3)),
        "head_dim": draw(st.sampled_from([4, 8])), "hidden_size": draw(st.integers(3, 20)),
        "num_hidden_layers": num_layers, "first_k_dense_replace": draw(st.integers(0, num_layers - 1)),
        "num_shared_experts": draw(st.sampled_from([None, 1, 2])), "use_bias": draw(st.booleans()),
        "use_qkv_bias": draw(st.booleans()), "routed_scaling_factor": draw(st.sampled_from([1.0, 2.5])),
        "partial_rotary_factor": draw(st.sampled_from([0.5, 1.0])), "rope_theta": draw(st.sampled_from([100, 600_000])),
    }  # fmt: skip


@settings(max_examples=6, deadline=None, derandomize=True)
@given(configs(), st.integers(0, 2**16), st.booleans())
def test_ours_is_what_the_equations_say(tmp_path_factory, config, seed, is_block_diffusion):
    directory = tmp_path_factory.mktemp("parity")
    rng = np.random.default_rng(seed)
    stored = {
        name: (rng.normal(size=shape) * (0.5 if len(shape) > 1 else 0.2) + ("norm" in name)).astype(np.float32)
        for name, shape in checkpoints.split_shapes(config).items()
    }
    checkpoints.write(directory, config, stored)
    length, block = 7, 3
    tokens = rng.integers(0, config["vocab_size"], (2, length))
    attend = torch.ones(length, length, dtype=torch.bool)
    kind = Full()
    positions = np.broadcast_to(np.arange(length), tokens.shape)
    if is_block_diffusion:
        tokens, positions = np.concatenate([tokens[::-1], tokens], 1), np.tile(positions, 2)
        attend, kind = block_diffusion(length, block), BlockDiffusion(block)
    weights = {name: torch.from_numpy(array).double().requires_grad_() for name, array in stored.items()}
    expected = reference(config, weights, torch.from_numpy(tokens), torch.from_numpy(positions.copy()), attend)
    torch.nn.functional.cross_entropy(expected.flatten(0, 1), torch.from_numpy(tokens.flatten())).backward()

    model_config = read_model_config(directory)
    params = load_params(directory, model_config)

    @jax.jit
    def value(params):
        logits = transformer.apply(model_config, params, jnp.asarray(tokens), jnp.asarray(positions), kind).logits_BLV
        return loss.cross_entropy(logits, jnp.asarray(tokens)).mean(), logits

    (_, logits), gradients = jax.value_and_grad(value, has_aux=True)(params)
    # float32 against float64: rounding grows with the logits, which random weights make large
    scale = float(expected.detach().abs().max())
    np.testing.assert_allclose(logits, expected.detach().numpy(), atol=2e-5 * max(scale, 1))
    last = f"model.layers.{config['num_hidden_layers'] - 1}."
    pairs = {
        "model.word_embeddings.weight": gradients["embedding"],
        "lm_head.weight": gradients["head"].T,
        last + "attention.query_key_value.weight": gradients["moe"]["query_key_value"][-1].T,
        last + "mlp.gate.weight": gradients["moe"]["router"][-1].T,
        last + "mlp.experts.1.up_proj.weight": gradients["moe"]["expert_gate_up"][-1, 1, :, 1].T,
        last + "mlp.experts.0.down_proj.weight": gradients["moe"]["expert_down"][-1, 0].T,
    }
    for name, ours in pairs.items():
        theirs = weights[name].grad
        theirs = np.zeros(ours.shape) if theirs is None else theirs.numpy()  # an expert that no token chose
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * max(1e-3, np.abs(theirs).max()), err_msg=name)
