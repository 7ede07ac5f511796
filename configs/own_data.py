"""Logs of an agent of your own (docs/own_data.md): any-order and next-action masks over running text.

python -m anyorder_jax.ingest --input=logs.jsonl --output_dir=data/mine
python -m anyorder_jax.train --config=configs/own_data.py --config.data.path=data/mine

A small model from random weights, with a byte-pair tokenizer trained on the logs; --config.model.path=DIRECTORY
fine-tunes a LLaDA2.x with its own. A decision fits one block of 32 tokens, or more of them; what an agent acts on is at
most 512 tokens: raise data.context_tokens and data.row_length together for longer pages.
"""

from anyorder_jax.config import defaults


def get_config(variant=""):
    config = defaults(variant)
    config.data.path = "data/mine"
    config.data.num_episodes = 0  # all
    config.data.context_tokens = config.data.row_length = 512
    config.data.blocks = "action:32,thought:32"
    config.masking.order = "any_order:0.5,causal:0.5"
    config.masking.granularity = "unit:0.5,line:0.25,token:0.25"
    config.masking.rate, config.masking.rate_max = 0.15, 0.8
    config.loss.weights = "action:1,observation:1,tool:1,other:0.3"
    config.loss.end_weight = 0.1
    return config
