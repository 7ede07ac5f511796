"""LLaDA2.0-flash (102.9B) on 64 H100: AdamW in float32, everything split over all 64 devices (fsdp).

python -m anyorder_jax.fit --config=configs/llada2_flash_h100x64.py --target=h100x64
srun python -m anyorder_jax.train --config=configs/llada2_flash_h100x64.py --config.model.path=DIRECTORY

Not compiled for its target yet: no figures.
"""

from anyorder_jax.config import defaults


def get_config(variant=""):
    config = defaults(variant)
    config.model.preset = "llada2_flash"
    config.model.compute_dtype = "bfloat16"
    config.model.remat = "full"
    config.data.row_length = 4096
    config.train.batch_size = 64
    config.mesh.data, config.mesh.fsdp = 1, -1
    return config
