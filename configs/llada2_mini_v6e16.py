"""LLaDA2.0-mini (16.3B), full fine-tune on a TPU v6e-16.

    python -m anyorder_jax.fit --config=configs/llada2_mini_v6e16.py --target=v6e-16
    python -m anyorder_jax.train --config=configs/llada2_mini_v6e16.py --config.model.path=DIRECTORY

AdamW with parameters and moments in float32, split over all devices; pairs of chips hold half of the experts each and
exchange tokens.

Compiled: 23.2 of 31.25 GiB (state 11.4). Roofline: at most 19,400 tokens/s a chip, by collectives; not run.
Before dense weights were split over `expert` too: 18,800 and 24.5 GiB, `--config.mesh.expert=4` 30,200 and 28.1.
"""

from anyorder_jax.config import defaults


def get_config(variant=""):
    config = defaults(variant)
    config.model.preset = "llada2_mini"
    config.model.compute_dtype = "bfloat16"
    config.model.remat = "full"
    config.data.row_length = 4096
    config.train.batch_size = 16
    config.mesh.data, config.mesh.fsdp, config.mesh.expert = 1, -1, 2
    return config
