"""Any-order over single attributes (object, color, state of a cell), three words a cell.

python -m anyorder_jax.train --config=configs/attribute_masking.py
"""

from anyorder_jax.config import defaults


def get_config(variant=""):
    config = defaults(variant)
    config.data.profile = "attributes"
    config.data.window = 2
    config.data.row_length = 320
    config.masking.granularity = "attribute"
    return config
