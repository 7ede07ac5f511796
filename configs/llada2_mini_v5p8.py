"""LLaDA2.0-mini (16.3B), full fine-tune on a TPU v5p-8 (four chips).

    python -m anyorder_jax.fit --config=configs/llada2_mini_v5p8.py --target=v5p-8
    python -m anyorder_jax.train --config=configs/llada2_mini_v5p8.py --config.model.path=DIRECTORY

AdamW with parameters and moments in float32, split over all devices; pairs of chips hold half of the experts each and
exchange tokens.

Compiled: 69.4 of 95.7 GiB (state 45.4). Roofline: at most 41,000 tokens/s a chip, by collectives; not run.
"""

from anyorder_jax.config import defaults


def get_config(variant=""):
    config = defaults(variant)
    config.model.preset = "llada2_mini"
    config.model.compute_dtype = "bfloat16"
    config.model.remat = "full"
    config.data.row_length = 4096
    config.train.batch_size = 4
    config.mesh.data, config.mesh.fsdp, config.mesh.expert = 1, -1, 2
    return config
