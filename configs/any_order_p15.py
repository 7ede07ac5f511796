"""Any-order masked training, p = 0.15: one unit in seven is hidden.

python -m anyorder_jax.train --config=configs/any_order_p15.py
"""

from anyorder_jax.config import defaults


def get_config(variant=""):
    config = defaults(variant)
    config.masking.order = "any_order"
    config.masking.rate = 0.15
    return config
