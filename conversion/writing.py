"""Writing a model directory: what goes into which shard, the index, the config, and the files that travel along."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anyorder_jax.pretrained.directory import INDEX_NAME
from anyorder_jax.pretrained.names import MODEL_TYPES
from anyorder_jax.pretrained.shards import Shard, Spec, index_text, plan_shards
from conversion.staging import refuse_full, refuse_occupied, staged

MAX_SHARD_BYTES = 5_000_000_000  # the reference's

Carried = Mapping[Path, Path | str]
"""Files that travel along: relative path -> where it is now, or its text."""


@dataclass(frozen=True)
class Plan:
    """Everything that will be written, known before the first byte is."""

    output: Path
    shards: Sequence[Shard]
    config_text: str
    carried: Carried

    @property
    def num_bytes(self) -> int:
        """Bytes of all shards; the other files are small."""
        return sum(shard.num_bytes for shard in self.shards)

    def describe(self) -> str:
        """The plan for a dry run, one line a file."""
        lines = [f"would write {self.output} ({self.num_bytes / 1e9:.3f} GB):"]
        lines += [f"  {s.file_name:<34} {s.num_bytes / 1e9:9.3f} GB  {len(s.starts):6d} tensors" for s in self.shards]
        others = ["config.json", *([INDEX_NAME] if len(self.shards) > 1 else []), *map(str, self.carried)]
        return "\n".join([*lines, f"  {', '.join(others)}"])


def config_text(config: Mapping[str, Any], layout: str, dtype: str = "") -> str:
    """The text of `config.json` with the `model_type` of the layout, and the dtype where one was asked for.

    Every other key, and the order, stays as it is.
    """
    changed = {**config, "model_type": MODEL_TYPES[layout]}
    for key in ("dtype", "torch_dtype"):  # transformers renamed it in 4.56
        if dtype and key in changed:
            changed[key] = dtype
    return json.dumps(changed, indent=2, ensure_ascii=False) + "\n"


def make_plan(
    output: str | Path,
    specs: Sequence[Spec],
    text: str,
    *,
    carried: Carried | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> Plan:
    """Plans a model directory and refuses a place that is occupied or too small.

    Args:
      output: the directory.
      specs: of every tensor, in order.
      text: of config.json.
      carried: files that are copied.
      max_shard_bytes: shards hold at most so many bytes of tensors.

    Raises:
      ValueError: when `output` holds something, or the disk has not the room.
    """
    if max_shard_bytes < 1:
        raise ValueError(f"max_shard_bytes: expected a number of bytes >= 1, got {max_shard_bytes}.")
    output = Path(output)
    plan = Plan(output, plan_shards(specs, max_shard_bytes), text, carried or {})
    refuse_occupied(output)
    refuse_full(output, plan.num_bytes)
    return plan


class Target:
    """The open shards of a plan: where the bytes of each tensor go."""

    def __init__(self, directory: Path, shards: Sequence[Shard]) -> None:
        self._descriptors: list[int] = []
        self._places: dict[str, tuple[int, int]] = {}
        for shard in shards:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            descriptor = os.open(directory / shard.file_name, flags, 0o644)
            self._descriptors.append(descriptor)
            os.pwrite(descriptor, shard.header, 0)
            self._places.update({name: (descriptor, start) for name, start in shard.starts.items()})

    def place(self, name: str) -> tuple[int, int]:
        """The descriptor of the tensor's shard, and where the tensor starts in it."""
        return self._places[name]

    def close(self) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)


def copy_files(files: Carried, directory: Path) -> None:
    """Copies files into a directory."""
    for relative, source in files.items():
        (directory / relative).parent.mkdir(parents=True, exist_ok=True)
        if isinstance(source, str):
            (directory / relative).write_text(source, encoding="utf-8")
        else:
            shutil.copyfile(source, directory / relative)


@contextmanager
def written(plan: Plan) -> Iterator[Target]:
    """Yields the open shards to be filled; when the block ends well the whole directory appears at `plan.output`."""
    with staged(plan.output) as directory:
        target = Target(directory, plan.shards)
        try:
            yield target
        finally:
            target.close()
        (directory / "config.json").write_text(plan.config_text, encoding="utf-8")
        if len(plan.shards) > 1:
            (directory / INDEX_NAME).write_text(index_text(plan.shards), encoding="utf-8")
        copy_files(plan.carried, directory)
