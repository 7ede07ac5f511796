"""Early experience: given obs_0 and act_0, reconstruct the later observations (no action is a target).

python -m anyorder_jax.train --config=configs/prefix_sft.py
"""

from anyorder_jax.config import defaults


def get_config(variant=""):
    config = defaults(variant)
    config.masking.order = "prefix"
    return config
