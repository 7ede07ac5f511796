"""A checkpoint small enough to be kept: this script writes tests/golden/checkpoint/VERSION, once.

Its numbers come from a formula, so that a later version can tell what it should read without the version that wrote it.
"""

import dataclasses
import json
import sys
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from anyorder_jax import checkpoint, run_directory, sharding, state
from anyorder_jax.config import CheckpointConfig, Config, MeshConfig, to_json
from anyorder_jax.model import presets
from anyorder_jax.optimizer import make_optimizer

DIRECTORY = Path(__file__).parent / "golden" / "checkpoint"
STEP = 7
CONFIG = Config(seed=5)
MODEL = dataclasses.replace(
    presets.get("tiny"), vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=2, head_dim=4,
    num_experts=4, moe_intermediate_size=4, mask_token_id=15,
)  # fmt: skip
DATA = {"batches": {"next_index": 7}, "window": {"totals": {"loss": 1.25}, "num": 2}, "losses": []}
FINGERPRINT = {"environment": "BabyAI-GoToObj-v0", "shards_sha256": "0" * 64, "vocabulary_size": 16}


def shapes(devices=None):
    """The state's tree, on `devices` (default: the first)."""
    mesh = sharding.make_mesh(MeshConfig(), devices or jax.devices()[:1])
    weights = state.abstract_params(MODEL, mesh, "float32")
    optimizer, _ = make_optimizer(CONFIG.optimizer, 10, weights)
    return state.state_shardings(MODEL, optimizer, mesh, "float32")[0]


def expected():
    """The state as it was written: leaf n is n + sin(0), n + sin(1), ...; integers are n."""
    leaves, tree = jax.tree.flatten(shapes())
    values = [
        jnp.full(leaf.shape, n, leaf.dtype)
        if jnp.issubdtype(leaf.dtype, jnp.integer)
        else jnp.asarray(n + np.round(np.sin(np.arange(leaf.size)), 2).reshape(leaf.shape), leaf.dtype)
        for n, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(tree, values)._replace(step=jnp.int32(STEP))


def main():
    directory = DIRECTORY / version("anyorder-jax")
    if directory.exists():
        sys.exit(f"{directory} is there, and what is there stays: it proves that it can still be opened.")
    writer = checkpoint.Checkpointer(directory, CheckpointConfig())
    writer.save(expected(), DATA, run_directory.describe(CONFIG, MODEL, FINGERPRINT))
    writer.close()
    (directory / "config.json").write_text(to_json(CONFIG))
    print(f"{directory}: {sum(p.stat().st_size for p in directory.rglob('*') if p.is_file())} bytes")
    print(json.dumps(DATA))


if __name__ == "__main__":
    main()
