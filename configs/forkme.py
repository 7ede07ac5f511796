"""Start here: copy this file, change what differs, run it. Every key and its default: anyorder_jax/config/sections.py.

python -m anyorder_jax.train --config=configs/forkme.py
"""

from anyorder_jax.config import defaults


def get_config(variant=""):
    config = defaults(variant)
    config.data.environment = "BabyAI-GoToLocal-v0"
    config.masking.order = "any_order:0.5,suffix:0.25,causal:0.25"
    config.masking.rate, config.masking.rate_max = 0.15, 0.8  # drawn per example
    return config
