"""LLaDA2.0-mini (16.3B) v6e16"""

from anyorder_jax.config import defaults


def get_config(variant=""):
    config = defaults(variant)
    config.model.preset = "llada2_mini"
    config.model.compute_dtype = "bfloat16"
    config.model.remat = "full"
    config.data.row_length = 4096
    config.train.batch_size = 16
    config.mesh.data, config.mesh.fsdp = 1, -1
    return config
