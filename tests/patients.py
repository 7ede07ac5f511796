"""A small model that was trained, as a split checkpoint; and ten ways in which checkpoints are damaged, each by itself.

Tensors are {published name: array [out, in]}, as the safetensors library gives and takes them.
"""

import dataclasses
import json

import ml_dtypes
import numpy as np

import checkpoints
from anyorder_jax import sharding
from anyorder_jax.config import Config, LossConfig, OptimizerConfig, TrainConfig
from anyorder_jax.data.tokenization import Vocabulary
from anyorder_jax.health import questions
from anyorder_jax.health.text import PARAGRAPHS, SENTENCES
from anyorder_jax.model import presets
from anyorder_jax.pretrained import names
from anyorder_jax.pretrained.tree import as_stored, leaves
from anyorder_jax.rendering.text import TextRenderer
from anyorder_jax.types import Batch, Kind
from runs import Trainer

NUM_STEPS, LENGTH = 600, questions.LENGTH


def _rows(texts, pad_id):
    """(tokens, segment ids, positions) [B, L] of rows of texts."""
    tokens = np.full((len(texts), LENGTH), pad_id, np.int32)
    segments, positions = np.zeros_like(tokens), np.zeros_like(tokens)
    for row, parts in enumerate(texts):
        at = 0
        for number, part in enumerate(parts):
            own = part[: LENGTH - at]
            place = slice(at, at + len(own))
            tokens[row, place], segments[row, place], positions[row, place] = own, number + 1, np.arange(len(own))
            at += len(own)
    return tokens, segments, positions


def train(num_steps=NUM_STEPS):
    """(model config, parameters, vocabulary) of a model that knows the built-in text."""
    sentences = ["".join(sentence) for sentence in SENTENCES]
    vocabulary = Vocabulary.trained([*PARAGRAPHS.values(), *sentences], TextRenderer(), 400)
    ids = {"pad_token_id": vocabulary.pad_id, "mask_token_id": vocabulary.mask_id}
    model = dataclasses.replace(presets.get("tiny"), vocab_size=vocabulary.size, n_group=1, topk_group=1, **ids)
    config = Config(
        optimizer=OptimizerConfig(learning_rate=8e-3, warmup_steps=20, expert_bias_rate=0.003),
        train=TrainConfig(num_steps=num_steps), loss=LossConfig(normalisation="token"),
    )  # fmt: skip
    trainer = Trainer(config, model_config=model)

    def encode(text):
        return vocabulary.encode_text(text)[0]

    short = [encode(sentence) for sentence in sentences]
    texts = [[p] for p in questions.paragraphs(encode)] + [short[:4], short[4:8], short[8:]]
    tokens, segments, positions = _rows(texts, vocabulary.pad_id)
    kind = np.where(segments > 0, int(Kind.OBSERVATION), -1).astype(np.int8)
    rng = np.random.default_rng(0)
    for _ in range(num_steps):
        is_target = (rng.random(tokens.shape) < rng.uniform(0.1, 0.7, (len(tokens), 1))) & (segments > 0)
        seen = np.where(is_target, vocabulary.mask_id, tokens).astype(np.int32)
        rates, fields = np.ones(tokens.shape, np.float32), np.zeros(tokens.shape, np.int8)
        batch = Batch(seen, tokens, is_target, positions, segments, kind, fields, rates, segments)
        trainer.state, _ = trainer.train_step(trainer.state, sharding.place_batch(batch, trainer.mesh))
    return model, trainer.state.params, vocabulary


def as_tensors(model, params):
    """{published name: float32 array} of a split checkpoint."""
    dims = names.Dims.from_config(model.to_hf(), "the model")
    tensors = {}
    for leaf in leaves(dims, "float32"):
        value = params
        for key in leaf.path:
            value = value[key]
        stored = as_stored(np.asarray(value), leaf)
        first = dims.num_dense if leaf.path[0] == "moe" else 0
        for layer, by_expert in enumerate(stored):
            for expert, halves in enumerate(by_expert):
                for row, own in zip(leaf.rows, halves, strict=True):
                    tensors[row.hf.format(i=first + layer, e=expert)] = np.ascontiguousarray(own)
    return tensors


def write(folder, config, tensors, vocabulary):
    """The checkpoint as a directory with its tokenizer."""
    checkpoints.write(folder, config, tensors, num_shards=3)
    vocabulary.save(folder)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")  # `save` may have left one of its own
    return folder


LAYER = "model.layers.{}."


def rotary_width(config, tensors):
    config["partial_rotary_factor"], config["rotary_dim"] = 1.0, config["head_dim"]


def transposed(config, tensors):
    name = LAYER.format(2) + "attention.dense.weight"
    tensors[name] = np.ascontiguousarray(tensors[name].T)


def gate_and_up(config, tensors):
    for name in [name for name in tensors if "gate_proj" in name and ".experts." in name]:
        other = name.replace("gate_proj", "up_proj")
        tensors[name], tensors[other] = tensors[other], tensors[name]


def random_expert(config, tensors):
    rng = np.random.default_rng(1)
    for part in ("gate", "up", "down"):
        name = LAYER.format(1) + f"mlp.experts.5.{part}_proj.weight"
        tensors[name] = rng.normal(0, 0.1, tensors[name].shape).astype(np.float32)


def permuted_experts(config, tensors):
    order = np.random.default_rng(3).permutation(config["num_experts"])
    before = dict(tensors)
    for layer in (1, 2):
        for e, other in enumerate(order):
            for part in ("gate", "up", "down"):
                name = LAYER.format(layer) + "mlp.experts.{}." + f"{part}_proj.weight"
                tensors[name.format(e)] = before[name.format(other)]


def zero_shard(config, tensors):
    for name in list(tensors)[1::3]:  # what `checkpoints.write` puts into the second of three
        tensors[name] = np.zeros_like(tensors[name])


def norm_epsilon(config, tensors):
    config["rms_norm_eps"] = 0.1


def dropped_bias(config, tensors):
    for name in tensors:
        if name.endswith("expert_bias"):
            tensors[name] = np.zeros_like(tensors[name])


def shifted_embedding(config, tensors):
    name = "model.word_embeddings.weight"
    tensors[name] = np.roll(tensors[name], 1, axis=0)


def misread_bits(config, tensors):
    for name, value in tensors.items():
        tensors[name] = value.astype(ml_dtypes.bfloat16).view(np.float16)


DAMAGES = {
    rotary_width: "rotary width", transposed: "transposed", gate_and_up: "gate and up swapped",
    random_expert: "random experts", permuted_experts: "experts permuted", zero_shard: "zeros",
    norm_epsilon: "norm epsilon", dropped_bias: "expert bias", shifted_embedding: "embedding shifted",
    misread_bits: "misread bits",
}  # fmt: skip
"""What is done to a checkpoint -> what the doctor calls it."""
