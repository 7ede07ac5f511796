"""Block-wise filling as one would write it down: one row, no device. `decode.make_fill` must agree."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def fill(
    logits_of: Callable[[np.ndarray], np.ndarray],
    tokens_L: np.ndarray,
    places: list[int],
    unit_of: dict[int, int],
    block_of: dict[int, int],
    *,
    end_id: int,
    threshold: float,
    draw: Callable[[np.ndarray, int, int], int] = lambda logits_V, place, number: int(logits_V.argmax()),
) -> tuple[np.ndarray, int]:
    """(tokens, passes). logits_of: tokens [L] -> float64 [L, V], -inf where a token may not stand. draw: (logits,
    place, number of the pass from 0) -> token."""
    tokens_L, is_open, passes = tokens_L.copy(), set(places), 0
    while is_open:
        passes += 1
        logits_LV = logits_of(tokens_L)
        block = min(block_of[p] for p in is_open)
        choices = []
        for place in sorted(p for p in is_open if block_of[p] == block):
            probability_V = np.exp(logits_LV[place] - logits_LV[place].max())
            probability_V /= probability_V.sum()
            token = draw(logits_LV[place], place, passes - 1)
            is_cut = any(q < place and unit_of[q] == unit_of[place] for q in is_open)
            if not (token == end_id and is_cut):
                choices.append((float(probability_V[token]), -place, token))
        best = max(choices)
        for sure, minus_place, token in choices:
            if sure >= threshold or (sure, minus_place, token) == best:
                tokens_L[-minus_place] = token
                is_open.discard(-minus_place)
        for place in sorted(is_open):
            before = [q for q in places if q < place and unit_of[q] == unit_of[place] and q not in is_open]
            if any(tokens_L[q] == end_id for q in before):
                tokens_L[place] = end_id
                is_open.discard(place)
    return tokens_L, passes


def drawn_with(noise_V: np.ndarray, logits_V: np.ndarray, temperature: float, top_p: float) -> int:
    """The token that Gumbel noise draws among the likeliest ones that hold `top_p` together."""
    weight_V = np.exp((logits_V - logits_V.max()) / temperature)
    left, kept = top_p * weight_V.sum(), []
    for token in np.argsort(-weight_V, kind="stable").tolist():
        if left <= 0:
            break
        kept.append(token)
        left -= weight_V[token]
    return max(kept, key=lambda token: logits_V[token] / temperature + noise_V[token])
