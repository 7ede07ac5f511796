"""A small world of text of your own, from random weights, with a tokenizer trained on it (docs/new_world.md).

python -m anyorder_jax.collect --env=Shop-v0 --num_episodes=2000 --output_dir=data/shop
python -m anyorder_jax.train --config=configs/new_world.py
python -m anyorder_jax.evaluate --checkpoint=runs/new_world

For episodes of some hundred tokens, as of the documents' example, whose 2,000 episodes it learns in a minute of two CPU
cores. An example is the goal and the latest steps that fit into `data.context_tokens`; any actions and their words are
asked, what is seen is always there. Longer pages want a longer context and row.
"""

from anyorder_jax.config import defaults


def get_config(variant=""):
    config = defaults(variant)
    config.data.path = "data/shop"
    config.data.num_episodes = 0  # all that were collected
    config.data.num_tokens = 400
    config.data.context_tokens, config.data.row_length = 96, 192
    config.data.blocks = "action:16"
    config.masking.order = "any_order:0.5,causal:0.5"
    config.masking.granularity = "unit:0.6,token:0.4"
    config.masking.rates = "observation:0,goal:0,system:0"
    config.masking.rate, config.masking.rate_max = 0.3, 0.9
    config.loss.weights = "action:1,observation:1,tool:1,other:0.3"
    config.loss.end_weight = 0.1
    config.optimizer.learning_rate = 4e-3
    config.train.batch_size = 8
    if variant != "smoke":
        config.train.num_steps = config.log.validate_every_steps = 1200
        config.optimizer.warmup_steps = 50
    return config
