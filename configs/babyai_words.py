"""BabyAI in words (docs/babyai_in_words.md): the episodes of a level as prompted language models read them.

python -m anyorder_jax.train --config=configs/babyai_words.py --workdir=runs/words
python -m anyorder_jax.evaluate --checkpoint=runs/words --num_episodes=100

The episodes are those of the grid; `evaluate` asks every conditional and acts in BabyAIText-..., the same level as a
world of text. With --config.data.environment any other level.
"""

from anyorder_jax.config import defaults


def get_config(variant=""):
    config = defaults(variant)
    config.data.profile = "words"
    config.data.num_tokens = 512
    config.data.context_tokens = config.data.row_length = 256
    config.data.max_unit_tokens = 112  # the longest observation of a room with eight things has 105
    config.masking.order = "any_order:0.3,causal:0.6,forward:0.1"
    config.masking.granularity = "unit:0.6,line:0.2,token:0.2"
    config.masking.rate, config.masking.rate_max = 0.15, 0.8
    config.masking.causal_step = "any"
    config.loss.weights = "action:1,observation:1,other:0.3"
    config.loss.end_weight = 0.1
    config.optimizer.learning_rate = 4e-3
    if variant == "":
        config.train.num_steps = 3000
        config.log.validate_every_steps = 1000
    return config
