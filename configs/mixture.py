"""Half any-order, half causal: one model for the world and for acting.

python -m anyorder_jax.train --config=configs/mixture.py
"""

from anyorder_jax.config import defaults


def get_config(variant=""):
    config = defaults(variant)
    config.masking.order = "any_order:0.5,causal:0.5"
    return config
