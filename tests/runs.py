"""A tiny run for tests: a model of a few thousand weights, random rows in the shape of real ones, a train step."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

from anyorder_jax import keys, sharding, state, step
from anyorder_jax.config import Config, MeshConfig, OptimizerConfig, TrainConfig
from anyorder_jax.model import presets
from anyorder_jax.optimizer import make_optimizer
from anyorder_jax.types import Batch, Kind

VOCABULARY, MASK, PAD = 40, 39, 38


def tiny_model(**changes):
    return dataclasses.replace(
        presets.get("tiny"),
        vocab_size=VOCABULARY,
        pad_token_id=PAD,
        mask_token_id=MASK,
        **{"num_hidden_layers": 2, **changes},
    )


def tiny_config(**sections) -> Config:
    # A large epsilon: Adam divides a gradient of rounding noise by its own size, which would hide what is compared.
    optimizer = OptimizerConfig(warmup_steps=2, learning_rate=1e-2, eps=1e-3)
    return dataclasses.replace(Config(optimizer=optimizer, train=TrainConfig(num_steps=50)), **sections)


def random_batch(seed: int, rows: int = 8, length: int = 24) -> Batch:
    """Two segments a row and some padding, 40% of the tokens hidden."""
    rng = np.random.default_rng(seed)
    shape = (rows, length)
    targets = rng.integers(0, PAD, shape, dtype=np.int32)
    segment = np.repeat([1, 2, 0], [length // 2, length // 3, length - length // 2 - length // 3])
    segments = np.broadcast_to(segment, shape).astype(np.int32)
    kind = rng.choice([Kind.OBSERVATION, Kind.ACTION], shape).astype(np.int8)
    kind = np.where(segments > 0, kind, -1).astype(np.int8)
    is_target = (rng.random(shape) < 0.4) & (segments > 0)
    positions = np.concatenate([np.arange((segment == s).sum()) for s in (1, 2, 0)])
    return Batch(
        tokens=np.where(is_target, MASK, np.where(segments > 0, targets, PAD)).astype(np.int32),
        targets=targets,
        is_target=is_target,
        positions=np.broadcast_to(positions, shape).astype(np.int32),
        segment_ids=segments,
        kind=kind,
        field=np.zeros(shape, np.int8),
        rate=np.full(shape, 0.4, np.float32),
        example=np.where(segments > 0, np.arange(rows)[:, None], -1).astype(np.int32),
    )


class Trainer:
    """`losses = Trainer(config, mesh).run(batches)`."""

    def __init__(self, config: Config, devices=None, model_config=None):
        self.model_config = model_config or tiny_model()
        self.mesh = sharding.make_mesh(config.mesh, devices or jax.devices()[:1])
        dtype = config.model.param_dtype
        shapes = state.abstract_params(self.model_config, self.mesh, dtype, config.lora)
        optimizer, _ = make_optimizer(config.optimizer, config.train.num_steps, shapes)
        more = config.lora, config.optimizer.offload
        self.shapes, placed = state.state_shardings(self.model_config, optimizer, self.mesh, dtype, *more)
        self.train_step = step.make_train_step(config, self.model_config, optimizer, self.mesh, placed)
        self.state = state.create(self.model_config, optimizer, self.mesh, dtype, keys.key(0, "init"), *more)

    def run(self, batches) -> list[float]:
        losses = []
        for batch in batches:
            self.state, metrics = self.train_step(self.state, sharding.place_batch(batch, self.mesh))
            losses.append(float(metrics["loss"]))
        return losses


__all__ = ["MASK", "PAD", "VOCABULARY", "MeshConfig", "Trainer", "random_batch", "tiny_config", "tiny_model"]
