"""Filling hidden tokens: all at once, or a few at a time, most confident first (LLaDA2.0 report, section 6)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Forward = Callable[[np.ndarray], np.ndarray]
"""tokens int32 [B, L] -> logits float32 [B, L, V], in ONE bidirectional pass."""


def fill(
    forward: Forward,
    tokens_BL: np.ndarray,
    is_hidden_BL: np.ndarray,
    *,
    threshold: float = 0.0,
    allowed_BLV: np.ndarray | None = None,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Replaces the hidden tokens of each row.

    Every pass fills the hidden positions whose confidence is >= `threshold`, and at least the most confident one of
    each row, until none is left; `threshold` 0 fills all in one pass, above 1 one position a pass.

    Args:
      forward: the model.
      tokens_BL: int32 [B, L], the mask id at hidden positions.
      is_hidden_BL: bool [B, L].
      threshold: probability above which a token is accepted; the report uses 0.95.
      allowed_BLV: bool, broadcastable to [B, L, V]: tokens that may stand there (None: all).
      rng: draws from the distribution (temperature 1) instead of taking its mode.

    Returns:
      int32 [B, L], with no hidden position left.
    """
    tokens_BL, is_hidden_BL = tokens_BL.copy(), is_hidden_BL.copy()
    while is_hidden_BL.any():
        logits_BLV = forward(tokens_BL).astype(np.float64)
        if allowed_BLV is not None:
            logits_BLV = np.where(allowed_BLV, logits_BLV, -np.inf)
        probability_BLV = np.exp(logits_BLV - logits_BLV.max(-1, keepdims=True))
        probability_BLV /= probability_BLV.sum(-1, keepdims=True)
        if rng is None:
            chosen_BL = probability_BLV.argmax(-1)
        else:
            draw_BL1 = rng.random(tokens_BL.shape)[..., None]
            chosen_BL = (probability_BLV.cumsum(-1) < draw_BL1).sum(-1).clip(max=probability_BLV.shape[-1] - 1)
        confidence_BL = np.take_along_axis(probability_BLV, chosen_BL[..., None], -1)[..., 0]
        confidence_BL = np.where(is_hidden_BL, confidence_BL, -1.0)
        is_best_BL = confidence_BL == confidence_BL.max(-1, keepdims=True)
        accept_BL = is_hidden_BL & ((confidence_BL >= threshold) | is_best_BL)
        tokens_BL[accept_BL] = chosen_BL[accept_BL]
        is_hidden_BL &= ~accept_BL
    return tokens_BL
