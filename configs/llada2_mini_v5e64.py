"""LLaDA2.0-mini (16.3B), full fine-tune on a TPU v5e-64.

    python -m anyorder_jax.fit --config=configs/llada2_mini_v5e64.py --target=v5e-64
    python -m anyorder_jax.train --config=configs/llada2_mini_v5e64.py --config.model.path=DIRECTORY

AdamW with parameters and moments in float32, split over all devices (fsdp).

Compiled: 13.6 of 15.75 GiB (state 2.8). Roofline: at most 1,100 tokens/s a chip, by collectives: every chip gathers
all experts of a layer for one row of its own; not run. `--config.mesh.expert=8`: 7,500, but 16.7 GiB do not fit.
"""

from anyorder_jax.config import defaults


def get_config(variant=""):
    config = defaults(variant)
    config.model.preset = "llada2_mini"
    config.model.compute_dtype = "bfloat16"
    config.model.remat = "full"
    config.data.row_length = 4096
    config.train.batch_size = 64
    config.mesh.data, config.mesh.fsdp = 1, -1
    return config
