"""LLaDA2.0-mini (16.3B) on one 48 GB card: LoRA of rank 16 on every matrix, the frozen base in 8 bits.

    python -m anyorder_jax.fit --config=configs/llada2_mini_lora.py --target=l40sx1
    python -m anyorder_jax.train --config=configs/llada2_mini_lora.py --config.model.path=DIRECTORY

0.60B factors in float32, a pair for each of 256 experts; `--config.lora.targets=attention,dense,shared` leaves 5.6M.
Compiled, not run: 32.0 of an L40S's 44.4 GiB (state 22.6); 30.5 on an H100. Roofline by matrix products: at most
44,200 tokens/s on the L40S, 120,900 on the H100. On GPUs other than Hopper scores stand in memory and experts are
multiplied a tile at a time: right, slow, not measured.
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
