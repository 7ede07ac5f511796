"""CookingWorld of TextWorldExpress, from random weights, with a tokenizer trained on it (docs/text_worlds.md).

python -m anyorder_jax.collect --env=TextWorldExpress-CookingWorld --num_episodes=1000 --slips=0.15 \\
    --output_dir=data/cooking
python -m anyorder_jax.train --config=configs/textworld_cooking.py
python -m anyorder_jax.evaluate --checkpoint=runs/textworld_cooking

Most draws ask the next action alone, half of them with some of its words shown; the others ask any words, observations
and actions. With Muon a small model learns to find a name again on the page; with AdamW it does not in this time
(benchmarks/copying.py). Two CPU cores take 35 minutes. It does not cook whole meals yet: docs/text_worlds.md says how
far it comes. The other games train with the same settings.
"""

from anyorder_jax.config import defaults


def get_config(variant=""):
    config = defaults(variant)
    config.data.path = "data/cooking"
    config.data.num_episodes = 0  # all that were collected
    config.data.num_tokens = 1000
    config.data.context_tokens = config.data.row_length = 704
    config.data.blocks = "action:8"
    config.model.preset = "text"
    config.masking.order = "any_order:0.4,causal:0.6"
    config.masking.granularity = "unit:0.6,token:0.4"
    config.masking.partial = 0.5
    config.masking.rates = "goal:0"
    config.masking.rate, config.masking.rate_max = 0.05, 0.4
    config.loss.end_weight = 0.1
    config.optimizer.name, config.optimizer.learning_rate = "muon", 2e-2
    config.train.batch_size = 8
    if variant != "smoke":
        config.train.num_steps, config.log.validate_every_steps = 6000, 500
        config.optimizer.warmup_steps = 50
    return config
