"""Early experience in two stages (arXiv 2510.08558): first what actions lead to, then which one the expert takes.

python -m anyorder_jax.train --config=configs/early_experience.py --workdir=runs/early_experience
python -m anyorder_jax.train --config=configs/early_experience.py:imitation --workdir=runs/then_imitation
python -m anyorder_jax.evaluate --checkpoint=runs/then_imitation

The first stage is a world model: next observations, three quarters of them after actions that the expert did not take
(three other actions a step, whose outcome the environment says when episodes are collected). The second imitates, from
the first one's weights. Together as many updates as `causal_sft` alone, a third of them in the first stage.
--config.data.profile=words --config.data.context_tokens=128 trains the same on the level's words.
"""

from anyorder_jax.config import defaults

FIRST = "runs/early_experience"


def get_config(variant=""):
    is_second = variant.split(",")[0] == "imitation"
    config = defaults(variant.removeprefix("imitation").removeprefix(",") if is_second else variant)
    config.data.branches = 3
    first = config.train.num_steps // 3
    if is_second:
        config.model.path = FIRST
        config.masking.order = "causal"
        config.train.num_steps -= first
    else:
        config.masking.order = "forward"
        config.masking.branches = 0.75
        config.train.num_steps = first
    return config
