"""WebArena-Verified with LLaDA2.0-mini (16.3B): any-order masks at p = 0.25 over the last pages that fit, as chat.

    python -m anyorder_jax.collect --env=WebArena-lite+stand_ins --num_episodes=100 --output_dir=data/webarena
    python -m anyorder_jax.fit --config=configs/webarena_llada2_mini.py --target=h100x8
    python -m anyorder_jax.train --config=configs/webarena_llada2_mini.py --config.model.path=DIRECTORY
    python -m anyorder_jax.evaluate --checkpoint=runs/webarena_llada2_mini --env=WebArena-lite

Oracles on stand-in sites give few episodes of small pages; with those of agents on the real ones, ingested into
data/webarena (docs/own_data.md), everything else stays. A real page is 7,000 characters on average, about 2,000 tokens.
The shape is that of configs/toolbench_llada2_mini.py. Baseline: `--config.masking.order=causal` (next actions alone).
Not run here: nothing of it is measured.
"""

from anyorder_jax.config import defaults


def get_config(variant=""):
    config = defaults(variant)
    config.model.preset = "llada2_mini"
    config.model.compute_dtype = "bfloat16"
    config.model.remat = "full"
    config.data.path = "data/webarena"
    config.data.num_episodes = 0  # all
    config.data.context_tokens = config.data.row_length = 8192  # three or four pages
    config.data.frames = "chat"
    config.data.blocks = "action:32,thought:32"
    config.masking.order = "any_order"
    config.masking.rate = 0.25
    config.masking.causal_step = "any"
    config.loss.end_weight = 0.1
    config.train.batch_size = 8
    config.mesh.data, config.mesh.fsdp = 1, -1
    return config
