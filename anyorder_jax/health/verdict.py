"""What a loss on the built-in text says: bounds, and where they come from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

UNTRAINED_SHARE = 0.5
"""Of ln V. The ports of LLaDA2 that were trained from silently broken weights began at 7.7 nats, 0.64 ln V; who knows
of each token but how often it occurs pays about as much, by rule of thumb."""

SMALL_PARAMETERS = 50_000_000
EXPECTED = {0.15: 3.0, 0.5: 4.5, 0.8: 6.5}
"""Nats per hidden token that a healthy model of more than 50M active parameters stays below, by the share that is
hidden; generous, and not measured on LLaDA2. At 15% BERT pays 1.8 (3 layers) to 1.2 (24 layers; arXiv 1810.04805, table
6); over all shares together masked diffusion models of 110M pay 3.1 (MDLM, arXiv 2406.07524)."""


def is_untrained(loss: float, vocab_size: int) -> bool:
    """Whether a mean over tokens of which 15% are hidden is none that a trained model has; NaN is none."""
    return not loss < UNTRAINED_SHARE * math.log(vocab_size)


def start_sentence(losses: Mapping[str, float], vocab_size: int, path: str) -> str:
    """Why a run does not start from the weights at `path`; "" where it may.

    losses: mean nats per hidden token by the name of the text; one that a trained model has is enough.
    """
    if not all(is_untrained(loss, vocab_size) for loss in losses.values()):
        return ""
    told = ", ".join(f"{loss:.2f} on {name}" for name, loss in losses.items())
    return (
        f"config.model.path: {path}: these are not the weights of a trained model. They pay {told} (nats per hidden "
        f"token), and guessing costs ln V = {math.log(vocab_size):.2f}; a trained model pays less than half of that. "
        f"`python -m conversion doctor {path}` says what is wrong; --config.model.check=off starts all the same."
    )


def expected(rate: float, num_active: int) -> float | None:
    """What a healthy model with so many active parameters stays below; None where it is too small to say."""
    return EXPECTED[rate] if num_active >= SMALL_PARAMETERS else None


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """(mean, its standard error) of some numbers."""
    n = len(values)
    mean = sum(values) / n
    spread = sum((x - mean) ** 2 for x in values) / max(n - 1, 1)
    return mean, math.sqrt(spread / n)
