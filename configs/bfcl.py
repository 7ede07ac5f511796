"""Generated tasks over BFCL's tools, from random weights, with a tokenizer trained on them (docs/tools.md).

python -m anyorder_jax.collect --env=BFCL-made-wordings --num_episodes=10000 --output_dir=data/bfcl
python -m anyorder_jax.train --config=configs/bfcl.py
python -m anyorder_jax.evaluate --checkpoint=runs/bfcl

The signatures, the first request and the latest steps stand in the context. Most draws ask the next call; the others
anything, in calls, arguments and words. Settings are those of textworld_cooking. The smoke variant was trained and
evaluated; the whole one was not, so no result is stated.
"""

from anyorder_jax.config import defaults


def get_config(variant=""):
    config = defaults(variant)
    config.data.path = "data/bfcl"
    config.data.num_episodes = 0  # all that were collected
    config.data.num_tokens = 2000
    config.data.context_tokens = config.data.row_length = 768
    config.data.max_unit_tokens = 384
    config.data.blocks = "action:16"
    config.model.preset = "text"
    config.masking.order = "any_order:0.4,causal:0.6"
    config.masking.granularity = "unit:0.5,argument:0.2,token:0.3"
    config.masking.partial = 0.5
    config.masking.rates = "goal:0"
    config.masking.rate, config.masking.rate_max = 0.05, 0.4
    config.loss.end_weight = 0.1
    config.optimizer.name, config.optimizer.learning_rate = "muon", 2e-2
    config.train.batch_size = 8
    if variant != "smoke":
        config.train.num_steps, config.log.validate_every_steps = 8000, 1000
        config.optimizer.warmup_steps = 50
    return config
