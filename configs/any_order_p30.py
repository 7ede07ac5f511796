"""Any-order masked training, p = 0.30.

python -m anyorder_jax.train --config=configs/any_order_p30.py
"""

from anyorder_jax.config import defaults


def get_config(variant=""):
    config = defaults(variant)
    config.masking.order = "any_order"
    config.masking.rate = 0.30
    return config
