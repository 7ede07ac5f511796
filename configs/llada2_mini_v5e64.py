"""LLaDA2.0-mini (16.3B), full fine-tune on a TPU v5e-64.

    python -m anyorder_jax.fit --config=configs/llada2_mini_v5e64.py --target=v5e-64
    python -m anyorder_jax.train --config=configs/llada2_mini_v5e64.py --config.model.path=DIRECTORY

AdamW with parameters and moments in float32, split over all devices; in groups of four, chips hold a quarter of the
experts each and exchange tokens, so that a chip gathers a quarter of a layer's experts.

Compiled: 11.0 of 15.75 GiB (state 2.8). Roofline: at most 11,300 tokens/s a chip, by collectives; not run.
`--config.mesh.expert=2`: 7,500 and 11.0 GiB.
Before dense weights were split over `expert` too: 11,100 and 12.7 GiB; 2: 7,400 and 11.6; 1: 3,200 and 13.6; 8: did not
fit (16.7).
"""

from anyorder_jax.config import defaults


def get_config(variant=""):
    config = defaults(variant)
    config.model.preset = "llada2_mini"
    config.model.compute_dtype = "bfloat16"
    config.model.remat = "full"
    config.data.row_length = 4096
    config.train.batch_size = 64
    config.mesh.data, config.mesh.fsdp, config.mesh.expert = 1, -1, 4
    return config
