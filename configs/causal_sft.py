"""Next-action SFT: hide the current action and all that follows; the action is the only target.

python -m anyorder_jax.train --config=configs/causal_sft.py
"""

from anyorder_jax.config import defaults


def get_config(variant=""):
    config = defaults(variant)
    config.masking.order = "causal"
    return config
