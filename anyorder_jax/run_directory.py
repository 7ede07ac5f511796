"""A run directory as files: where its checkpoints lie and what is written about them. Reads no array, imports no Orbax.

RUN/config.json                the resolved configuration
RUN/tokenizer/                 what AutoTokenizer.from_pretrained opens: a model's own files, or the built-in one's
RUN/checkpoints/STEP/params    the model's tree (with LoRA the factors), also read alone (evaluation, export)
RUN/checkpoints/STEP/optimizer the optimizer's tree
RUN/checkpoints/STEP/data      where the data iterator stands
RUN/checkpoints/STEP/meta      configuration, the model's config.json, fingerprint of the data, digests of all items
                               (with LoRA also of the frozen weights, which are not stored again)
RUN/damaged/STEP               a checkpoint that could not be read, set aside when an older one was used instead
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etils import epath

from anyorder_jax import digest
from anyorder_jax.config import Config, parse_sources, to_json
from anyorder_jax.model.config import ModelConfig

META_NAME = "metadata"
"""The one file of Orbax's JSON items."""


def _is_step(path: Path) -> bool:
    return path.name.isdecimal() and path.parent.name == "checkpoints" and (path / "params").is_dir()


def _steps(run: Path) -> list[int]:
    """The steps of a run, ascending.

    Raises:
      ValueError: when the newest has lost its weights: an older one must be named, not taken.
    """
    numbered: list[Path] = []
    with contextlib.suppress(OSError):
        numbered = [path for path in (run / "checkpoints").iterdir() if path.name.isdecimal()]
    steps = sorted(int(path.name) for path in numbered if _is_step(path))
    for path in numbered:
        is_left = (path / "meta").is_dir() and not _is_step(path)
        if is_left and int(path.name) > max(steps, default=-1):
            raise ValueError(f"{path}: this checkpoint is damaged (it has no params/). Name another step: {steps}.")
    return steps


def find(path: str | Path) -> tuple[Path, int]:
    """(run directory, step) of a run directory (its newest step) or of one of its `checkpoints/STEP` folders.

    Raises:
      FileNotFoundError: when there is no checkpoint there. ValueError: when the newest has no weights.
    """
    path = Path(path).absolute()
    if _is_step(path):
        return path.parent.parent, int(path.name)
    steps = _steps(path)
    if not steps:
        raise FileNotFoundError(
            f"{path}: no checkpoint here. Expected a run directory with checkpoints/STEP/, or such a STEP folder; "
            "`python -m anyorder_jax.train --workdir=...` makes one."
        )
    return path, steps[-1]


def is_run(path: str | Path) -> bool:
    """Whether a path is a run directory or one of its steps, and not a Hugging Face style directory: that may lie in a
    folder called "checkpoints", or hold one."""
    path = Path(path).absolute()
    if any(path.glob("*.safetensors")) or any(path.glob("*.safetensors.index.json")):
        return False
    is_named_step = path.name.isdecimal() and path.parent.name == "checkpoints" and not (path / "config.json").is_file()
    return is_named_step or (path / "checkpoints").is_dir()


def step_folder(path: str | Path) -> Path:
    """`checkpoints/STEP` of a run or step directory, absolute.

    Raises:
      FileNotFoundError, ValueError: as `find`.
    """
    run, step = find(path)
    return run / "checkpoints" / str(step)


def read_meta(path: str | Path) -> Mapping[str, Any]:
    """The `meta` item of a run or step directory.

    Raises:
      FileNotFoundError: when there is no checkpoint there.
      ValueError: when its description cannot be read, or is not what was written.
    """
    file = step_folder(path) / "meta" / META_NAME
    try:
        return verified(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{file}: the description of the checkpoint cannot be read ({error}). Use another step."
        ) from None


def sealed(meta: Mapping[str, Any]) -> dict[str, Any]:
    """A `meta` item with a digest of itself, as it is stored."""
    return {**meta, "digest": digest.of_json(meta)}


def verified(meta: Mapping[str, Any]) -> dict[str, Any]:
    """What `sealed` was given. Raises ValueError for other bytes; the first checkpoints had no digest."""
    if not isinstance(meta, Mapping):
        raise ValueError("meta: other bytes than were written")
    values = dict(meta)
    written = values.pop("digest", None)
    if ("digests" in values or written is not None) and written != digest.of_json(values):
        raise ValueError("meta: other bytes than were written")
    return values


PLACES = (("model", "path"), ("data", "path"), ("data", "tokenizer"), ("data", "cache_dir"))
"""Keys of the configuration that name a directory."""


def with_absolute_places(config: Config) -> Config:
    """The configuration with places that are found from any working directory; addresses (gs://...) stay."""
    for section, name in PLACES:
        values = getattr(config, section)
        place = getattr(values, name)
        if place and "://" not in place:
            values = dataclasses.replace(values, **{name: str(Path(place).absolute())})
            config = dataclasses.replace(config, **{section: values})
    if config.data.sources:
        weights = parse_sources(config.data.sources)
        places = [place if "://" in place else str(Path(place).absolute()) for place in weights]
        text = ",".join(f"{place}:{weight!r}" for place, weight in zip(places, weights.values(), strict=True))
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, sources=text))
    return config


def is_same_place(saved: str, now: str) -> bool:
    """Whether a place that a run has recorded is the one that is given now, or was moved there (it is gone)."""
    if saved == now or not saved or not now or "://" in saved + now:
        return saved == now
    before = Path(saved).absolute()
    return before == Path(now).absolute() or not before.exists()


def are_same_sources(saved: str, now: str) -> bool:
    """As `is_same_place`, of `data.sources`: the same weights, in the same order, of the same or moved places."""
    if not saved or not now:
        return saved == now
    before, after = parse_sources(saved), parse_sources(now)
    return [*before.values()] == [*after.values()] and all(map(is_same_place, before, after))


def describe(config: Config, model_config: ModelConfig, fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """The `meta` item: all that is needed to rebuild the model and to notice other data."""
    return {
        "config": json.loads(to_json(config)),
        "model": model_config.to_hf(),
        "data": dict(fingerprint),
    }


def remove_empty(run: Path) -> None:
    """Takes away the folders of a run that was refused before it wrote anything."""
    for folder in (run / "checkpoints", run):
        with contextlib.suppress(OSError):  # not there, or not empty
            folder.rmdir()


def copy_to_remote(workdir: Path, remote: str) -> None:
    """Copies what a run directory holds besides checkpoints (configuration, tokenizer, log) to `checkpoint.remote`."""
    for name in ("config.json", "tokenizer", "metrics"):
        for file in (workdir / name, *(workdir / name).rglob("*")):
            if file.is_file():
                target = epath.Path(remote) / str(file.relative_to(workdir))
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.read_bytes())


def fetch_log(workdir: Path, remote: str) -> None:
    """Brings the log of a run back from `checkpoint.remote` to a machine that does not have it, to be gone on with."""
    there = epath.Path(remote) / "metrics"
    if (workdir / "metrics").exists() or not there.exists():
        return
    (workdir / "metrics").mkdir(parents=True)
    for file in there.iterdir():
        (workdir / "metrics" / file.name).write_bytes(file.read_bytes())


def write_text(path: Path, text: str) -> None:
    """Writes beside, then renames: a reader sees the old file or the new one, never half of it."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
