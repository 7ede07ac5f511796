"""ToolBench's logged answers with LLaDA2.0-mini (16.3B): any-order masks at p = 0.25 over whole episodes, as chat.

    python -m anyorder_jax.ingest --input=DIRECTORY/toolllama_G123_dfs_train.json --output_dir=data/toolbench_logs
    python -m anyorder_jax.fit --config=configs/toolbench_llada2_mini.py --target=h100x8
    python -m anyorder_jax.train --config=configs/toolbench_llada2_mini.py --config.model.path=DIRECTORY
    python -m anyorder_jax.evaluate --checkpoint=runs/toolbench_llada2_mini --env=ToolBench-G1-tool-schemas

Its own answer trees are ingested by the same command (`--input=DIRECTORY/answer`); `collect
--env=ToolBench-G1-instruction-schemas` gives episodes of our expert instead. The shape is that of
configs/scienceworld_llada2_mini.py. Baseline: `--config.masking.order=causal` (next actions alone). Not run here:
nothing of it is measured.
"""

from anyorder_jax.config import defaults


def get_config(variant=""):
    config = defaults(variant)
    config.model.preset = "llada2_mini"
    config.model.compute_dtype = "bfloat16"
    config.model.remat = "full"
    config.data.path = "data/toolbench_logs"
    config.data.num_episodes = 0  # all
    config.data.context_tokens = config.data.row_length = 8192  # system text with its schemas is a third of it
    config.data.frames = "chat"
    config.data.blocks = "action:64,thought:32"
    config.masking.order = "any_order"
    config.masking.rate = 0.25
    config.masking.causal_step = "any"
    config.loss.end_weight = 0.1
    config.train.batch_size = 8
    config.mesh.data, config.mesh.fsdp = 1, -1
    return config
