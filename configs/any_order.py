"""Any-order masked training, p = 0.5: every observation and action is hidden with probability one half.

python -m anyorder_jax.train --config=configs/any_order.py
"""

from anyorder_jax.config import defaults


def get_config(variant=""):
    config = defaults(variant)
    config.masking.order = "any_order"
    config.masking.rate = 0.5
    return config
