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

from anyorder_jax.config import Config, to_json
from anyorder_jax.model.config import ModelConfig

META_NAME = "metadata"
"""The one file of Orbax's JSON items."""


def find(path: str | Path) -> tuple[Path, int]:
    """(run directory, step) of a run directory (its newest step) or of one of its `checkpoints/STEP` folders.

    Raises:
      FileNotFoundError: when there is no checkpoint there.
    """
    path = Path(path).absolute()
    if path.name.isdigit() and path.parent.name == "checkpoints" and (path / "params").is_dir():
        return path.parent.parent, int(path.name)
    steps = []
    with contextlib.suppress(OSError):
        steps = [int(p.name) for p in (path / "checkpoints").iterdir() if p.name.isdigit()]
    if not steps:
        raise FileNotFoundError(
            f"{path}: no checkpoint here. Expected a run directory with checkpoints/STEP/, or such a STEP folder; "
            "`python -m anyorder_jax.train --workdir=...` makes one."
        )
    return path, max(steps)


def is_run(path: str | Path) -> bool:
    """Whether a path is a run directory or one of its steps (and not a Hugging Face style directory)."""
    path = Path(path)
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
