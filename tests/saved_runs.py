"""Runs on disk without training: a model directory with all that belongs to it, and checkpoints with random weights."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np

import checkpoints
from anyorder_jax import checkpoint, run_directory, sharding, state, weights
from anyorder_jax.config import CheckpointConfig, Config, LoRAConfig, MeshConfig, ModelSelection
from anyorder_jax.data.tokenization import Vocabulary
from anyorder_jax.model import lora
from corridor import BPE_DIRECTORY, CorridorCodec

MODEL = checkpoints.CONFIG | {"vocab_size": 420, "pad_token_id": 401, "initializer_range": 0.02}


def write_model(directory):
    """A small LLaDA2 directory as it is published: bfloat16, tokenizer, code for servers, settings of generation."""
    checkpoints.write(directory, MODEL)
    for file in BPE_DIRECTORY.iterdir():
        shutil.copy(file, directory)
    (directory / "modeling_llada2_moe.py").write_text("raise SystemExit('remote code was run')\n")
    (directory / "generation_config.json").write_text('{"eos_token_id": 401}\n')
    return directory


def save_run(run, model_path, *, model=None, rank=0, step=5, param_dtype="float32", seed=6):
    """A run at a step, started from `model_path` (recorded as it is given), with random weights or factors.

    model: where the model can be read now, should `model_path` not tell.
    """
    model = model or model_path
    selection = ModelSelection(path=str(model), param_dtype=param_dtype)
    config = dataclasses.replace(Config(), model=selection, lora=LoRAConfig(rank=rank))
    model_config = weights.read_model_config(model)
    mesh = sharding.make_mesh(MeshConfig(), jax.devices()[:1])
    digests = weights.load_base(config, model_config, mesh)[1] if rank else {}
    shapes, _ = lora.split(state.abstract_params(model_config, mesh, param_dtype, config.lora))
    rng = np.random.default_rng(seed)
    params = jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s.shape) * 0.1, s.dtype), shapes)
    config = dataclasses.replace(config, model=dataclasses.replace(selection, path=str(model_path)))
    meta = run_directory.describe(config, model_config, {}) | ({"base": digests} if rank else {})
    with checkpoint.Checkpointer(run, CheckpointConfig(keep_last=9)) as writer:
        writer.save(state.TrainState(jnp.int32(step), params, {"count": jnp.zeros(2)}), {"batch": 0}, meta)
    tokenizer = run_directory.find(model)[0] / "tokenizer" if run_directory.is_run(model) else model
    Vocabulary.from_directory(tokenizer, CorridorCodec("joint")).save(run / "tokenizer")
    return run


def flip(path, *places):
    """One bit at each of these parts of a file's length."""
    content = bytearray(path.read_bytes())
    for place in places:
        content[int(len(content) * place)] ^= 1
    path.write_bytes(bytes(content))


def largest(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def flip_bits(folder):
    """Three bits of the largest file: now and then the storage leaves a piece in it that nobody reads any more."""
    flip(largest(folder), 0.25, 0.5, 0.75)
