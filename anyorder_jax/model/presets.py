"""Named model shapes. `tiny`, `babyai` and `text` get their vocabulary from the tokenizer with
`dataclasses.replace`."""

from __future__ import annotations

import dataclasses

from anyorder_jax.model.config import ModelConfig

_TINY = ModelConfig(
    vocab_size=256,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=3,
    first_k_dense_replace=1,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=32,
    partial_rotary_factor=0.5,
    # The published 600,000 is for 16k positions; here wavelengths from 6 to 350 tokens tell cells and steps apart.
    rope_theta=100,
    max_position_embeddings=4096,
    rms_norm_eps=1e-6,
    use_bias=False,
    use_qkv_bias=False,
    num_experts=8,
    num_experts_per_tok=2,
    num_shared_experts=1,
    moe_intermediate_size=64,
    n_group=2,
    topk_group=1,
    routed_scaling_factor=2.5,
    # Wider than the published 0.02, which is meant for 2048 dims: 0.02 * sqrt(2048 / 64) = 0.11.
    initializer_range=0.06,
    pad_token_id=0,
)

_BABYAI = dataclasses.replace(
    _TINY, hidden_size=128, intermediate_size=256, num_hidden_layers=5, num_attention_heads=4,
    num_key_value_heads=2, moe_intermediate_size=128,
)  # fmt: skip

# Text is learned by copying from the page, which is attention's work: heads of 64 dims find a word again among some
# hundred tokens in fewer updates than `tiny`'s of 32. Four of them take twice the time (benchmarks/copying.py).
_TEXT = dataclasses.replace(_TINY, num_key_value_heads=2, head_dim=64)

# Published: inclusionAI/LLaDA2.0-mini and -flash, config.json.
_MINI = ModelConfig(
    vocab_size=157_184,
    hidden_size=2048,
    intermediate_size=5120,
    num_hidden_layers=20,
    first_k_dense_replace=1,
    num_attention_heads=16,
    num_key_value_heads=4,
    head_dim=128,
    partial_rotary_factor=0.5,
    rope_theta=600_000,
    max_position_embeddings=16_384,
    rms_norm_eps=1e-6,
    use_bias=False,
    use_qkv_bias=False,
    num_experts=256,
    num_experts_per_tok=8,
    num_shared_experts=1,
    moe_intermediate_size=512,
    n_group=8,
    topk_group=4,
    routed_scaling_factor=2.5,
    initializer_range=0.02,
    pad_token_id=156_892,
)

_FLASH = dataclasses.replace(
    _MINI, hidden_size=4096, intermediate_size=9216, num_hidden_layers=32, num_attention_heads=32,
    moe_intermediate_size=1024,
)  # fmt: skip

# LLaDA2.1 computes what 2.0 does, with 32k positions (model card). LLaDA2.2-flash has 128k positions and block routing
# with 48 of 256 experts (technical report; block and capacity as the published keys name them). Published checkpoints
# bring their own config.json: a preset is a shape to start from random weights, to measure, and to `fit`.
_MINI_21 = dataclasses.replace(_MINI, max_position_embeddings=32_768)
_FLASH_21 = dataclasses.replace(_FLASH, max_position_embeddings=32_768)
_FLASH_22 = dataclasses.replace(_FLASH, max_position_embeddings=131_072, expert_capacity=48, block_size=32)

PRESETS = {
    "tiny": _TINY,
    "babyai": _BABYAI,
    "text": _TEXT,
    "llada2_mini": _MINI,
    "llada2_flash": _FLASH,
    "llada2.1_mini": _MINI_21,
    "llada2.1_flash": _FLASH_21,
    "llada2.2_flash": _FLASH_22,
}


def get(name: str) -> ModelConfig:
    """The named shape.

    Raises:
      ValueError: for an unknown name, listing the known ones.
    """
    if name not in PRESETS:
        raise ValueError(f"config.model.preset: unknown preset {name!r}; known: {', '.join(PRESETS)}.")
    return PRESETS[name]
