"""The tokenizer of a collection, or of several, that no model brings: trained when first asked for, then kept."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from anyorder_jax.config import DataConfig
from anyorder_jax.data import sources
from anyorder_jax.data.tokenization import Vocabulary
from anyorder_jax.types import Codec, Unit

TRAINING_CHARACTERS = 50_000_000
"""Of text that a tokenizer is trained on at most: the first episodes of the training splits."""

FORM = 2
"""Raised when the same texts give another tokenizer, so that none is taken that was kept before."""


def trained_vocabulary(collections: Sequence[tuple[Path, Codec]], data: DataConfig) -> Vocabulary:
    """The byte-pair tokenizer of some collections, made for the first one's codec; kept beside the first one's data.

    Args:
      collections: directories with manifest.json, and how their units are written: running text as it is, other
        units as their words.
      data: number of tokens, and of episodes that count.
    """
    directory, codec = collections[0]
    parts = []
    for path, its_codec in collections:
        manifest = sources.read_manifest(path)
        shards = [[shard.file, shard.sha256] for shard in manifest.splits.get("train", ())]
        is_written = its_codec.is_running_text and its_codec.name != "text"  # units that may be read otherwise, too
        parts.append([shards, data.num_tokens, data.num_episodes, *[its_codec.name] * is_written])
    content = json.dumps([FORM, *parts]).encode()
    folder = directory / "tokenizers" / f"{data.num_tokens}-{hashlib.sha256(content).hexdigest()[:12]}"
    if (folder / "tokenizer.json").is_file():
        return Vocabulary.from_directory(folder, codec)

    def texts() -> Iterator[str]:
        for path, its_codec in collections:
            yield from _texts(path, its_codec, data, TRAINING_CHARACTERS // len(collections))

    vocabulary = Vocabulary.trained(texts(), codec, data.num_tokens)
    with contextlib.suppress(OSError):  # a read-only collection gets the same one again next time
        temporary = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
        vocabulary.save(temporary)
        try:
            temporary.rename(folder)
        except OSError:  # another process was first
            shutil.rmtree(temporary, ignore_errors=True)
    return vocabulary


def _texts(directory: Path, codec: Codec, data: DataConfig, num_characters: int) -> Iterator[str]:
    num = 0
    for trajectory in sources.iterate_trajectories(directory, "train", data.num_episodes, lambda sentence: None):
        for unit in trajectory.units:
            text = _text(unit, codec)
            yield text
            num += len(text)
        if num > num_characters:
            return


def _text(unit: Unit, codec: Codec) -> str:
    """A unit's text; "" for one that has none, which is told, with its place, where it is tokenised."""
    if not codec.is_running_text:
        return "".join(f" {slot.word}" for slot in codec.slots(unit))
    with contextlib.suppress(ValueError):
        return "".join(slot.word for slot in codec.slots(unit))
    return ""
