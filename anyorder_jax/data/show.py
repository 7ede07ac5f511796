"""What one training example looks like: prints units, tokens and a drawn mask.

    python -m anyorder_jax.data.show data/mine/train/shard-00000.jsonl                      # a record of a shard
    python -m anyorder_jax.data.show data/mine --config=own_data --config.data.frames=chat  # as a recipe draws it
    python -m anyorder_jax.data.show --config=runs/own_data                                 # as a run has drawn it

With --config (a recipe, a run directory, or its config.json) the example is cut and hidden as training would:
tokenizer, frames, context, orders, granularities and rates are the recipe's; --seed draws another end and mask.
"""

from __future__ import annotations

if __name__ == "__main__":
    from anyorder_jax import command

    command.begin("show")  # imports take seconds

# It is run, never imported: the rooms it shows (environments, masking, task) are strangers to data/.
import argparse
import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from anyorder_jax import paths, terminal
from anyorder_jax.types import Field, Hidden, Kind, Tokenised, Trajectory

if TYPE_CHECKING:
    from anyorder_jax.config import Config
    from anyorder_jax.data.tokenization import Vocabulary
    from anyorder_jax.task import Task

WIDTH = 108


def _arguments() -> tuple[argparse.Namespace, list[str]]:
    """What was typed, and the single keys of the configuration (--config.masking.rate=0.3)."""
    parser = argparse.ArgumentParser(
        prog="python -m anyorder_jax.data.show", description=__doc__, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add(
        "file",
        metavar="FILE",
        type=paths.typed,
        nargs="?",
        default="",
        help="a shard (.jsonl, .jsonl.zst), or a directory of them; default: the configuration's data",
    )
    add("--config", default="", help="a recipe by name or file, a run directory, or its config.json")
    add("--record", type=int, default=0, help="line of the file, from 0")
    add("--window", type=int, default=None, help="the last so many steps (0: the whole trajectory)")
    add("--profile", default=None, help="joint, attributes or words")
    add("--tokenizer", type=paths.typed, default="", help="a model directory (default: the built-in one)")
    add("--frames", default=None, help="around units of text: markers, or chat (the tokenizer's own template)")
    add("--order", default=None, help="default any_order, or the configuration's")
    add("--granularity", default=None, help="default unit, or the configuration's")
    add("--rate", type=float, default=None, help="default 0.5, or the configuration's")
    add("--seed", type=int, default=0)
    arguments, others = parser.parse_known_args()
    unknown = [text for text in others if not (arguments.config and text.startswith("--config."))]
    if unknown:
        parser.error(f"unknown {' '.join(unknown)}" + ("" if arguments.config else "; single keys need a --config"))
    if not (arguments.file or arguments.config):
        parser.error("name a FILE, a --config, or both")
    return arguments, others


class Shown(NamedTuple):
    """What is printed: a record, the example that is cut out of it, and what is hidden there."""

    trajectory: Trajectory
    example: Tokenised
    hidden: Hidden
    vocabulary: Vocabulary
    is_text: bool


def _shard(place: str) -> Path:
    """The first shard of the training split of a directory; a file as it is."""
    path = Path(place)
    if not path.is_dir():
        return path
    shards = sorted([*path.glob("train/*.jsonl"), *path.glob("train/*.jsonl.zst")]) or sorted(path.glob("*.jsonl*"))
    if not shards:
        raise ValueError(f"{path}: no *.jsonl or *.jsonl.zst there nor in its train/. Name a shard of trajectories.")
    return shards[0]


def _configuration(text: str, keys: Sequence[str]) -> tuple[Config, str]:
    """(configuration, the run's tokenizer directory or "") of what --config names.

    Raises:
      ValueError: when there is nothing of that kind, or a key is refused.
    """
    from anyorder_jax import run_directory
    from anyorder_jax.config import freeze
    from anyorder_jax.evaluation.reuse import configuration
    from anyorder_jax.provenance import with_data_of

    path = Path(paths.typed(text))
    folder = path.parent if path.name == "config.json" else path
    if not (folder.is_dir() or path.suffix == ".json"):
        return configuration([f"--config={text}", *keys]), ""
    if keys:
        raise ValueError(f"{keys[0]}: {folder} is a run, whose settings stand. Name a recipe to change some.")
    file = path if path.suffix == ".json" else folder / "config.json"
    if not file.is_file():
        raise ValueError(
            f"--config: {folder} holds no config.json, so it is no run. Name a recipe, or a run directory."
        )
    try:
        config = freeze(json.loads(file.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, AttributeError, TypeError) as error:
        raise ValueError(f"--config: {file} is no configuration of a run ({error}).") from error
    if run_directory.is_run(folder) and any(folder.glob("checkpoints/*")):
        config = with_data_of(config, folder, run_directory.read_meta(folder)["data"])
    tokenizer = folder / "tokenizer"
    return config, str(tokenizer) if tokenizer.is_dir() else ""


def _changed(config: Config, arguments: argparse.Namespace) -> Config:
    """The configuration with what the other arguments say."""
    masking = {name: getattr(arguments, name) for name in ("order", "granularity", "rate")}
    data = {name: getattr(arguments, name) for name in ("window", "profile", "frames", "tokenizer")}
    return dataclasses.replace(
        config,
        masking=dataclasses.replace(config.masking, **{n: value for n, value in masking.items() if value is not None}),
        data=dataclasses.replace(config.data, **{n: value for n, value in data.items() if value not in (None, "")}),
    )


def _task_of(config: Config, trajectory: Trajectory, directory: Path) -> Task:
    """What a record is tokenised with where no configuration says it; its directory may have no manifest."""
    from anyorder_jax import task
    from anyorder_jax.environments import registry

    environment = trajectory.source.get("environment", "")
    codec = registry.make_codec(environment, config.data.profile)
    task.check_levels(config, codec)
    vocabulary = task.vocabulary_of(config, "", [(directory, codec)])
    if config.data.frames == "chat":
        vocabulary = vocabulary.with_chat_frames(config.data.frames_version)
    return task.Task(directory, environment, codec, vocabulary, {}, layout=task.layout_of(config.data))


def _open(arguments: argparse.Namespace, keys: Sequence[str]) -> tuple[Config, Task, Path]:
    """The configuration, the data as it opens them, and the shard that is shown."""
    from anyorder_jax import task
    from anyorder_jax.config import Config as AnyConfig
    from anyorder_jax.config import DataConfig, MaskingConfig
    from anyorder_jax.data import sources

    if not arguments.config:
        shard = _shard(arguments.file)
        trajectory = sources.read_record(shard, arguments.record)
        data = DataConfig(path=str(shard.absolute().parents[1]), num_episodes=0, window=0)
        config = _changed(AnyConfig(data=data, masking=MaskingConfig(causal_step="any")), arguments)
        return config, _task_of(config, trajectory, shard.absolute().parents[1]), shard
    config, tokenizer = _configuration(arguments.config, keys)
    config = _changed(config, arguments)
    tokenizer = arguments.tokenizer or tokenizer
    if not arguments.file:
        opened = task.open_task(config, tokenizer)
        if opened.parts:
            opened = opened.parts[0][0]
            config = task.config_of_part(config, opened)
        return config, opened, _shard(str(opened.directory))
    shard = _shard(arguments.file)
    directory = shard.absolute().parents[1]
    if config.data.sources:
        opened = task.open_task(config, tokenizer)
        same = [part for part, _ in opened.parts if Path(str(part.directory)).absolute() == directory]
        if not same:
            names = ", ".join(str(part.directory) for part, _ in opened.parts)
            raise ValueError(f"{shard}: not of the sources of this configuration ({names}).")
        return task.config_of_part(config, same[0]), same[0], shard
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, path=str(directory)))
    return config, task.open_task(config, tokenizer), shard


def _draw(arguments: argparse.Namespace, keys_given: Sequence[str]) -> Shown:
    from anyorder_jax import keys
    from anyorder_jax.data import contexts, sources, units
    from anyorder_jax.masking.holes import later_turns
    from anyorder_jax.masking.sampler import AnyOrderMaskSampler

    config, opened, shard = _open(arguments, keys_given)
    trajectory = sources.read_record(shard, arguments.record)
    whole = units.tokenise(trajectory, opened.codec, opened.vocabulary, opened.layout)
    rng, data = keys.generator(arguments.seed, "show"), config.data
    example: Tokenised = whole
    if data.context_tokens:
        ends = contexts.ends(contexts.lengths_of(whole))
        example = contexts.context(whole, int(rng.choice(ends)), data.context_tokens)
    elif data.window:
        is_drawn = bool(arguments.config) and arguments.window is None
        last = int(rng.integers(whole.num_steps)) if is_drawn else whole.num_steps - 1
        example = units.window(whole, last, data.window)
    hidden = AnyOrderMaskSampler(config.masking)(rng, example)
    if config.train.objective == "block_diffusion":
        is_later_L = later_turns(example, config.train.aligned_to)
        hidden = hidden._replace(is_hidden_L=hidden.is_hidden_L | is_later_L)
    return Shown(trajectory, example, hidden, opened.vocabulary, opened.codec.is_running_text)


def _lines(words: list[str], indent: str) -> Iterator[str]:
    """The words in lines of at most WIDTH characters."""
    line = indent
    for word in words:
        if len(line) + len(word) > WIDTH and line != indent:
            yield line.rstrip()
            line = indent
        line += f"{word} "
    yield line.rstrip()


def _word(shown: Shown, token: int) -> str:
    """A token as it is read: of running text its characters (· is a space), where they are whole."""
    text = shown.vocabulary.decode_text([token]) if shown.is_text else ""
    if not text or "\ufffd" in text:
        return shown.vocabulary.tokenizer.convert_ids_to_tokens(token)
    return text.replace("\n", "\\n").replace(" ", "·")


def _seen_words(shown: Shown, unit: int) -> list[str]:
    """The tokens of a unit as the model sees them: `?` is a hidden target, `_` hidden but not asked."""
    words = []
    for i in np.flatnonzero(shown.example.slots_GL[0] == unit):
        word = _word(shown, int(shown.example.tokens_L[i]))
        is_target, is_hidden = shown.hidden.is_target_L[i], shown.hidden.is_hidden_L[i]
        words.append(f"?{word}" if is_target else "_" if is_hidden else word)
    return words


def _frame(shown: Shown, unit: int) -> str:
    """What stands before a unit and is never hidden."""
    unit_L = shown.example.slots_GL[0]
    stop = first = int(np.argmax(unit_L == unit))
    while first and unit_L[first - 1] < 0:
        first -= 1
    return "".join(_word(shown, int(i)) for i in shown.example.tokens_L[first:stop])


def _print(shown: Shown) -> None:
    trajectory, example, hidden = shown.trajectory, shown.example, shown.hidden
    own = (example.field_L != Field.FRAME) & (example.field_L != Field.FILLER)
    print(f"trajectory {trajectory.id}: {len(trajectory.units)} units, {dict(trajectory.outcome)}")
    print(
        f"{len(example)} tokens ({own.sum()} in slots) in {len(example.kind_U)} units; order {hidden.order}, "
        f"granularity {hidden.granularity}, rate {hidden.rate:.2f}: {hidden.is_hidden_L.sum()} hidden, "
        f"{hidden.is_target_L.sum()} targets"
    )
    print("?word: hidden and asked, _: hidden only, other words: seen" + "; |: the frame, always seen" * shown.is_text)
    print()
    for u, (kind, step, is_expert) in enumerate(zip(example.kind_U, example.step_U, example.is_expert_U, strict=True)):
        num_tokens = int((example.slots_GL[0] == u).sum())
        note = "" if is_expert else ", injected (never a target)"
        print(f"{Kind(kind).name.lower()} {step} ({num_tokens} tokens{note})")
        if shown.is_text:
            print(f"  | {_frame(shown, u)}")
        print("\n".join(_lines(_seen_words(shown, u), "  ")))


def main() -> None:
    """Prints one example."""
    terminal.accept_any_letter()
    arguments, keys_given = _arguments()
    try:
        shown = _draw(arguments, keys_given)
    except (OSError, ValueError) as error:
        raise SystemExit(f"show: {error}") from error
    _print(shown)


if __name__ == "__main__":
    main()
