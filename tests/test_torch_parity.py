"""Our model beside the PyTorch one that exports carry along, in float64, on random configurations (extra `parity`).

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
import torch_model
from anyorder_jax import loss
from anyorder_jax.model import transformer
from anyorder_jax.model.attention import BlockDiffusion, Full
from anyorder_jax.pretrained.load import load_params, read_model_config

torch = pytest.importorskip("torch")


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
    theirs = torch_model.make(config, stored)
    expected = theirs(torch.from_numpy(tokens.copy()), attend[None, None], torch.from_numpy(positions.copy())).logits
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
        found = theirs.get_parameter(name).grad
        found = np.zeros(ours.shape) if found is None else found.numpy()  # an expert that no token chose
        np.testing.assert_allclose(ours, found, atol=1e-4 * max(1e-3, np.abs(found).max()), err_msg=name)
