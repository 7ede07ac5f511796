"""`average`: the mean of some checkpoints of a run, written as a run, block by block (LLaDA2.0 merges its best)."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anyorder_jax import digest, paths, run_directory
from anyorder_jax.config import freeze
from anyorder_jax.model.config import ModelConfig
from anyorder_jax.pretrained import names
from anyorder_jax.pretrained.tree import Leaf, leaves
from anyorder_jax.progress import Progress
from conversion.copying import write_all
from conversion.staging import refuse_full, refuse_occupied, staged
from conversion.stored import StoredParams
from conversion.writing import copy_files
from conversion.zarr import Index, array_name, cells, chunk_shape, write_metadata


def _steps(run: Path) -> dict[int, Path]:
    folders = (run / "checkpoints").iterdir() if (run / "checkpoints").is_dir() else ()
    return {int(path.name): path for path in folders if path.name.isdecimal() and (path / "params").is_dir()}


def _validation_loss(folder: Path) -> float | None:
    """The validation loss that was saved with a step; None where there is none."""
    file = folder / "metrics" / "metrics"
    if not file.is_file():
        return None
    loss = json.loads(file.read_text(encoding="utf-8"))["loss"]
    return float(loss) if math.isfinite(float(loss)) else None


def choose(run: Path, last: int, best: int, steps: str) -> list[int]:
    """The steps that are meant, ascending.

    Args:
      run: its directory.
      last: as `average`, like the others.
      best: see there.
      steps: see there.

    Raises:
      ValueError: when they are not there, or fewer than two.
    """
    there = _steps(run)
    if steps:
        parts = steps.split(",")
        if not all(part.strip().isdecimal() for part in parts):
            raise ValueError(f"--steps: expected numbers with commas between them, got {steps!r}.")
        chosen = sorted({int(part) for part in parts})
    elif last:
        chosen = sorted(there)[-last:] if last > 0 else []
    else:
        losses = {step: loss for step, folder in there.items() if (loss := _validation_loss(folder)) is not None}
        if best > len(losses):
            raise ValueError(
                f"--best={best}: only {len(losses)} checkpoints of {run} have a validation loss ({sorted(losses)} of "
                f"{sorted(there)}). A run keeps config.checkpoint.keep_best of them: raise that, or name --steps."
            )
        chosen = sorted(sorted(losses, key=lambda step: losses[step])[:best]) if best > 0 else []
    missing = [step for step in chosen if step not in there]
    if missing or len(chosen) < max(2, last):
        raise ValueError(
            f"{run}: expected {max(2, last, best)} checkpoints or more to average, got {chosen}; there are "
            f"{sorted(there)}. A run keeps config.checkpoint.keep_last and keep_best of them: raise those."
        )
    return chosen


def _mean(parts: Sequence[np.ndarray], dtype: np.dtype) -> np.ndarray:
    total = parts[0].astype(np.float32)
    for part in parts[1:]:
        total = total + part.astype(np.float32)
    return (total / np.float32(len(parts))).astype(dtype)


def _write(read: Callable[[Leaf, Index], np.ndarray], all_leaves: Sequence[Leaf], folder: Path) -> list[int]:
    """Writes the `params` of a step; returns their digests."""
    chunks = [chunk_shape(leaf, leaf.shape) for leaf in all_leaves]
    write_metadata(folder, all_leaves, chunks)
    digests = {leaf.path: 0 for leaf in all_leaves}
    with Progress(sum(leaf.num_bytes for leaf in all_leaves), "average") as bar:
        for leaf, chunk in zip(all_leaves, chunks, strict=True):
            for file_name, index in cells(leaf.shape, chunk):
                part = read(leaf, index)
                digests[leaf.path] = (digests[leaf.path] + digest.of_part(part, index, leaf.shape)) % 2**32
                if part.shape != tuple(chunk):  # the last ones of a dim are as large on disk as the others
                    whole = np.zeros(chunk, part.dtype)
                    whole[tuple(map(slice, part.shape))] = part
                    part = whole
                with (folder / array_name(leaf.path) / file_name).open("wb") as file:
                    write_all(file.fileno(), np.ascontiguousarray(part).reshape(-1).view(np.uint8).data, 0)
                bar.update(part.nbytes)
    return [digests[path] for path in sorted(digests)]


def average(
    path: str | Path,
    output_path: str | Path,
    *,
    last: int = 0,
    best: int = 0,
    steps: str = "",
    is_dry_run: bool = False,
) -> None:
    """Writes the mean of some steps of a run as a run with one step, the last of them.

    Args:
      path: a run directory.
      output_path: a new run directory; `evaluate`, `to_hf` and `model.path` take it, and no run goes on from it.
      last: so many of the newest steps, or
      best: of those with the lowest validation loss, or
      steps: "4000,5000", these.
      is_dry_run: says what would be written, and stops.

    Raises:
      FileNotFoundError, ValueError: no run, too few checkpoints, a damaged one, factors of LoRA, an occupied output.
    """
    run, newest = run_directory.find(path)
    chosen = choose(run, last, best, steps)
    meta = dict(run_directory.read_meta(run / "checkpoints" / str(chosen[-1])))
    config, model_config = freeze(meta["config"]), ModelConfig.from_hf(meta["model"])
    if config.lora.rank:
        raise ValueError(
            f"{run}: its checkpoints hold LoRA's factors, and the mean of factors is not that of what they add. Train "
            "with config.optimizer.ema_decay and evaluate --weights=ema, or export one with to_hf."
        )
    all_leaves = leaves(names.Dims.from_config(model_config.to_hf(), "the model"), config.model.param_dtype)
    output = Path(output_path)
    refuse_occupied(output)
    refuse_full(output, sum(leaf.num_bytes for leaf in all_leaves))
    print(f"{run}: the mean of steps {', '.join(map(str, chosen))} (of {newest}) -> {paths.shown(output)}")
    if is_dry_run:
        return
    stored = [StoredParams(run / "checkpoints" / str(step), all_leaves) for step in chosen]

    def read(leaf: Leaf, index: Index) -> np.ndarray:
        return _mean([one(leaf, index) for one in stored], leaf.dtype)

    with staged(output) as partial:
        folder = partial / "checkpoints" / str(chosen[-1])
        digests = {"params": _write(read, all_leaves, folder / "params")}
        for one in stored:
            one.finish()
        _write_rest(run, partial, folder, {**meta, "digests": digests, "average_of": chosen})


def _write_rest(run: Path, partial: Path, folder: Path, meta: dict[str, Any]) -> None:
    (folder / "meta").mkdir()
    text = json.dumps(run_directory.sealed(meta))
    (folder / "meta" / run_directory.META_NAME).write_text(text, encoding="utf-8")
    found = {
        file.relative_to(run): file
        for part in ("config.json", "tokenizer", "metrics", "source")
        for file in (run / part, *(run / part).rglob("*"))
        if file.is_file()
    }
    copy_files(found, partial)
