"""LLaDA2.0-mini (16.3B), full fine-tune on one H200.

    python -m anyorder_jax.fit --config=configs/llada2_mini_h200.py --target=h200x1
    python -m anyorder_jax.train --config=configs/llada2_mini_h200.py --config.model.path=DIRECTORY

Set XLA_PYTHON_CLIENT_MEM_FRACTION=0.95 for the second: by itself JAX takes three quarters of a GPU, 105 GiB.
AdamW with parameters and both moments in bfloat16, rounded at random.
Compiled: 126.2 of 139 GiB (state 90.8). Run: 25,500 tokens/s in 126.9 GiB (docs/gpu.md); roofline 100,300.
"""

from anyorder_jax.config import defaults


def get_config(variant=""):
    config = defaults(variant)
    config.model.preset = "llada2_mini"
    config.model.compute_dtype = "bfloat16"
    config.model.param_dtype = "bfloat16"
    config.model.remat = "full"
    config.optimizer.moment_dtype = "bfloat16"
    config.optimizer.stochastic_rounding = True
    config.data.row_length = 4096
    config.train.batch_size = 4
    return config
