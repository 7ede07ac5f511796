"""Any-order over single grid cells, p = 0.5, instead of whole observations.

python -m anyorder_jax.train --config=configs/cell_masking.py
"""

from anyorder_jax.config import defaults


def get_config(variant=""):
    config = defaults(variant)
    config.masking.granularity = "cell"
    return config
