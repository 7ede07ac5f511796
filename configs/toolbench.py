"""ToolBench's queries, from random weights, on the expert's episodes (docs/tools.md); tried on the sample's alone.

export ANYORDER_JAX_TOOLBENCH=DIRECTORY
python -m anyorder_jax.collect --env=ToolBench-G1-instruction --num_episodes=10000 --output_dir=data/toolbench
python -m anyorder_jax.train --config=configs/toolbench.py
python -m anyorder_jax.evaluate --checkpoint=runs/toolbench

As configs/bfcl.py, whose settings these are, with room for the longer answers. Not trained to its end, so no result is
stated.
"""

from anyorder_jax.config import defaults


def get_config(variant=""):
    config = defaults(variant)
    config.data.path = "data/toolbench"
    config.data.num_episodes = 0  # all that were collected
    config.data.num_tokens = 500  # few, so that what is copied has the same tokens there and here
    config.data.context_tokens = config.data.row_length = 1024
    config.data.blocks = "action:32"
    config.masking.order = "any_order:0.5,causal:0.5"
    config.masking.granularity = "unit:0.5,argument:0.2,token:0.3"
    config.masking.rates = "tool:0,user:0,goal:0"
    config.masking.rate, config.masking.rate_max = 0.3, 0.9
    config.loss.end_weight = 0.1
    config.optimizer.learning_rate = 4e-3
    config.train.batch_size = 8
    if variant != "smoke":
        config.train.num_steps, config.log.validate_every_steps = 2000, 500
        config.optimizer.warmup_steps = 50
    return config
