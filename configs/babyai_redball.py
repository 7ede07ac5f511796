"""GoToRedBall from 5,000 demonstrations, a tenth of whose steps are wrong on purpose (recoveries).

    python -m anyorder_jax.train --config=configs/babyai_redball.py --config.seed=0 --workdir=runs/redball/0

Any-order and causal are mixed 7 : 3: the first learns the world, the second the policy's own question.
"""

from anyorder_jax.config import defaults


def get_config(variant=""):
    config = defaults(variant)
    config.data.environment = "BabyAI-GoToRedBall-v0"
    config.data.noise = 0.1
    config.masking.order = "any_order:0.7,causal:0.3"
    if variant == "":
        config.data.num_episodes = 5000
        config.train.num_steps = 8000
        config.log.validate_every_steps = 2000
        config.checkpoint.save_every_steps = 2000
    return config
