"""Mixtures: examples of several sources, so many of each in an epoch as their weights say.

    sources    mine (weight 0.7)  a b c d e f g        babyai (weight 0.3)  0 1 2 3 4 5 6 7 8 9
    epoch 0    d a g c f b e                           7 2 9
    epoch 1    b g d a e f c                           4 0 1                every source goes on where it was

An epoch ends when the first source has been seen once (a tiny one goes round several times, so that rows can be
packed). Every source is gone through in a new order each time, none of its examples twice before all the others.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from anyorder_jax import keys
from anyorder_jax.data import packing
from anyorder_jax.data.pipeline import Corpus
from anyorder_jax.data.text_corpus import TextCorpus
from anyorder_jax.types import Hidden, Tokenised

LEAST_EXAMPLES = 2048
"""Of an epoch, where the sources are small: fewer would leave rows half empty."""


class Source(NamedTuple):
    """One source of a mixture. name: for reports. weight: its share of the examples; all weights sum to 1."""

    name: str
    examples: Corpus | TextCorpus
    weight: float


class _Epoch(NamedTuple):
    """example_K: what `Mixture.example` is asked for. length_K: tokens."""

    example_K: np.ndarray
    length_K: np.ndarray


class Mixture:
    """The examples of several sources (`pipeline.Examples`); see the module. All is a function of (seed, epoch).

    An example's number is (times that its source was gone through in this epoch) * (examples of all sources) + its
    place among those, so the name of an example follows from its number.

    Args:
      sources: none of them empty.
      seed: of the orders in which they are gone through.
    """

    def __init__(self, sources: Sequence[Source], seed: int) -> None:
        self._sources, self._seed = tuple(sources), seed
        sizes = [len(source.examples.lengths(0)) for source in self._sources]
        self._offset_S1 = np.append(0, np.cumsum(sizes)).astype(np.int64)
        self._total = sum(sizes)
        once = min(size / source.weight for size, source in zip(sizes, self._sources, strict=True))
        most = 2**30 // self._total * min(sizes)  # numbers of examples are int32
        self._num = int(max(once, min(LEAST_EXAMPLES, most)))
        self._epochs: dict[int, _Epoch] = {}
        self._lock = threading.Lock()

    def sha256(self) -> str:
        """A digest of what is drawn from, in hex: another one refuses to resume."""
        content = [f"{source.weight!r} {source.examples.sha256()}" for source in self._sources]
        return hashlib.sha256("\n".join(content).encode()).hexdigest()

    def count(self, epoch: int) -> list[int]:
        """How many examples of each source an epoch has."""
        return [stop - begin for begin, stop in (self._span(s, epoch) for s in range(len(self._sources)))]

    def source_of(self, e: int) -> int:
        """The number of the source that example e comes from."""
        return int(np.searchsorted(self._offset_S1, e % self._total, side="right")) - 1

    def example(self, e: int, epoch: int = 0) -> Tokenised:
        """Example number e of an epoch."""
        s = self.source_of(e)
        times, place = divmod(e, self._total)
        first_round = self._span(s, epoch)[0] // self._size(s)
        return self._sources[s].examples.example(place - int(self._offset_S1[s]), first_round + times)

    def branched(
        self, e: int, epoch: int, example: Tokenised, hidden: Hidden, rng: np.random.Generator
    ) -> tuple[Tokenised, Hidden]:
        """See `pipeline.Examples`."""
        s = self.source_of(e)
        times, place = divmod(e, self._total)
        round_ = self._span(s, epoch)[0] // self._size(s) + times
        return self._sources[s].examples.branched(place - int(self._offset_S1[s]), round_, example, hidden, rng)

    def name(self, e: int) -> str:
        """What errors and reports call example e."""
        s = self.source_of(e)
        return f"{self._sources[s].name}: {self._sources[s].examples.name(e % self._total - int(self._offset_S1[s]))}"

    def lengths(self, epoch: int) -> np.ndarray:
        """int [K]: the tokens of each example in an epoch, in the order of `numbers`."""
        return self._epoch(epoch).length_K

    def numbers(self, epoch: int) -> np.ndarray:
        """int [K]: the numbers of an epoch's examples."""
        return self._epoch(epoch).example_K

    def pack(self, row_length: int, seed: int, block_size: int = 1, epoch: int = 0) -> packing.Packing:
        """The rows of an epoch, in which examples start at multiples of `block_size`.

        Args:
          row_length: L, tokens in a row.
          seed: of the packing.
          block_size: examples start at its multiples.
          epoch: whose examples are packed.
        """
        example_K, length_K = self._epoch(epoch)
        packed = packing.pack_aligned(
            length_K, row_length, seed, block_size, name=lambda k: self.name(int(example_K[k]))
        )
        return packed._replace(example_E=example_K[packed.example_E])

    def _size(self, s: int) -> int:
        return int(self._offset_S1[s + 1] - self._offset_S1[s])

    def _span(self, s: int, epoch: int) -> tuple[int, int]:
        """Of all draws of source s in a run, those of an epoch: first and end."""
        share = self._num * self._sources[s].weight
        return int(share * epoch + 0.5), int(share * (epoch + 1) + 0.5)

    def _epoch(self, epoch: int) -> _Epoch:
        with self._lock:
            if epoch not in self._epochs:
                self._epochs = {e: found for e, found in self._epochs.items() if e >= epoch - 1}
                parts = [self._drawn(s, epoch) for s in range(len(self._sources))]
                self._epochs[epoch] = _Epoch(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
            return self._epochs[epoch]

    def _drawn(self, s: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """(numbers, lengths) of the examples that an epoch takes from source s."""
        begin, stop = self._span(s, epoch)
        size, examples = self._size(s), self._sources[s].examples
        numbers, lengths = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for round_ in range(begin // size, -(-stop // size)):
            order_E = keys.generator(self._seed, "mixture", s, round_).permutation(size)
            places = order_E[max(begin - round_ * size, 0) : stop - round_ * size]
            numbers.append(places + self._offset_S1[s] + (round_ - begin // size) * self._total)
            lengths.append(examples.lengths(round_)[places])
        return np.concatenate(numbers), np.concatenate(lengths)
