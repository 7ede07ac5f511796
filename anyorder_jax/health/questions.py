"""Rows of the built-in text with tokens hidden: what the doctor asks a model, and `train` before its first update."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from anyorder_jax.health.text import PARAGRAPHS, SENTENCES

LENGTH = 128
"""Tokens of a row: so much of each paragraph is read."""
RATES = (0.15, 0.5, 0.8)
SEED = 20


class Rows(NamedTuple):
    """Rows that a model fills in, all [B, L]. tokens, targets: int32; is_asked: bool, of hidden tokens that count;
    segment_ids: int32, 1 for text and 0 for what fills up the row."""

    tokens: np.ndarray
    targets: np.ndarray
    is_asked: np.ndarray
    segment_ids: np.ndarray


def _filled(texts: Sequence[Sequence[int]], length: int, pad_id: int) -> tuple[np.ndarray, np.ndarray]:
    tokens = np.full((len(texts), length), pad_id, np.int32)
    segment_ids = np.zeros((len(texts), length), np.int32)
    for row, text in enumerate(texts):
        own = list(text)[:length]
        tokens[row, : len(own)], segment_ids[row, : len(own)] = own, 1
    return tokens, segment_ids


def masked(
    texts: Sequence[Sequence[int]], rate: float, *, length: int, mask_id: int, pad_id: int, is_shuffled: bool = False
) -> Rows:
    """Texts with a share `rate` of their tokens hidden; the same draw every time.

    Args:
      texts: token ids; what does not fit into `length` is left out.
      is_shuffled: the tokens of each text stand in another order, hidden and asked in it.
    """
    rng = np.random.default_rng(SEED)
    texts = [text[:length] for text in texts]
    if is_shuffled:
        texts = [list(rng.permutation(np.array(text, np.int32))) for text in texts]
    targets, segment_ids = _filled(texts, length, pad_id)
    is_asked = (rng.random(targets.shape) < rate) & (segment_ids > 0)
    return Rows(np.where(is_asked, mask_id, targets).astype(np.int32), targets, is_asked, segment_ids)


def sentences(encode: Callable[[str], Sequence[int]], *, length: int, mask_id: int, pad_id: int) -> Rows:
    """The ten sentences, each with a word hidden."""
    cut = [[list(encode(part)) for part in sentence] for sentence in SENTENCES]
    targets, segment_ids = _filled([[*before, *word, *behind] for before, word, behind in cut], length, pad_id)
    is_asked = np.zeros(targets.shape, bool)
    for row, (before, word, _) in enumerate(cut):
        is_asked[row, len(before) : len(before) + len(word)] = True
    return Rows(np.where(is_asked, mask_id, targets).astype(np.int32), targets, is_asked, segment_ids)


def paragraphs(encode: Callable[[str], Sequence[int]]) -> list[list[int]]:
    """The paragraphs' token ids, in the order of `PARAGRAPHS`."""
    return [list(encode(text)) for text in PARAGRAPHS.values()]
