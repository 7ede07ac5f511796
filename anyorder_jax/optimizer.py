"""AdamW with warm-up and cosine decay; which weights are decayed or frozen is read from ordered pattern rules."""

from __future__ import annotations

import re
from typing import Any

import jax
import optax

from anyorder_jax.config import OptimizerConfig

FROZEN = ((r"expert_bias$", True), (r"", False))
"""The router's expert bias is a buffer in the reference: it chooses experts and is never trained."""

DECAY = {
    "matrices": ((r"(norm|bias)[^/]*$", False), (r"", True)),
    "all": ((r"", True),),  # dFactory: norms and biases too
}


def match_rules(tree: Any, rules: tuple[tuple[str, Any], ...]) -> Any:
    """A tree of the first rule's value whose pattern is found in the leaf's path ("moe/attention/query_norm").

    Raises:
      ValueError: for a leaf that no rule covers.
    """

    def value_of(path: Any, _: Any) -> Any:
        name = "/".join(str(getattr(p, "key", p)) for p in path)
        for pattern, value in rules:
            if re.search(pattern, name):
                return value
        raise ValueError(f"optimizer: no rule covers {name}; the patterns are {[p for p, _ in rules]}.")

    return jax.tree_util.tree_map_with_path(value_of, tree)


def make_schedule(config: OptimizerConfig, num_steps: int) -> optax.Schedule:
    """Learning rate of update n (0-based): linear warm-up to `learning_rate`, cosine to `end_learning_rate`.

    The first update has learning_rate / warmup_steps, not 0 as the reference's.
    """
    warmup = min(config.warmup_steps, max(num_steps - 1, 0))
    return optax.warmup_cosine_decay_schedule(
        init_value=config.learning_rate / max(warmup, 1),
        peak_value=config.learning_rate,
        warmup_steps=max(warmup - 1, 0),
        decay_steps=max(num_steps, warmup + 1),
        end_value=config.end_learning_rate,
    )


def make_optimizer(
    config: OptimizerConfig, num_steps: int, params: Any
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The gradient transformation for a tree like `params` (arrays or shapes), and its schedule for the log."""
    schedule = make_schedule(config, num_steps)
    adamw = optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            schedule, config.b1, config.b2, config.eps,
            weight_decay=config.weight_decay,
            mask=lambda tree: match_rules(tree, DECAY[config.decay]),
        ),
    )  # fmt: skip
    labels = jax.tree.map(lambda frozen: "frozen" if frozen else "trained", match_rules(params, FROZEN))
    return optax.partition({"trained": adamw, "frozen": optax.set_to_zero()}, labels), schedule
