"""LLaDA2.0-flash (102.9B), full fine-tune on 64 H100 (eight hosts of eight).

    python -m anyorder_jax.fit --config=configs/llada2_flash_h100x64.py --target=h100x64
    srun python -m anyorder_jax.train --config=configs/llada2_flash_h100x64.py --config.model.path=DIRECTORY

AdamW with parameters and moments in float32. The eight GPUs of a host hold different experts (expert = 8) and exchange
tokens over NVLink; hosts split every weight (fsdp = 8): what crosses the slow network is an eighth of a layer's experts
instead of all, and the same for any number of rows. So many rows: 256, four a GPU, a million tokens an update.

Compiled: 65.3 of 79.1 GiB (state 18.0). Roofline: at most 12,200 tokens/s a GPU, by the network between hosts (400 Gb/s
a GPU); 6,100 with 128 rows (48.4 GiB), 3,000 with 64 (36.5 GiB); not run.
"""

from anyorder_jax.config import defaults


def get_config(variant=""):
    config = defaults(variant)
    config.model.preset = "llada2_flash"
    config.model.compute_dtype = "bfloat16"
    config.model.remat = "full"
    config.data.row_length = 4096
    config.train.batch_size = 256
    config.mesh.data, config.mesh.fsdp, config.mesh.expert = 1, -1, 8
    return config
