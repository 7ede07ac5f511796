"""Packing: which examples share a row of L tokens. One packing serves all epochs: lengths never change."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from anyorder_jax import keys


class Packing(NamedTuple):
    """Rows of examples.

    example_E: int32, every example once, in the order of rows. start_R1: int64 [R+1], row r holds
    example_E[start_R1[r] : start_R1[r + 1]]. fill: the share of the rows' tokens that is not padding.
    """

    example_E: np.ndarray
    start_R1: np.ndarray
    fill: float

    @property
    def num_rows(self) -> int:
        """How many packed rows the plan has."""
        return len(self.start_R1) - 1

    def row(self, r: int) -> np.ndarray:
        """The numbers of the examples in row r."""
        return self.example_E[self.start_R1[r] : self.start_R1[r + 1]]


def pack(
    lengths_E: np.ndarray, row_length: int, seed: int, *, name: Callable[[int], str] = "example {}".format
) -> Packing:
    """Best-fit decreasing: the longest example first, each into the row that it fills best (Johnson 1973).

        lengths 5 4 3 3 2, L = 8:   [5 . . . . 3 . .]  [4 . . . 3 . . _]  [2 . _ _ _ _ _ _]

    Examples of one length are taken in an order drawn from the seed, so that neighbours in the corpus
    (windows of one episode) do not share rows more often than others.

    Args:
      lengths_E: int, tokens of each example, >= 1.
      row_length: L.
      seed: the same lengths and seed give the same packing.
      name: what an error calls example e.

    Raises:
      ValueError: if there are no examples, or one is longer than L: nothing is cut silently.
    """
    lengths_E = np.asarray(lengths_E)
    if not len(lengths_E):
        raise ValueError("packing: no examples to pack. Is the split empty, or its directory another one?")
    longest = int(lengths_E.argmax())
    if lengths_E[longest] > row_length:
        num_longer = int((lengths_E > row_length).sum())
        raise ValueError(
            f"packing: {name(longest)} has {lengths_E[longest]} tokens, but data.row_length is {row_length} "
            f"({num_longer} of {len(lengths_E)} examples are longer). Set data.row_length >= "
            f"{lengths_E[longest]}, or a smaller data.window."
        )
    shuffled_E = keys.generator(seed, "packing").permutation(len(lengths_E))
    order_E = shuffled_E[np.argsort(-lengths_E[shuffled_E], kind="stable")]
    # open rows by free space; bit f of `spaces`: some row has f tokens free (best fit is one shift)
    rows_by_space: list[list[int]] = [[] for _ in range(row_length + 1)]
    spaces, num_rows = 0, 0
    row_E = np.empty(len(lengths_E), np.int64)
    for e, length in zip(order_E.tolist(), lengths_E[order_E].tolist(), strict=True):
        fitting = spaces >> length
        if fitting:
            space = length + (fitting & -fitting).bit_length() - 1
            row = rows_by_space[space].pop()
            if not rows_by_space[space]:
                spaces ^= 1 << space
        else:
            row, space = num_rows, row_length
            num_rows += 1
        row_E[e] = row
        rows_by_space[space - length].append(row)
        spaces |= 1 << (space - length)
    return Packing(
        example_E=np.argsort(row_E, kind="stable").astype(np.int32),
        start_R1=np.append(0, np.cumsum(np.bincount(row_E, minlength=num_rows))),
        fill=float(lengths_E.sum() / (num_rows * row_length)),
    )


def pack_aligned(
    lengths_E: np.ndarray, row_length: int, seed: int, block_size: int, *, name: Callable[[int], str]
) -> Packing:
    """As `pack`, of examples that start at multiples of `block_size` in their row.

    Args:
      lengths_E, row_length, seed, name: as `pack`.
      block_size: tokens; 1 for no alignment. What it leaves empty counts as padding in `fill`.
    """
    rounded_E = np.minimum(-(-lengths_E // block_size) * block_size, np.maximum(lengths_E, row_length))
    packed = pack(rounded_E, row_length, seed, name=name)
    return packed._replace(fill=float(lengths_E.sum() / (packed.num_rows * row_length)))
