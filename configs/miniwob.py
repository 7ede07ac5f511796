"""Pages of MiniWoB++ from random weights, with a tokenizer trained on them (docs/web.md).

python -m anyorder_jax.collect --env=MiniWoB-trained --num_episodes=5000 --output_dir=data/miniwob
python -m anyorder_jax.train --config=configs/miniwob.py
python -m anyorder_jax.evaluate --checkpoint=runs/miniwob

75 kinds of tasks are trained, 12 held out. An example is the goal and the latest pages and actions that fit; a longer
page is shortened, with a mark. Most draws ask the next action alone, the others any nodes, actions and words. Settings
are those of textworld_cooking. Not trained to its end yet, so no result is stated.
"""

from anyorder_jax.config import defaults


def get_config(variant=""):
    config = defaults(variant)
    config.data.path = "data/miniwob"
    config.data.num_episodes = 0  # all that were collected
    config.data.num_tokens = 2000
    config.data.context_tokens = config.data.row_length = 1024
    config.data.max_unit_tokens = 896
    config.data.blocks = "action:16"
    config.model.preset = "text"
    config.masking.order = "any_order:0.4,causal:0.6"
    config.masking.granularity = "unit:0.5,node:0.2,token:0.3"
    config.masking.partial = 0.5
    config.masking.rates = "goal:0"
    config.masking.rate, config.masking.rate_max = 0.05, 0.4
    config.loss.end_weight = 0.1
    config.optimizer.name, config.optimizer.learning_rate = "muon", 2e-2
    config.train.batch_size = 8
    if variant != "smoke":
        config.train.num_steps, config.log.validate_every_steps = 6000, 1000
        config.optimizer.warmup_steps = 50
    return config
