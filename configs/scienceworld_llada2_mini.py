"""ScienceWorld's short tasks with LLaDA2.0-mini (16.3B): any-order masks at p = 0.25 over whole episodes, as chat.

    python -m anyorder_jax.fit --config=configs/scienceworld_llada2_mini.py --target=h100x8
    python -m anyorder_jax.train --config=configs/scienceworld_llada2_mini.py --config.model.path=DIRECTORY

The data are those of configs/scienceworld_easy.py, the shape that of configs/llada2_mini_h100x8.py. Baselines, by the
same command: `--config.masking.order=causal` (next actions alone), `=prefix` (early experience's implicit world model),
`--config.masking.rates=observation:0,goal:0` (any order, actions alone). Not run here: nothing of it is measured.
"""

from anyorder_jax.config import defaults


def get_config(variant=""):
    config = defaults(variant)
    config.model.preset = "llada2_mini"
    config.model.compute_dtype = "bfloat16"
    config.model.remat = "full"
    config.data.path = "data/scienceworld"
    config.data.num_episodes = 0  # all
    config.data.window = 0  # whole episodes
    config.data.row_length = 4096
    config.data.frames = "chat"
    config.data.blocks = "action:32"
    config.masking.order = "any_order"
    config.masking.rate = 0.25
    config.masking.causal_step = "any"
    config.loss.end_weight = 0.1
    config.train.batch_size = 16
    config.mesh.data, config.mesh.fsdp = 1, -1
    return config
