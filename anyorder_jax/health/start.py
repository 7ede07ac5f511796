"""Before the first update of a run that starts from given weights: do they know anything?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from anyorder_jax import run_directory
from anyorder_jax.config import Config
from anyorder_jax.data.tokenization import Vocabulary
from anyorder_jax.health import questions
from anyorder_jax.health.verdict import start_sentence
from anyorder_jax.types import ROLES, Batch, Field, Kind

Sums = Mapping[str, Any]


def is_due(config: Config, num_done: int) -> bool:
    """Whether a run that has done so many updates is to be checked: at its start, from weights that training here did
    not save (those have digests, and were a run's)."""
    path = config.model.path
    if num_done or not path or config.model.check == "off":
        return False
    return not run_directory.is_run(path) or run_directory.find(path)[1] == 0


def rows_of(vocabulary: Vocabulary, row_length: int, num_rows: int) -> Batch | None:
    """The built-in text with 15% of its tokens hidden, a paragraph a row, as rows of a run; None where the vocabulary
    has no words for it (that of a grid).

    Args:
      row_length: L; of each paragraph as much is read as `doctor` reads, and no more than fits.
      num_rows: B; rows without text fill it up.
    """
    try:
        texts = questions.paragraphs(lambda text: vocabulary.encode_text(text)[0])
    except ValueError:
        return None
    rows = questions.masked(
        texts[:num_rows], questions.RATES[0], length=min(row_length, questions.LENGTH), mask_id=vocabulary.mask_id,
        pad_id=vocabulary.pad_id,
    )  # fmt: skip
    missing = num_rows - rows.tokens.shape[0], row_length - rows.tokens.shape[1]

    def filled(x: np.ndarray, value: int) -> np.ndarray:
        return np.pad(x, ((0, missing[0]), (0, missing[1])), constant_values=value)

    segments = filled(rows.segment_ids, 0)
    is_text = segments > 0
    return Batch(
        tokens=filled(rows.tokens, vocabulary.pad_id),
        targets=filled(rows.targets, vocabulary.pad_id),
        is_target=filled(rows.is_asked, 0),
        positions=np.where(is_text, np.arange(row_length, dtype=np.int32), 0).astype(np.int32),
        segment_ids=segments,
        kind=np.where(is_text, int(Kind.OBSERVATION), -1).astype(np.int8),
        field=np.full(segments.shape, int(Field.TEXT), np.int8),
        rate=np.where(is_text, questions.RATES[0], 1).astype(np.float32),
        example=np.full(segments.shape, -1, np.int32),
    )


def check(
    config: Config, vocabulary: Vocabulary, vocab_size: int, own: Batch | None, ask: Callable[[Batch], Sums],
    say: Callable[[str], None],
) -> None:  # fmt: skip
    """Asks the weights about the built-in text, and about the run's own validation rows where there are some; says what
    they cost.

    Args:
      config: of the run.
      vocabulary: of the run.
      vocab_size: V, of the model.
      own: all validation rows; None where there are none.
      ask: the sums of a validation over rows [B, L], a multiple of a micro-batch (the same B compiles nothing new).
      say: gets a sentence for the user.

    Raises:
      ValueError: when these are not the weights of a trained model.
    """
    micro = config.train.batch_size // config.train.accumulation_steps
    num_rows = len(own.tokens) if own is not None else micro
    while num_rows < len(questions.PARAGRAPHS):
        num_rows += micro
    text = rows_of(vocabulary, config.data.row_length, num_rows)
    asked = {"a built-in text, 15% hidden": text, "the run's own validation rows": own}
    losses = {name: _mean(ask(rows)) for name, rows in asked.items() if rows is not None}
    if not losses:
        return
    if sentence := start_sentence(losses, vocab_size, str(Path(config.model.path))):
        raise ValueError(sentence)
    told = ", ".join(f"{loss:.2f} on {name}" for name, loss in losses.items())
    say(f"Weights of {config.model.path}: {told} (nats per hidden token; guessing costs {np.log(vocab_size):.2f}).")


def _mean(sums: Sums) -> float:
    count = sum(float(sums[f"count/{role}"]) for role in ROLES)
    return sum(float(sums[f"nll/{role}"]) for role in ROLES) / max(count, 1.0)
