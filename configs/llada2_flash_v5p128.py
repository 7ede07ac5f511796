"""LLaDA2.0-flash (102.9B), full fine-tune on a TPU v5p-128 (64 chips).

    python -m anyorder_jax.fit --config=configs/llada2_flash_v5p128.py --target=v5p-128
    python -m anyorder_jax.train --config=configs/llada2_flash_v5p128.py --config.model.path=DIRECTORY

AdamW with parameters and moments in float32. Eight chips hold different experts (expert = 8) and exchange tokens; every
weight is split over the other axis (fsdp = 8), so that a gathered layer is an eighth of its experts.

Compiled: 52.2 of 95.7 GiB (state 18.0). Roofline: at most 8,100 tokens/s a chip, by collectives; not run.
"""

from anyorder_jax.config import defaults


def get_config(variant=""):
    config = defaults(variant)
    config.model.preset = "llada2_flash"
    config.model.compute_dtype = "bfloat16"
    config.model.remat = "full"
    config.data.row_length = 4096
    config.train.batch_size = 64
    config.mesh.data, config.mesh.fsdp, config.mesh.expert = 1, -1, 8
    return config
