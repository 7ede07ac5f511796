"""ScienceWorld's short tasks, `easy`, from random weights, with a tokenizer trained on them (docs/text_worlds.md).

python -m anyorder_jax.collect --env=ScienceWorld-easy-short --num_episodes=786 --num_validation_episodes=50 \\
    --num_test_episodes=200 --max_seconds_per_episode=300 --output_dir=data/scienceworld
python -m anyorder_jax.train --config=configs/scienceworld_easy.py
python -m anyorder_jax.evaluate --checkpoint=runs/scienceworld_easy

Finding things and comparing life spans: all 786 official training variations. An observation is cut to 160 tokens, an
example is what fits into 768. Not trained yet, so no result is stated.
"""

from anyorder_jax.config import defaults


def get_config(variant=""):
    config = defaults(variant)
    config.data.path = "data/scienceworld"
    config.data.num_episodes = 0  # all that were collected
    config.data.num_tokens = 2000
    config.data.context_tokens = config.data.row_length = 768
    config.data.max_unit_tokens = 160
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
        config.train.num_steps, config.log.validate_every_steps = 6000, 1000
        config.optimizer.warmup_steps = 50
    return config
