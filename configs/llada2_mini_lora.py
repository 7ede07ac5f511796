"""LLaDA2.0-mini (16.3B) on one 48 GB card: LoRA of rank 16 on every matrix, the frozen base in 8 bits.

    python -m anyorder_jax.fit --config=configs/llada2_mini_lora.py --target=h100x1
    python -m anyorder_jax.train --config=configs/llada2_mini_lora.py --config.model.path=DIRECTORY

0.60B factors in float32, a pair for each of 256 experts; `--config.lora.targets=attention,dense,shared` leaves 5.6M.
Compiled for Hopper: 30.5 GiB (state 22.6). Roofline of an H100: at most 111,000 tokens/s by matrix products; not run.
On other GPUs the kernels are those that run everywhere: right, slow, and not compiled here.
"""

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
