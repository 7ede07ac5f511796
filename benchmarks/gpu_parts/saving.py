"""A train state of mini, as deep as the disk has room for, saved and restored by the real checkpointer."""

from __future__ import annotations

import math
import shutil
import time

import jax

from anyorder_jax import checkpoint, digest, keys, sharding, state
from anyorder_jax.config import CheckpointConfig
from anyorder_jax.model import lora
from anyorder_jax.optimizer import make_optimizer
from gpu_parts.measuring import FULL, GIB, Size, recipe
from gpu_parts.rows import Rows, Skip

LARGEST = 14 * GIB
"""More would not be written and read within this part's time."""


def num_bytes(tree: object) -> int:
    """Of a tree of arrays or shapes."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def run(rows: Rows, size: Size) -> None:
    """Saves, drops the state, restores it, and compares the digests of all arrays."""
    room = min(LARGEST, shutil.disk_usage(size.folder).free // 3)
    for num_layers in (0, 3, 2):
        config, model = recipe(size, FULL, num_layers)
        mesh = sharding.make_mesh(config.mesh, jax.devices()[:1])
        dtype = config.model.param_dtype
        shapes = state.abstract_params(model, mesh, dtype)
        optimizer, _ = make_optimizer(config.optimizer, config.train.num_steps, shapes)
        abstract, _ = state.state_shardings(model, optimizer, mesh, dtype)
        if num_bytes(abstract) <= room:
            break
    else:
        raise Skip(f"two layers take {num_bytes(abstract) / GIB:.1f} GiB, a third of the disk is {room / GIB:.1f}")
    what = f"{FULL}, {model.num_hidden_layers} layers, {num_bytes(abstract) / GIB:.2f} GiB"
    made = state.create(model, optimizer, mesh, dtype, keys.key(0, "init"))
    stored = made._replace(params=lora.split(made.params)[0])
    before = digest.of_arrays((stored.params, stored.opt_state))
    folder = size.folder / "saved"
    start = time.perf_counter()
    with checkpoint.Checkpointer(folder, CheckpointConfig(), print) as checkpointer:
        checkpointer.save(stored, {}, {})
        rows.add(what, "training goes on after", time.perf_counter() - start, "s")
    rows.add(what, "saved in", time.perf_counter() - start, "s", note="until the disk has it, digests included")
    del made, stored
    start = time.perf_counter()
    with checkpoint.Checkpointer(folder, CheckpointConfig(), print) as checkpointer:
        restored = checkpointer.restore_newest(abstract, lambda meta: None)
    assert restored is not None
    jax.block_until_ready(restored.state)
    rows.add(what, "restored in", time.perf_counter() - start, "s", note="digests included, file cache warm")
    after = digest.of_arrays((restored.state.params, restored.state.opt_state))
    rows.judge(what, "digests are equal", before == after, f"{len(before)} arrays")
    shutil.rmtree(folder)
