"""Opening: a checkpoint and what a page shows of its data: windows of grids, or episodes of text."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from anyorder_jax import keys, paths, run_directory, weights
from anyorder_jax.acting.generator import Generator
from anyorder_jax.asking.evaluation import choose_split
from anyorder_jax.asking.run import is_of_text
from anyorder_jax.config import Config
from anyorder_jax.data import sources
from anyorder_jax.evaluation import reading, viewer
from anyorder_jax.evaluation.held_out import open_held_out
from anyorder_jax.evaluation.likelihood import Model
from anyorder_jax.ingestion import episodes
from anyorder_jax.model.config import ModelConfig
from anyorder_jax.provenance import with_data_of
from anyorder_jax.task import config_of_part, open_task, source_configs

EPISODES = 60
"""Held-out episodes that those of a page are chosen from."""


class Answering(Protocol):
    """Windows, and a model that fills holes in them."""

    def described(self) -> list[dict[str, Any]]:
        """Every window, as its page draws it."""
        ...

    def answer(
        self, questions: Sequence[tuple[int, Sequence[tuple[int, ...]]]], sees: str = ""
    ) -> list[dict[str, Any]]:
        """An answer to the holes of each question, (window, holes); ValueError where there are none such."""
        ...


class Reader(Answering, Protocol):
    """`evaluation.viewer.Reader` of grids, or `evaluation.reading.Reader` of text."""

    def page(self, title: str) -> str:
        """The page that a server sends, and answers."""
        ...

    def written(self, title: str) -> str:
        """A page of its own: the answer of every single hole is in it."""
        ...


class Wanted(NamedTuple):
    """What the page offers: `num` windows of grids or episodes of text, drawn with `seed`; or, of text, those of the
    file `input` (a shard or a log), from number `record` on."""

    num: int
    seed: int
    input: str = ""
    record: int = 0


def title_of(path: str) -> str:
    """What a page calls a checkpoint, RUN or RUN/checkpoints/STEP; FileNotFoundError where there is none."""
    run, step = run_directory.find(path)
    return f"{run.name}, step {step}" if Path(paths.absolute(path)) != run else run.name


def open_reader(path: str, wanted: Wanted) -> Reader:
    """Loads a checkpoint and the episodes that are shown.

    Raises:
      FileNotFoundError, ValueError: no checkpoint there, or no data.
    """
    loaded = weights.load_for_inference(path)
    config = with_data_of(loaded[0], run_directory.find(path)[0], run_directory.read_meta(path)["data"])
    if wanted.input:
        return _text_of_input(config, *loaded[1:], wanted)
    config = shown_source(config)
    return (_text_held_out if is_of_text(config) else _grids)(config, *loaded[1:], wanted)


def shown_source(config: Config) -> Config:
    """The configuration of a mixture's first source of grids, or else of its first one, by itself; any other as it
    is."""
    parts = list(source_configs(config).values()) if config.data.sources else [config]
    return next((one for one in parts if not is_of_text(one)), parts[0])


def _grids(config: Config, model_config: ModelConfig, params: Any, tokenizer: Path, wanted: Wanted) -> Reader:
    held_out = open_held_out(config, tokenizer, EPISODES, None)
    model = Model(config, model_config, params, held_out.task.vocabulary, held_out.actions, held_out.row_length)
    return viewer.Reader(held_out, model, viewer.windows(held_out, wanted.seed, wanted.num))


def _text_held_out(config: Config, model_config: ModelConfig, params: Any, tokenizer: Path, wanted: Wanted) -> Reader:
    """Episodes drawn from the first ones of the split that is asked about."""
    task = open_task(config, tokenizer)
    split, _ = choose_split(task.directory)
    first = sources.iterate_trajectories(task.directory, split, on_bad=lambda _: None)
    known = list(itertools.islice(first, EPISODES))
    if not known:
        raise ValueError(f"{task.directory}: the {split} split has no episode to show. Name a log: --input=logs.jsonl.")
    drawn = keys.generator(wanted.seed, "demo").permutation(len(known))[: wanted.num]
    chosen = [known[i] for i in sorted(drawn.tolist())]
    what = f"{len(chosen)} episodes" if len(chosen) > 1 else "An episode"
    about = f"{what} of the {split} split of {task.environment or task.directory}."
    return reading.Reader(Generator(config, model_config, params, task), chosen, about)


def _text_of_input(config: Config, model_config: ModelConfig, params: Any, tokenizer: Path, wanted: Wanted) -> Reader:
    """Episodes of a file."""
    chosen = episodes.read(wanted.input, wanted.record, wanted.num)
    task = open_task(config, tokenizer)
    if task.parts:
        task = task.part_of(chosen[0].source.get("environment", ""))
        config = config_of_part(config, task)
    if not task.codec.is_running_text:
        raise ValueError("--input: this run's episodes are grids, and the page shows those of its data. Leave it out.")
    which = f"Episodes {wanted.record} to {wanted.record + len(chosen) - 1}" if len(chosen) > 1 else "An episode"
    about = f"{which} of {wanted.input}."
    return reading.Reader(Generator(config, model_config, params, task), chosen, about)
