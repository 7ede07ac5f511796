"""A curriculum: p grows from 0.15 to 0.50 along a cosine.

python -m anyorder_jax.train --config=configs/scheduled_masking.py
"""

from anyorder_jax.config import defaults


def get_config(variant=""):
    config = defaults(variant)
    config.masking.rate = 0.15
    config.masking.rate_end = 0.50
    config.masking.schedule = "cosine"
    return config
