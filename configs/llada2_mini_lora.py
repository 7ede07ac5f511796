"""LLaDA2.0-mini (16.3B) on one 48 GB card: LoRA of rank 16 on every matrix, the frozen base in 8 bits."""

from anyorder_jax.config import defaults


def get_config(variant=""):
    config = defaults(variant)
    config.model.preset = "llada2_mini"
    config.model.compute_dtype = "bfloat16"
    config.model.param_dtype = "bfloat16"
    config.model.remat = "full"
    config.lora.rank = 16
    config.lora.base_dtype = "int8"
    config.optimizer.learning_rate = 2e-4
    config.optimizer.end_learning_rate = 2e-5
    config.data.row_length = 4096
    config.train.batch_size = 8
    config.train.accumulation_steps = 8
    return config
