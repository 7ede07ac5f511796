"""A run directory as files: where its checkpoints lie and what is written about them. Reads no array, imports no Orbax.

RUN/config.json                the resolved configuration
RUN/tokenizer/                 what AutoTokenizer.from_pretrained opens: a model's own files, or the built-in one's
RUN/checkpoints/STEP/params    the model's tree (with LoRA the factors), also read alone (evaluation, export)
RUN/checkpoints/STEP/optimizer the optimizer's tree
RUN/checkpoints/STEP/data      where the data iterator stands
RUN/checkpoints/STEP/meta      configuration, the model's config.json, fingerprint of the data, digests of all items
                               (with LoRA also of the frozen weights, which are not stored again)
RUN/train.lock                 there while a `train` is at work, and tells which process
RUN/damaged/STEP               a checkpoint that could not be read, set aside when an older one was used instead
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from etils import epath

from anyorder_jax import digest, files, paths
from anyorder_jax.config import Config, to_json
from anyorder_jax.model.config import ModelConfig

META_NAME = "metadata"
"""The one file of Orbax's JSON items."""
REQUEUED_SECONDS = 150
"""How long a requeued SLURM job waits for the one before it: NFS keeps a dead machine's lock for up to 90 s."""


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
    path = Path(paths.absolute(path))
    if _is_step(path):
        return path.parent.parent, int(path.name)
    steps = _steps(path)
    if not steps:
        raise FileNotFoundError(
            f"{path}: no checkpoint here. Expected a run directory with checkpoints/STEP/, or such a STEP folder; "
            f"`{paths.command('anyorder_jax.train', '--config=any_order', f'--workdir={path}')}` makes one."
        )
    return path, steps[-1]


def is_run(path: str | Path) -> bool:
    """Whether a path is a run directory or one of its steps, and not a Hugging Face style directory: that may lie in a
    folder called "checkpoints", or hold one."""
    path = Path(paths.absolute(path))
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


@contextlib.contextmanager
def alone(workdir: Path) -> Iterator[None]:
    """Lets one `train` at a time into a run directory; of a run of several processes the first one calls it.

    Raises:
      ValueError: when another one is at work there. OSError: when the directory cannot be written.
    """
    is_requeued = int(os.environ.get("SLURM_RESTART_COUNT") or 0) > 0
    end = time.monotonic() + (REQUEUED_SECONDS if is_requeued else 0)

    def wait(holder: str) -> None:
        if time.monotonic() >= end:
            raise ValueError(
                f"{workdir}: another train is at work there ({holder}). Wait for it or end it; the same command then "
                "goes on from its newest checkpoint. Or give another --workdir."
            )

    with files.lock(workdir / "train.lock", wait):
        yield
