"""Small LLaDA2.x checkpoints for tests: names written out as the reference writes them, not taken from our table."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

CONFIG = {
    "architectures": ["LLaDA2MoeModelLM"],
    "auto_map": {"AutoModel": "modeling_llada2_moe.LLaDA2MoeModel"},
    "first_k_dense_replace": 1,
    "head_dim": 8,
    "hidden_size": 16,
    "intermediate_size": 24,
    "max_position_embeddings": 128,
    "model_type": "llada2_moe",
    "moe_intermediate_size": 8,
    "n_group": 2,
    "norm_topk_prob": True,
    "num_attention_heads": 2,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 3,
    "num_key_value_heads": 1,
    "num_shared_experts": 1,
    "pad_token_id": 2,
    "partial_rotary_factor": 0.5,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 10000,
    "routed_scaling_factor": 2.5,
    "score_function": "sigmoid",
    "tie_word_embeddings": False,
    "topk_group": 1,
    "torch_dtype": "bfloat16",
    "use_bias": False,
    "use_qkv_bias": False,
    "vocab_size": 40,
}


def split_shapes(config):
    """{name: shape} of a split checkpoint."""
    c = config
    d, f, width = c["hidden_size"], c["moe_intermediate_size"], c["head_dim"]
    rows = (c["num_attention_heads"] + 2 * c["num_key_value_heads"]) * width
    shapes = {"model.word_embeddings.weight": (c["vocab_size"], d)}

    def mlp(prefix, inner):
        for half in ("gate", "up"):
            shapes[f"{prefix}.{half}_proj.weight"] = (inner, d)
        shapes[f"{prefix}.down_proj.weight"] = (d, inner)

    for i in range(c["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        shapes[f"{layer}.input_layernorm.weight"] = (d,)
        shapes[f"{layer}.attention.query_key_value.weight"] = (rows, d)
        shapes[f"{layer}.attention.query_layernorm.weight"] = (width,)
        shapes[f"{layer}.attention.key_layernorm.weight"] = (width,)
        shapes[f"{layer}.attention.dense.weight"] = (d, c["num_attention_heads"] * width)
        if c["use_qkv_bias"]:
            shapes[f"{layer}.attention.query_key_value.bias"] = (rows,)
        if c["use_bias"]:
            shapes[f"{layer}.attention.dense.bias"] = (d,)
        shapes[f"{layer}.post_attention_layernorm.weight"] = (d,)
        if i < c["first_k_dense_replace"]:
            mlp(f"{layer}.mlp", c["intermediate_size"])
            continue
        shapes[f"{layer}.mlp.gate.weight"] = (c["num_experts"], d)
        shapes[f"{layer}.mlp.gate.expert_bias"] = (c["num_experts"],)
        for e in range(c["num_experts"]):
            mlp(f"{layer}.mlp.experts.{e}", f)
        if c["num_shared_experts"] is not None:
            mlp(f"{layer}.mlp.shared_experts", f * c["num_shared_experts"])
    shapes["model.norm.weight"] = (d,)
    shapes["lm_head.weight"] = (c["vocab_size"], d)
    return shapes


def random_tensors(config, dtype=ml_dtypes.bfloat16, seed=0):
    """{name: array} of a split checkpoint; expert_bias is float32, as the published ones may have it."""
    rng = np.random.default_rng(seed)
    return {
        name: rng.normal(size=shape).astype(np.float32 if name.endswith("expert_bias") else dtype)
        for name, shape in split_shapes(config).items()
    }


def write(directory, config=None, tensors=None, num_shards=2):
    """Writes a split checkpoint with the safetensors library; several shards get an index."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    config = CONFIG if config is None else config
    tensors = random_tensors(config) if tensors is None else tensors
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    if num_shards == 1:
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
        return directory
    weight_map = {}
    for k in range(num_shards):
        file_name = f"model-{k + 1:05d}-of-{num_shards:05d}.safetensors"
        part = dict(list(tensors.items())[k::num_shards])
        save_file(part, directory / file_name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file_name)
    total = sum(array.nbytes for array in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    return directory


def read_one(path):
    """{name: array} of one safetensors file, by the safetensors library."""
    with safe_open(path, framework="np") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def read(directory):
    """{name: array} of every safetensors file in a directory."""
    found = {}
    for path in sorted(Path(directory).glob("*.safetensors")):
        found |= read_one(path)
    return found
