"""LLaDA2.0-mini (16.3B), full fine-tune on eight H100.

    python -m anyorder_jax.fit --config=configs/llada2_mini_h100x8.py --target=h100x8
    python -m anyorder_jax.train --config=configs/llada2_mini_h100x8.py --config.model.path=DIRECTORY

AdamW with parameters and moments in float32, split over all devices (fsdp).

Compiled: 36.5 of 79.1 GiB (state 22.7). Roofline: at most 44,000 tokens/s a GPU, by collectives; not run.
"""

from anyorder_jax.config import defaults


def get_config(variant=""):
    config = defaults(variant)
    config.model.preset = "llada2_mini"
    config.model.compute_dtype = "bfloat16"
    config.model.remat = "full"
    config.data.row_length = 4096
    config.train.batch_size = 16
    config.mesh.data, config.mesh.fsdp = 1, -1
    return config
