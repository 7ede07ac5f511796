"""LLaDA2.0-mini (16.3B), full fine-tune on a TPU v6e-16.

    python -m anyorder_jax.fit --config=configs/llada2_mini_v6e16.py --target=v6e-16
    python -m anyorder_jax.train --config=configs/llada2_mini_v6e16.py --config.model.path=DIRECTORY

AdamW with parameters and moments in float32, split over all devices; in groups of four, chips hold a quarter of the
experts each and exchange tokens.

Compiled: 24.8 of 31.25 GiB (state 11.4). Roofline: at most 29,800 tokens/s a chip, by collectives; not run.
With earlier code `--config.mesh.expert=2`: 19,400 and 23.2 GiB.
Before dense weights were split over `expert` too: 30,200 and 28.1 GiB; 2: 18,800 and 24.5.
"""

from anyorder_jax.config import defaults


def get_config(variant=""):
    config = defaults(variant)
    config.model.preset = "llada2_mini"
    config.model.compute_dtype = "bfloat16"
    config.model.remat = "full"
    config.data.row_length = 4096
    config.train.batch_size = 16
    config.mesh.data, config.mesh.fsdp, config.mesh.expert = 1, -1, 4
    return config
