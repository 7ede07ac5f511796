"""Any-order masked training, p = 0.5: every observation and action is hidden with probability one half.

python -m anyorder_jax.train --config=configs/any_order.py

Two of a goal's eight tokens say something, and an update sees a few goals only: at the weight of the other recipes,
0.3, they are not inferred (`benchmarks/goals.py`).
"""

from anyorder_jax.config import defaults


def get_config(variant=""):
    config = defaults(variant)
    config.masking.order = "any_order"
    config.masking.rate = 0.5
    config.loss.weights = "observation:1,action:1,other:5"
    config.loss.end_weight = 0.02
    return config
