"""The input pipeline: a corpus of tokenised examples, packed, masked and batched; any host can make any
row."""

from __future__ import annotations

import bisect
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import grain
import numpy as np

from anyorder_jax import keys
from anyorder_jax.config import Config
from anyorder_jax.data import packing
from anyorder_jax.data.corpus import Corpus as Corpus
from anyorder_jax.masking.holes import later_turns
from anyorder_jax.types import Batch, Field, Hidden, Tokenised

Sampler = Callable[[np.random.Generator, Tokenised, float], Hidden]
"""Draws what is hidden in an example; the last argument is the position in training, in [0, 1]."""

Complement = Callable[[Tokenised, Hidden], Hidden]
"""Hides what the first draw showed (LLaDA2.0 report, section 5.1)."""


class Examples(Protocol):
    """What rows are made of: `Corpus`, the same examples in every epoch, `text_corpus.TextCorpus`, drawn ones, or
    `mixtures.Mixture` of several of them."""

    def example(self, e: int, epoch: int = 0) -> Tokenised:
        """Example number e of an epoch."""
        ...

    def name(self, e: int) -> str:
        """What errors call it."""
        ...

    def branched(
        self, e: int, epoch: int, example: Tokenised, hidden: Hidden, rng: np.random.Generator
    ) -> tuple[Tokenised, Hidden]:
        """The example and its draw as they are, or, for a share of the draws that ask what an action leads to, with
        another action and what that led to (`branches`); never longer.

        Args:
          e: number of the example.
          epoch: of the draw.
          example: as `example` cut it out.
          hidden: what was drawn in it.
          rng: goes on from the draw.
        """
        ...

    def pack(self, row_length: int, seed: int, block_size: int = 1, epoch: int = 0) -> packing.Packing:
        """The rows of an epoch. Raises ValueError for an example that is longer than a row, by its name.

        Args:
          row_length: L, tokens in a row.
          seed: of the packing.
          block_size: examples start at its multiples.
          epoch: whose examples are packed.
        """
        ...


class RowShape(NamedTuple):
    """row_length: L. mask_id, pad_id: of the vocabulary. block_size: of `TrainConfig.aligned_to`."""

    row_length: int
    mask_id: int
    pad_id: int
    block_size: int = 1


class RowMaker(NamedTuple):
    """Makes rows: cuts the examples, draws what is hidden, puts the mask tokens in.

    block_size: 1, or that of block diffusion: examples start at its multiples, `later_turns` are hidden (not asked),
    and what is hidden without being asked is so in the clean tokens too, which later blocks see.
    """

    corpus: Examples
    sampler: Sampler
    complement: Complement | None
    row_length: int
    mask_id: int
    pad_id: int
    block_size: int = 1

    def empty(self, num_rows: int) -> Batch:
        """Rows of nothing but padding."""
        shape = (num_rows, self.row_length)
        return Batch(
            tokens=np.full(shape, self.pad_id, np.int32),
            targets=np.full(shape, self.pad_id, np.int32),
            is_target=np.zeros(shape, bool),
            positions=np.zeros(shape, np.int32),
            segment_ids=np.zeros(shape, np.int32),
            kind=np.full(shape, -1, np.int8),
            field=np.full(shape, Field.FRAME, np.int8),
            rate=np.ones(shape, np.float32),
            example=np.full(shape, -1, np.int32),
        )

    def row(
        self,
        examples: Sequence[int],
        generator: Callable[[int], np.random.Generator],
        progress: float,
        epoch: int = 0,
    ) -> Batch:
        """One row, [1, L], or with `complement` the row and its complement, [2, L].

        Args:
          examples: numbers of the examples in the row.
          generator: the generator of example e's draw.
          progress: position in training, in [0, 1].
          epoch: whose examples they are.
        """
        batch = self.empty(1 if self.complement is None else 2)
        stop = 0
        for segment, e in enumerate(examples, start=1):
            example, rng = self.corpus.example(e, epoch), generator(e)
            drawn = self.sampler(rng, example, progress)
            example, drawn = self.corpus.branched(e, epoch, example, drawn, rng)
            start = -(-stop // self.block_size) * self.block_size
            stop = start + len(example)
            here = slice(start, stop)
            batch.positions[:, here] = np.arange(len(example))
            batch.segment_ids[:, here] = segment
            kind_U1 = np.append(example.kind_U, np.int8(-1))  # its last entry is that of frames, unit -1
            batch.kind[:, here] = kind_U1[example.slots_GL[0]]
            batch.field[:, here] = example.field_L
            batch.example[:, here] = e
            draws = [drawn]
            if self.complement is not None:
                draws.append(self.complement(example, draws[0]))
            is_later_L = later_turns(example, self.block_size) if self.block_size > 1 else np.False_
            for r, hidden in enumerate(draws):
                batch.tokens[r, here] = np.where(hidden.is_hidden_L | is_later_L, self.mask_id, example.tokens_L)
                is_unknown_L = hidden.is_hidden_L & ~hidden.is_target_L & (self.block_size > 1)
                batch.targets[r, here] = np.where(is_unknown_L, self.mask_id, example.tokens_L)
                batch.is_target[r, here] = hidden.is_target_L
                batch.rate[r, here] = hidden.rate
        return batch


MAX_ROWS = 2**40
"""Of a run whose epochs are packed as they come: more than any run makes."""


class EpochPackings:
    """The rows of examples that are drawn anew in every epoch, in one order: row g = 0, 1, ... of the run.

    An epoch is packed when its first row is asked for; its rows are shuffled by (seed, epoch).
    """

    def __init__(self, corpus: Examples, config: Config, block_size: int) -> None:
        self._corpus, self._seed = corpus, config.seed
        self._packing = config.data.row_length, config.seed, block_size
        self._first_row = [0]  # of each epoch that is known, and of the next one
        self._packings: dict[int, tuple[packing.Packing, np.ndarray]] = {}
        self._lock = threading.Lock()
        self._packing_of(0)  # an example that is longer than a row is told before training begins

    def row(self, g: int) -> tuple[int, np.ndarray]:
        """(epoch, numbers of the examples) of the run's row number g."""
        with self._lock:
            while self._first_row[-1] <= g:
                self._packing_of(len(self._first_row) - 1)
            epoch = bisect.bisect_right(self._first_row, g) - 1
            packed, order_R = self._packing_of(epoch)
            return epoch, packed.row(order_R[g - self._first_row[epoch]])

    def _packing_of(self, epoch: int) -> tuple[packing.Packing, np.ndarray]:
        if epoch not in self._packings:
            packed = self._corpus.pack(*self._packing, epoch=epoch)
            self._packings = {e: found for e, found in self._packings.items() if e >= epoch - 1}
            order_R = keys.generator(self._seed, "rows", epoch).permutation(packed.num_rows)
            self._packings[epoch] = packed, order_R
            if epoch == len(self._first_row) - 1:
                self._first_row.append(self._first_row[-1] + packed.num_rows)
        return self._packings[epoch]


def _stack(rows: Sequence[Batch]) -> Batch:
    return Batch(*map(np.concatenate, zip(*rows, strict=True)))


def make_pipeline(
    config: Config,
    corpus: Examples,
    sampler: Sampler,
    *,
    mask_id: int,
    pad_id: int,
    num_steps_total: int,
    complement: Complement | None = None,
    share: tuple[int, int] = (0, 1),
) -> grain.DatasetIterator[Batch]:
    """An endless iterator of training batches; one batch is one update.

    The packed rows are shuffled anew in every epoch into one global order g = 0, 1, ...; batch b holds the
    rows b*B .. b*B + B-1 of it, and host h of P makes every P-th of them. A draw is a function of (seed,
    epoch, example). So hosts, threads and restarts change nothing, and the state is a batch number, the same
    on every host. With `masking.complementary` B/2 rows of that order make a batch: rows 2i and 2i+1 are a
    row and its complement.

    Args:
      config: seed, data.row_length, data.num_threads, data.prefetch, train.batch_size, masking.complementary,
        train.objective and block_size.
      corpus: the training split.
      sampler, complement: of masking.sampler; complement is needed with masking.complementary only.
      mask_id, pad_id: of the vocabulary.
      num_steps_total: updates of the whole run, for the sampler's progress = g / (rows in the run).
      share: (h, P), the number of this host, from 0, and how many there are.

    Returns:
      A Grain iterator of this host's share of each batch (Batch of NumPy arrays [B / P, L]), with `get_state`
      and `set_state`.

    Raises:
      ValueError: if an example is longer than a row, or the batch does not divide over hosts (and pairs).
    """
    process_index, process_count = share
    rows_per_draw = 2 if config.masking.complementary else 1
    batch_size = config.train.batch_size
    if batch_size % (rows_per_draw * process_count):
        raise ValueError(
            f"config.train.batch_size: expected a multiple of {rows_per_draw * process_count} "
            f"({process_count} "
            f"hosts, masking.complementary = {config.masking.complementary}), got {batch_size}."
        )
    if not config.masking.complementary:
        complement = None
    elif complement is None:
        raise ValueError("pipeline: masking.complementary needs `complement` (masking.sampler.complement).")
    block_size = config.train.aligned_to
    maker = RowMaker(corpus, sampler, complement, config.data.row_length, mask_id, pad_id, block_size)
    num_rows_total = num_steps_total * batch_size // rows_per_draw

    def make_row(g: int, epoch: int, examples: np.ndarray) -> Batch:
        progress = min(1.0, g / num_rows_total)
        return maker.row(examples.tolist(), lambda e: keys.generator(config.seed, "mask", epoch, e), progress, epoch)

    if isinstance(corpus, Corpus):
        packed = corpus.pack(config.data.row_length, config.seed, block_size)
        rows = grain.MapDataset.range(packed.num_rows).seed(config.seed).shuffle().repeat()
        rows = rows.map_with_index(lambda g, row: make_row(g, g // packed.num_rows, packed.row(row)))
    else:
        packings = EpochPackings(corpus, config, block_size)
        rows = grain.MapDataset.range(MAX_ROWS).map(lambda g: make_row(g, *packings.row(g)))
    batches = rows[process_index::process_count].batch(
        batch_size // (rows_per_draw * process_count), drop_remainder=True, batch_fn=_stack
    )
    options = grain.ReadOptions(
        num_threads=config.data.num_threads,
        prefetch_buffer_size=max(config.data.prefetch, config.data.num_threads),
    )
    return iter(batches.to_iter_dataset(options))


def validation_batches(
    corpus: Examples,
    sampler: Sampler,
    seed: int,
    batch_size: int,
    num_rows: int,
    *,
    shape: RowShape,
    progress: float = 1.0,
) -> list[Batch]:
    """Fixed rows with fixed draws: the same at every step of a run and for every run of the seed.

    Args:
      corpus: the validation split.
      sampler: what is asked; another one asks another conditional of the same examples.
      seed: of the packing and the draws.
      batch_size: B, rows of each batch; the last one is filled up with rows of padding.
      num_rows: rows in all, spread evenly over the packing; all of it when it has fewer.
      shape: of the rows.
      progress: position in training that the sampler is told.

    Raises:
      ValueError: if an example is longer than a row.
    """
    packed = corpus.pack(shape.row_length, seed, shape.block_size)
    maker = RowMaker(corpus, sampler, None, *shape)
    num_rows = min(num_rows, packed.num_rows)
    chosen = np.arange(num_rows) * packed.num_rows // num_rows
    rows = [
        maker.row(packed.row(r).tolist(), lambda e: keys.generator(seed, "validation mask", e), progress)
        for r in chosen.tolist()
    ]
    rows += [maker.empty(1)] * (-num_rows % batch_size)
    return [_stack(rows[i : i + batch_size]) for i in range(0, len(rows), batch_size)]
