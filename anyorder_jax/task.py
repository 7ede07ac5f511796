"""What a run is trained on: trajectories of a directory, the codec of their environment, the vocabulary."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from etils import epath

from anyorder_jax import keys, paths, run_directory
from anyorder_jax.collected import collection, directory_of, is_collected
from anyorder_jax.config import Config, DataConfig, parse_mixture, parse_sources
from anyorder_jax.data import sources, tokenizer_files, units
from anyorder_jax.data.pipeline import Corpus
from anyorder_jax.data.tokenization import Vocabulary
from anyorder_jax.environments import registry
from anyorder_jax.provenance import shards_digest
from anyorder_jax.types import GRANULARITIES, OCCLUDED, ROLES, Codec, Kind, Trajectory, offered_spans

if TYPE_CHECKING:  # text and mixtures are opened where there are some
    from anyorder_jax.data.mixtures import Mixture
    from anyorder_jax.data.text_corpus import TextCorpus


class Task(NamedTuple):
    """directory: where the shards lie. environment: the level they come from. fingerprint: what a resume compares, by
    contents; every shard that is read adds its own to `files`. skipped: None, or the list that gets a sentence for
    every bad record, which is then left out. parts: (task, weight) of each source of a mixture, whose other fields are
    those of its first source of running text, if any; its environment is "", for nobody acts in a mixture."""

    directory: Path
    environment: str
    codec: Codec
    vocabulary: Vocabulary
    fingerprint: dict[str, Any]
    skipped: list[str] | None = None
    layout: units.Layout = units.DEFAULT_LAYOUT
    parts: tuple[tuple[Task, float], ...] = ()

    def examples(self, config: Config, split: str) -> Corpus | TextCorpus | Mixture:
        """The examples of a split as the configuration cuts them, ready for the pipeline: for training ("train") as
        `training` admits them, of other splits all.

        Raises:
          FileNotFoundError, ValueError: for data that are missing, broken or cannot be tokenised, by file and line.
        """
        if self.parts:
            from anyorder_jax.data.mixtures import Mixture, Source

            found = []
            for part, weight in self.parts:
                examples = part.examples(config_of_part(config, part), split)
                assert not isinstance(examples, Mixture), "a source is no mixture"
                found.append(Source(str(part.directory), examples, weight))
            return Mixture(found, config.seed)
        data, share = config.data, config.masking.branches
        if share:
            self._need_branches(split)
        if not data.context_tokens:
            given = self.training(data) if split == "train" else self.trajectories(split)
            return self.corpus(given, data.window, share)
        from anyorder_jax.data.text_corpus import TextCorpus, Texts
        from anyorder_jax.data.text_index import open_index

        texts = Texts(self.codec, self.vocabulary, self.layout)
        on_bad = None if self.skipped is None else self.skipped.append
        limit = data.num_episodes if split == "train" else 0
        files = self.fingerprint.setdefault("files", {})
        index = open_index(self.directory, split, texts, limit, on_bad, files)
        return TextCorpus(self.directory, index, texts, data.context_tokens, config.seed, share)

    def _need_branches(self, split: str) -> None:
        first = itertools.islice(sources.iterate_trajectories(self.directory, split, on_bad=lambda _: None), 100)
        if not any(unit.branches for trajectory in first for unit in trajectory.units):
            raise ValueError(
                f"config.masking.branches: the episodes of {self.directory / split} record none. Collect them with "
                "--branches=K (data.branches), or set it to 0."
            )

    def has_split(self, split: str) -> bool:
        """See `sources.has_split`."""
        return sources.has_split(self.directory, split)

    def decision(self) -> tuple[Kind, ...]:
        """What an agent of these data writes at its turn: a thought and an action, or an action alone, as more than
        half of the first hundred training episodes' turns do."""
        first = itertools.islice(sources.iterate_trajectories(self.directory, "train", on_bad=lambda _: None), 100)
        turns = [(t.id, unit.step, unit.kind) for t in first for unit in t.units]
        thoughts = {turn[:2] for turn in turns if turn[2] == Kind.THOUGHT}
        actions = {turn[:2] for turn in turns if turn[2] == Kind.ACTION}
        return (Kind.THOUGHT, Kind.ACTION) if 2 * len(thoughts & actions) > len(actions) else (Kind.ACTION,)

    def part_of(self, environment: str) -> Task:
        """Of a mixture, the first source of episodes of this environment; a source of running text without one.

        Raises:
          ValueError: when there is no such source.
        """
        found = [part for part, _ in self.parts if part.environment == environment]
        if not found:
            known = ", ".join(repr(part.environment) for part, _ in self.parts)
            raise ValueError(f"config.data.sources: no source is of {environment!r}; they are of {known}.")
        return found[0]

    def trajectories(self, split: str, limit: int = 0) -> list[Trajectory]:
        """The split's trajectories, the first `limit` (0: all). Raises ValueError for a mixture, which has none of its
        own."""
        if self.parts:
            raise ValueError(
                f"config.data.sources: the {split} episodes of a mixture are asked for as one. Name one of its folders "
                f"as data.path: {', '.join(str(part.directory) for part, _ in self.parts)}."
            )
        on_bad = None if self.skipped is None else self.skipped.append
        files = self.fingerprint.setdefault("files", {})
        return sources.read_trajectories(self.directory, split, limit, on_bad, files)

    def training(self, config: DataConfig) -> list[Trajectory]:
        """What is trained on: the first `num_episodes` of the training split, without those that `exclude_goals` names,
        a share of them without actions.

        Raises:
          ValueError: when nothing is left.
        """
        kept = admitted(self.trajectories("train", config.num_episodes), config)
        if not kept:
            raise ValueError(f"config.data.exclude_goals: {config.exclude_goals!r} leaves no training episode.")
        share = config.action_free_share
        if not share:
            return kept
        draws_E = keys.generator(0, "action free").random(len(kept))  # of no seed: every run has the same ones
        return [without_actions(t) if draw < share else t for t, draw in zip(kept, draws_E, strict=True)]

    def corpus(self, trajectories: Sequence[Trajectory], window: int, branch_share: float = 0.0) -> Corpus:
        """Tokenised examples, ready for the pipeline.

        Raises:
          ValueError: for a trajectory that cannot be tokenised, with its file, line and id, unless those are skipped.
        """
        return Corpus.build(trajectories, self.codec, self.vocabulary, window, self._on_bad, self.layout, branch_share)

    def _on_bad(self, trajectory_id: str, reason: str) -> None:
        sentence = f"{sources.place_of(self.directory, trajectory_id)}: trajectory {trajectory_id}: {reason}"
        if self.skipped is None:
            raise ValueError(sentence)
        self.skipped.append(sentence)


def admitted(trajectories: Sequence[Trajectory], config: DataConfig) -> list[Trajectory]:
    """Those whose goal `exclude_goals` does not name, as they were recorded."""
    phrases = [phrase for phrase in config.exclude_goals.split(",") if phrase]
    return [t for t in trajectories if not any(phrase in (t.units[0].text or "") for phrase in phrases)]


def without_actions(trajectory: Trajectory) -> Trajectory:
    """The episode as a watcher records it who cannot see the actions: mask tokens in their place, which nobody asks."""
    unseen: dict[str, Any] = {"data": {OCCLUDED: [0]}, "is_expert": False, "branches": ()}
    hidden = tuple(
        dataclasses.replace(unit, **unseen) if unit.kind == Kind.ACTION else unit for unit in trajectory.units
    )
    return dataclasses.replace(trajectory, units=hidden)


def tokenizer_of_model(path: str) -> Path:
    """The directory with the tokenizer that belongs to a model directory, a run or one of its steps.

    Raises:
      ValueError: when there is none: to the model's weights the ids of another tokenizer mean other words.
    """
    folder = run_directory.find(path)[0] / "tokenizer" if run_directory.is_run(path) else Path(path)
    if not folder.is_dir() and not Path(path).exists():
        raise ValueError(f"config.model.path: {path} is not there. Name a model directory, a run or one of its steps.")
    if not (folder / tokenizer_files.CONFIG_NAME).is_file():
        found = f"no {tokenizer_files.CONFIG_NAME} in {folder}"
        if (folder / tokenizer_files.BACKEND_NAME).is_file():
            found += f", only {tokenizer_files.BACKEND_NAME}, which does not tell the mask and end tokens"
        raise ValueError(
            f"config.model.path: {path} has no tokenizer ({found}), and to its weights the ids of the built-in one "
            "mean other words. Put the files of the model's tokenizer there, or name a directory that has them: "
            "--config.data.tokenizer=DIRECTORY."
        )
    return folder


def open_task(config: Config, tokenizer: str | Path = "") -> Task:
    """Opens the data directory and makes codec and vocabulary.

    Args:
      config: the run's configuration.
      tokenizer: the tokenizer directory of a trained checkpoint; empty: `data.tokenizer`, else that of `model.path`
        (a model directory, or a run's tokenizer/), without one the built-in word-level one.

    Raises:
      FileNotFoundError, ValueError: for a missing or unreadable data directory, by name; for a `model.path` without a
        tokenizer.
    """
    if config.data.sources:
        return _open_mixture(config, tokenizer)
    directory = directory_of(config.data)
    if not (config.data.path or is_collected(directory)):
        wanted = collection(config.data, Path(paths.absolute(directory)))
        raise FileNotFoundError(
            f"{directory}: the episodes that this configuration names are not there, or not all. Collect them "
            f"(`{paths.command('anyorder_jax.collect', *wanted)}`), or put them there again."
        )
    environment = sources.read_manifest(directory).environment
    if not config.data.path and environment != config.data.environment:
        raise ValueError(
            f"{directory}: episodes of {environment!r}, not of config.data.environment = {config.data.environment!r}. "
            "Delete the folder, or give another config.data.cache_dir."
        )
    codec = registry.make_codec(environment, config.data.profile)
    check_levels(config, codec)
    return _task(config, directory, codec, vocabulary_of(config, tokenizer, [(directory, codec)]))


def vocabulary_of(config: Config, tokenizer: str | Path, collections: Sequence[tuple[Path, Codec]]) -> Vocabulary:
    """The vocabulary of some collections that share it, for the first one's codec; arguments as `open_task`."""
    chosen = tokenizer or config.data.tokenizer or (tokenizer_of_model(config.model.path) if config.model.path else "")
    codecs = [codec for _, codec in collections]
    if chosen:
        return Vocabulary.from_directory(chosen, codecs[0])
    if not any(codec.is_running_text for codec in codecs) and all(c.lexicon() == codecs[0].lexicon() for c in codecs):
        return Vocabulary.builtin(codecs[0])
    from anyorder_jax.data.trained_tokenizer import trained_vocabulary

    return trained_vocabulary(collections, config.data)


def _task(config: Config, directory: Path, codec: Codec, vocabulary: Vocabulary) -> Task:
    """The task of one directory."""
    manifest = sources.read_manifest(directory)
    if config.data.frames == "chat":
        vocabulary = vocabulary.with_chat_frames(config.data.frames_version)
    fingerprint = {
        "environment": manifest.environment, "shards_sha256": shards_digest(manifest),
        "vocabulary_size": vocabulary.size, "vocabulary_sha256": vocabulary.sha256(),
    }  # fmt: skip
    skipped: list[str] | None = [] if config.data.on_bad_record == "skip" else None
    return Task(directory, manifest.environment, codec, vocabulary, fingerprint, skipped, layout_of(config.data))


def _open_mixture(config: Config, tokenizer: str | Path) -> Task:
    """The task of `data.sources`: one tokenizer, a renderer for each."""
    weights = parse_sources(config.data.sources)
    collections: list[tuple[Path, Codec]] = []
    for place in weights:
        directory = epath.Path(place)
        codec = registry.make_codec(sources.read_manifest(directory).environment, config.data.profile)
        collections.append((directory, codec))
    check_grains(config, [codec for _, codec in collections])
    vocabulary = vocabulary_of(config, tokenizer, collections)
    parts = []
    for (directory, codec), weight in zip(collections, weights.values(), strict=True):
        part = _task(config, directory, codec, vocabulary.for_codec(codec))
        check_levels(config_of_part(config, part), codec)
        parts.append((part, weight / sum(weights.values())))
    main = next((part for part, _ in parts if part.codec.is_running_text), parts[0][0])
    skipped = main.skipped
    fingerprint = {
        "environment": "", "vocabulary_size": main.vocabulary.size,
        "sources": [part.fingerprint for part, _ in parts],
    }  # fmt: skip
    return main._replace(
        environment="",
        fingerprint=fingerprint,
        parts=tuple((part._replace(skipped=skipped), weight) for part, weight in parts),
    )


def source_configs(config: Config) -> dict[str, Config]:
    """Each source of a mixture by its name, with the configuration of a run on it alone. Its name is its folder's; of
    several with one name also its number, from 1.

    Raises:
      FileNotFoundError, ValueError: for a source that is not there, by name.
    """
    places = list(parse_sources(config.data.sources))
    names = [Path(place).name for place in places]
    found = {}
    for number, (place, name) in enumerate(zip(places, names, strict=True), start=1):
        codec = registry.make_codec(sources.read_manifest(place).environment, config.data.profile)
        found[f"{name}-{number}" if names.count(name) > 1 else name] = config_of_source(config, place, codec)
    return found


def config_of_part(config: Config, part: Task) -> Config:
    """`config_of_source` of an opened one."""
    return config_of_source(config, str(part.directory), part.codec)


def config_of_source(config: Config, directory: str, codec: Codec) -> Config:
    """The configuration for one source of a mixture: contexts of so many tokens for text, windows of steps for grids;
    of the granularities those that it offers."""
    data = dataclasses.replace(config.data, path=directory, sources="")
    if not codec.is_running_text:
        data = dataclasses.replace(data, context_tokens=0)
    grains = parse_mixture(config.masking.granularity, GRANULARITIES, "masking.granularity")
    offered = ",".join(f"{name}:{weight!r}" for name, weight in grains.items() if name in offered_spans(codec.levels))
    masking = dataclasses.replace(config.masking, granularity=offered or config.masking.granularity)
    return dataclasses.replace(config, data=data, masking=masking)


def check_grains(config: Config, codecs: Sequence[Codec]) -> None:
    """Raises ValueError for a granularity that no source of a mixture offers."""
    grains = parse_mixture(config.masking.granularity, GRANULARITIES, "masking.granularity")
    offered = {level for codec in codecs for level in offered_spans(codec.levels)}
    missing = [name for name in grains if name not in offered]
    if missing:
        raise ValueError(
            f"config.masking.granularity: {missing[0]!r} is no span of any of data.sources; they offer "
            f"{', '.join(sorted(offered))}."
        )


def check_levels(config: Config, codec: Codec) -> None:
    """Raises ValueError for settings that these trajectories' renderer cannot honour."""
    grains = parse_mixture(config.masking.granularity, GRANULARITIES, "masking.granularity")
    missing = [name for name in grains if name not in offered_spans(codec.levels)]
    if missing:
        raise ValueError(
            f"config.masking.granularity: {missing[0]!r} is no span of these trajectories ({codec.name}); they offer "
            f"{', '.join(offered_spans(codec.levels))}."
        )
    data = config.data
    if data.frames == "chat" and not codec.is_running_text:
        raise ValueError(
            f"config.data.frames: 'chat' is for running text, and {codec.name} writes units of fixed slots. Use "
            "data.frames=markers."
        )
    if data.context_tokens and not codec.is_running_text:
        raise ValueError(
            f"config.data.context_tokens: {data.context_tokens}, but {codec.name} writes no running text. Use 0, and "
            "data.window steps."
        )
    if data.context_tokens and (data.exclude_goals or data.action_free_share):
        raise ValueError("config.data.context_tokens: not with data.exclude_goals or data.action_free_share.")


def layout_of(data: DataConfig) -> units.Layout:
    """How running text is laid out."""
    blocks = data.role_blocks()
    longest = data.max_unit_tokens or max(data.context_tokens // 4, 24 if data.context_tokens else 0)
    return units.Layout(tuple(blocks[role] for role in ROLES), longest)
