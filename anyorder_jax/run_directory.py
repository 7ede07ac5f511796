"""A run directory as files: where its checkpoints lie and what is written about them. Reads no array, imports no Orbax.

RUN/config.json                the resolved configuration
RUN/tokenizer/                 what AutoTokenizer.from_pretrained opens
RUN/checkpoints/STEP/params    the model's tree (with LoRA the factors), also read alone (evaluation, export)
RUN/checkpoints/STEP/optimizer the optimizer's tree
RUN/checkpoints/STEP/data      where the data iterator stands
RUN/checkpoints/STEP/meta      configuration, the model's config.json, fingerprint of the data, digests of all items
                               (with LoRA also of the frozen weights, which are not stored again)
RUN/damaged/STEP               a checkpoint that could not be read, set aside when an older one was used instead
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etils import epath

from anyorder_jax import paths
from anyorder_jax.config import Config, to_json
from anyorder_jax.model.config import ModelConfig

META_NAME = "metadata"
"""The one file of Orbax's JSON items."""


def find(path: str | Path) -> tuple[Path, int]:
    """(run directory, step) of a run directory (its newest step) or of one of its `checkpoints/STEP` folders.

    Raises:
      FileNotFoundError: when there is no checkpoint there.
    """
    path = Path(paths.absolute(path))
    if path.name.isdigit() and path.parent.name == "checkpoints" and (path / "params").is_dir():
        return path.parent.parent, int(path.name)
    steps = []
    with contextlib.suppress(OSError):
        steps = [int(p.name) for p in (path / "checkpoints").iterdir() if p.name.isdigit()]
    if not steps:
        raise FileNotFoundError(
            f"{path}: no checkpoint here. Expected a run directory with checkpoints/STEP/, or such a STEP folder; "
            f"`{paths.command('anyorder_jax.train', '--config=any_order', f'--workdir={path}')}` makes one."
        )
    return path, max(steps)


def is_run(path: str | Path) -> bool:
    """Whether a path is a run directory or one of its steps (and not a Hugging Face style directory)."""
    path = Path(paths.absolute(path))
    return (path / "checkpoints").is_dir() or path.parent.name == "checkpoints"


def read_meta(path: str | Path) -> Mapping[str, Any]:
    """The `meta` item of a run or step directory.

    Raises:
      FileNotFoundError: when there is no checkpoint there.
      ValueError: when its description cannot be read.
    """
    run, step = find(path)
    file = run / "checkpoints" / str(step) / "meta" / META_NAME
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{file}: the description of the checkpoint cannot be read ({error}). Use another step."
        ) from None


def describe(config: Config, model_config: ModelConfig, fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """The `meta` item: all that is needed to rebuild the model and to notice other data."""
    return {
        "config": json.loads(to_json(config)),
        "model": model_config.to_hf(),
        "data": dict(fingerprint),
    }


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
    temporary.write_text(text, encoding="utf-8", errors="surrogateescape")  # names of files keep their bytes
    temporary.replace(path)
