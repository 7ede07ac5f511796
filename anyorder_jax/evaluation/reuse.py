"""Reuse: whether what an earlier call of a suite left behind answers what is asked now. Compared are contents: the
configuration that a recipe makes, the bytes of the data, the arguments of an evaluation; what is not known (older
files) is taken as it is.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from etils import epath
from ml_collections import config_flags

from anyorder_jax import paths, recipes
from anyorder_jax.collected import directory_of
from anyorder_jax.config import Config, freeze, freeze_typed, parse_sources, path_keys
from anyorder_jax.data import sources
from anyorder_jax.files import write_whole
from anyorder_jax.provenance import differences
from anyorder_jax.run_directory import read_meta

ASKED = "asked.json"
"""Beside the files of an evaluation: name of the file -> the arguments that it was made with."""

_FREE = ("mesh", "log", "checkpoint")  # sections that do not change what is learned


def configuration(arguments: Sequence[str]) -> Config:
    """What `anyorder_jax.train` makes of these arguments.

    Raises:
      ValueError: for a recipe that cannot be read, or settings that it does not have.
    """
    values, argv = flags.FlagValues(), ["train", *recipes.in_arguments(arguments)]
    try:
        config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
        values(argv, known_only=True)
        return freeze_typed(values["config"].value)
    except (AttributeError, KeyError, TypeError, ValueError, OSError, flags.Error) as error:
        raise ValueError(f"--config: {error}") from error


def learned(config: Config, has_places: bool = True) -> dict[str, Any]:
    """The settings that decide what is learned; without `has_places` also without paths."""
    content = {name: value for name, value in dataclasses.asdict(config).items() if name not in _FREE}
    for key in path_keys():
        section, _, name = key.partition(".")
        if section in content:
            path = content[section].pop(name)
            if has_places:
                content[section][name] = paths.absolute(path)
    return content


def changed_settings(run: Path, config: Config, has_places: bool = True) -> list[str]:
    """What the configuration of a run that began there does not have in common with this one; none before it began."""
    file = run / "config.json"
    if not file.is_file():
        return []
    began = learned(freeze(json.loads(file.read_text(encoding="utf-8"))), has_places)
    return _changes(began, learned(config, has_places), "")


def _changes(began: Mapping[str, Any], now: Mapping[str, Any], prefix: str) -> list[str]:
    found = []
    for name, value in now.items():
        if isinstance(value, Mapping):
            found += _changes(began[name], value, f"{name}.")
        elif began[name] != value:
            found.append(f"{prefix}{name}: {began[name]!r} -> {value!r}")
    return found


def run_of(run: Path, config: Config, bases: Sequence[Path]) -> Path:
    """The directory of a run with this configuration: `run`, or one beside it when that is of an edited recipe, or one
    of the runs that it starts from is.

    Args:
      run: the directory, named for the command.
      config: what the command's recipe makes now.
      bases: the directories of the runs that it starts from.
    """
    edits = [base.name.partition("~")[2] for base in bases]
    if changed_settings(run, config):
        edits.append(hashlib.sha256(json.dumps(learned(config), sort_keys=True).encode()).hexdigest()[:8])
    return run.with_name("~".join([run.name, *filter(None, edits)]))


def refuse_other_settings(run: Path, config: Config) -> None:
    """Raises ValueError when a run that was put there by hand is of another recipe."""
    changed = changed_settings(run, config, has_places=False)
    if changed:
        raise ValueError(f"{run}: a run with other settings than the recipe's ({'; '.join(changed)}). Move it away.")


def refuse_other_data(run: Path, config: Config) -> None:
    """Raises ValueError when the data that a run has begun to learn from have changed since."""
    steps = run / "checkpoints"
    if not steps.is_dir() or not any(path.name.isdigit() for path in steps.iterdir()):
        return
    fingerprint = read_meta(run)["data"]
    pairs: list[tuple[Path, Mapping[str, Any]]] = [(directory_of(config.data), fingerprint)]
    if config.data.sources:
        places = [epath.Path(place) for place in parse_sources(config.data.sources)]
        pairs = list(zip(places, fingerprint.get("sources", ()), strict=False))
    for directory, part in pairs:
        began = part.get("files", {})
        now = digests(directory) if began else {}
        if config.data.num_episodes:  # the run has read no more than it needed
            now = {file: sha256 for file, sha256 in now.items() if file in began}
        if now and (changed := differences({"files": began}, {"files": now})):
            raise ValueError(
                f"{run}: trained on other data than there are now ({directory}: {'; '.join(changed)}). Put the data "
                "back, or delete the run to train it again."
            )


def question_of(command: Sequence[str]) -> tuple[Path, list[str], list[str]]:
    """(output directory, names of the files, the other arguments) of an `evaluate` command."""
    given = dict(
        argument.partition("=")[::2] for argument in command if argument.startswith(("--output_dir=", "--parts="))
    )
    return Path(given["--output_dir"]), given["--parts"].split(","), _other(command[1:])


def _other(arguments: Sequence[str]) -> list[str]:
    kept = [a for a in arguments if not a.startswith(("--output_dir=", "--parts=", "--suite=", "--checkpoint="))]
    return in_older_words(kept)


def in_older_words(arguments: Sequence[str]) -> list[str]:
    """Arguments of `evaluate` as version 0.1.0 wrote them: so runs are named, and questions written down."""
    return [re.sub("^--rules=", "--modes=", argument) for argument in arguments]


def remember(command: Sequence[str]) -> None:
    """Writes down what an `evaluate` command that has ended was asked."""
    folder, names, arguments = question_of(command)
    asked = {**_read(folder / ASKED), **dict.fromkeys(names, arguments)}
    write_whole(folder / ASKED, json.dumps(asked, indent=1) + "\n")


def is_answered(folder: Path, name: str, arguments: Sequence[str]) -> bool:
    """Whether `folder` holds the file `name`.json, made with these arguments of `evaluate` from the data there are."""
    if not (folder / f"{name}.json").is_file():
        return False
    asked = _read(folder / ASKED)
    if _other(asked.get(name, arguments)) != _other(arguments):
        return False
    data = _read(folder / f"{name}.json").get("about", {}).get("data", {})
    return all(_are_same(one) for one in (data if isinstance(data, list) else [data] if data else []))


def _are_same(data: Mapping[str, Any]) -> bool:
    """Whether {directory, files} of a report are there as they were; data that are gone are taken as they were."""
    now = digests(epath.Path(data["directory"]))
    return not now or all(now.get(file) == sha256 for file, sha256 in data["files"].items())


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def digests(directory: Path) -> dict[str, str]:
    """`sources.digests`; none where there are no data (any more, or yet)."""
    try:
        if "://" in str(directory):
            return sources.digests(directory)
        files = [directory / "manifest.json", *sorted(directory.glob("*/*.jsonl*"))]
        stats = [os.stat(file) for file in files]
        return _digests(str(directory), tuple((s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns) for s in stats))
    except FileNotFoundError:
        return {}


@functools.lru_cache
def _digests(directory: str, stamp: tuple[tuple[int, ...], ...]) -> dict[str, str]:
    """Once for the same files: the runs of a suite share their data."""
    return sources.digests(directory)
