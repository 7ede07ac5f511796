"""What one training example looks like: `python -m anyorder_jax.data.show FILE` prints units, tokens, a drawn
mask.

It is run, never imported: the rooms it shows (environments, masking) are strangers to data/.
"""

from __future__ import annotations

if __name__ == "__main__":
    from anyorder_jax import command

    command.begin("show")  # imports take seconds

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from anyorder_jax import paths, terminal
from anyorder_jax.types import Field, Hidden, Kind, Tokenised

if TYPE_CHECKING:
    from anyorder_jax.data.tokenization import Vocabulary

WIDTH = 108


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m anyorder_jax.data.show", description=__doc__)
    parser.add_argument("file", metavar="FILE", type=paths.typed, help="a shard of trajectories (.jsonl or .jsonl.zst)")
    parser.add_argument("--record", type=int, default=0, help="line of the file, from 0")
    parser.add_argument("--window", type=int, default=0, help="the last so many steps (0: the whole trajectory)")
    parser.add_argument("--profile", default="joint", help="joint, attributes or words")
    parser.add_argument(
        "--tokenizer", type=paths.typed, default="", help="a model directory (default: the built-in one)"
    )
    parser.add_argument("--order", default="any_order")
    parser.add_argument("--granularity", default="unit")
    parser.add_argument("--rate", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def _lines(words: list[str], indent: str) -> Iterator[str]:
    """The words in lines of at most WIDTH characters."""
    line = indent
    for word in words:
        if len(line) + len(word) > WIDTH and line != indent:
            yield line.rstrip()
            line = indent
        line += f"{word} "
    yield line.rstrip()


def _seen_words(example: Tokenised, hidden: Hidden, vocabulary: Vocabulary, unit: int) -> list[str]:
    """The tokens of a unit as the model sees them: `?` is a hidden target, `_` hidden but not asked."""
    words = []
    for i in np.flatnonzero(example.slots_GL[0] == unit):
        word = vocabulary.tokenizer.convert_ids_to_tokens(int(example.tokens_L[i]))
        words.append(f"?{word}" if hidden.is_target_L[i] else "_" if hidden.is_hidden_L[i] else word)
    return words


def main() -> None:
    """Prints one record of a file."""
    from anyorder_jax import keys
    from anyorder_jax.config import DataConfig, MaskingConfig
    from anyorder_jax.data import sources, units
    from anyorder_jax.data.tokenization import Vocabulary
    from anyorder_jax.data.trained_tokenizer import trained_vocabulary
    from anyorder_jax.environments import registry
    from anyorder_jax.masking.sampler import AnyOrderMaskSampler

    terminal.accept_any_letter()
    arguments = _arguments()
    try:
        trajectory = sources.read_record(arguments.file, arguments.record)
        codec = registry.make_codec(trajectory.source.get("environment", ""), arguments.profile)
        if arguments.tokenizer:
            vocabulary = Vocabulary.from_directory(arguments.tokenizer, codec)
        elif codec.is_running_text:  # the one that `train` would make
            directory = Path(arguments.file).absolute().parents[1]
            vocabulary = trained_vocabulary([(directory, codec)], DataConfig(num_episodes=0))
        else:
            vocabulary = Vocabulary.builtin(codec)
        example: Tokenised = units.tokenise(trajectory, codec, vocabulary)
        if arguments.window:
            example = units.window(example, int(example.step_U[-1]), arguments.window)
        masking = MaskingConfig(
            order=arguments.order, granularity=arguments.granularity, rate=arguments.rate, causal_step="any"
        )
    except (OSError, ValueError) as error:
        raise SystemExit(f"show: {error}") from error
    hidden = AnyOrderMaskSampler(masking)(keys.generator(arguments.seed, "show"), example)
    own = (example.field_L != Field.FRAME) & (example.field_L != Field.FILLER)
    print(f"trajectory {trajectory.id}: {len(trajectory.units)} units, {dict(trajectory.outcome)}")
    print(
        f"{len(example)} tokens ({own.sum()} in slots) in {len(example.kind_U)} units; order {hidden.order}, "
        f"granularity {hidden.granularity}, rate {hidden.rate:.2f}: {hidden.is_hidden_L.sum()} hidden, "
        f"{hidden.is_target_L.sum()} targets"
    )
    print("?word: hidden and asked, _: hidden only, other words: seen\n")
    for u, (kind, step, is_expert) in enumerate(zip(example.kind_U, example.step_U, example.is_expert_U, strict=True)):
        num_tokens = int((example.slots_GL[0] == u).sum())
        note = "" if is_expert else ", injected (never a target)"
        print(f"{Kind(kind).name.lower()} {step} ({num_tokens} tokens{note})")
        print("\n".join(_lines(_seen_words(example, hidden, vocabulary, u), "  ")))


if __name__ == "__main__":
    main()
