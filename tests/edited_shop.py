"""A small world of text for tests: an agent's log of a shop, whose environment is not here; edited on the way."""

from __future__ import annotations

import dataclasses
import json

from anyorder_jax.config import CheckpointConfig, Config, DataConfig, LogConfig, OptimizerConfig, TrainConfig
from anyorder_jax.data import sources
from anyorder_jax.types import Kind, Trajectory, Unit


def shop_episode(number: int) -> Trajectory:
    """An agent's log: free text, thoughts, arguments, a page of two lines."""
    texts = (
        Unit(Kind.GOAL, 0, text="Buy a red mug, please."),
        Unit(Kind.OBSERVATION, 0, text="Entrance.\n  Buttons:  [search]"),
        Unit(Kind.THOUGHT, 0, text="I look for a mug."),
        Unit(Kind.ACTION, 0, text=f"search[red mug {number}]"),
        Unit(Kind.OBSERVATION, 1, text="Bought. Score: 1.0"),
    )
    return Trajectory(f"shop-{number}", texts, {"success": True}, {"environment": "Shop-v0"})


def write_shop(directory, environment="Shop-v0", num=4, episode=shop_episode):
    splits = {}
    for offset, split in enumerate(sources.SPLITS):
        file = f"{split}/shard-00000.jsonl"
        lines = [sources.encode(episode(10 * offset + i)) for i in range(num)]
        size, digest = sources.write_shard(directory / file, lines)
        splits[split] = (sources.Shard(file, num, num, size, digest),)
    sources.write_manifest(directory, sources.Manifest(environment, {}, splits))


def edit(path, old, new, is_listed):
    """Changes a shard, and with `is_listed` the manifest with it."""
    before = path.read_text()
    path.write_text(before.replace(old, new, 1))
    assert path.read_text() != before
    if is_listed:
        root = path.parents[1]
        manifest = sources.read_manifest(root)
        (shard,) = manifest.splits[path.parent.name]
        shard = dataclasses.replace(shard, sha256=sources.sha256(path))
        splits = {**manifest.splits, path.parent.name: (shard,)}
        sources.write_manifest(root, dataclasses.replace(manifest, splits=splits))


def swap_two_tokens(directory):
    """The tokenizer's ids of "a" and "e" change places: as many tokens, other contents."""
    path = directory / "tokenizer.json"
    content = json.loads(path.read_text())
    ids = content["model"]["vocab"]
    ids["a"], ids["e"] = ids["e"], ids["a"]
    path.write_text(json.dumps(content))


def shop_config(data, tokenizer):
    return Config(
        data=DataConfig(path=str(data), num_episodes=0, tokenizer=str(tokenizer), window=0, row_length=176),
        masking=dataclasses.replace(Config().masking, causal_step="any"),
        train=TrainConfig(num_steps=2),
        optimizer=OptimizerConfig(warmup_steps=1),
        log=LogConfig(every_steps=1, num_validation_rows=2),
        checkpoint=CheckpointConfig(save_every_steps=1),
    )
