"""Join: several collections of one environment become one, without copying.

    python -m anyorder_jax.data.join data/parts/part-* --output_dir=data/all

The parts of a job array (`launch/slurm/collect.sbatch`) differ in their seed alone. Shards are hard links to the parts'
(copies where the file system has none), numbered in the order given; the manifest is written last. Their bytes are
compared with the parts' manifests while it is counted which held-out episodes are training episodes of another part.
"""

from __future__ import annotations

if __name__ == "__main__":
    from anyorder_jax import command

    command.begin("join")  # imports take seconds

import argparse
import dataclasses
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from anyorder_jax import command, paths, terminal
from anyorder_jax.data import overlap, sources


def join(parts: Sequence[Path | str], output_dir: Path | str) -> sources.Manifest:
    """Writes `output_dir` with all shards of `parts`.

    Args:
      parts: directories of finished collections.
      output_dir: a directory without a manifest.

    Returns:
      The new manifest; its settings are those of the parts, with the list of their seeds.

    Raises:
      FileNotFoundError, ValueError: a part that is missing, unfinished, of another environment or other settings, or
        that holds a seed twice; an output that is taken.
    """
    output = Path(output_dir)
    if (output / "manifest.json").exists():
        raise ValueError(f"{output}: holds a collection already. Choose another directory, or delete it.")
    manifests = [sources.read_manifest(part) for part in parts]
    first = {name: value for name, value in manifests[0].settings.items() if name not in ("seed", "num_episodes")}
    for part, manifest in zip(parts, manifests, strict=True):
        settings = {name: value for name, value in manifest.settings.items() if name in first}
        if not manifest.is_complete:
            raise ValueError(f"{part}: the collection was interrupted. Run it again with the same arguments.")
        if (manifest.environment, settings) != (manifests[0].environment, first):
            expected = f"{manifests[0].environment}, {first}"
            raise ValueError(f"{part}: {manifest.environment}, {settings}; expected {expected} like {parts[0]}.")
    seeds = [manifest.settings["seed"] for manifest in manifests]
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"parts: expected collections with different seeds, got {seeds}.")
    splits: dict[str, list[sources.Shard]] = {}
    for part, manifest in zip(parts, manifests, strict=True):
        for split, shards in manifest.splits.items():
            joined = splits.setdefault(split, [])
            for shard in shards:
                file = f"{split}/shard-{len(joined):05d}{''.join(Path(shard.file).suffixes)}"
                packed = "" if (Path(part) / shard.file).exists() else ".zst"  # compressed after it was collected
                link(Path(part) / (shard.file + packed), output / (file + packed))
                joined.append(dataclasses.replace(shard, file=file))
    counts = {split: sum(shard.num_episodes for shard in shards) for split, shards in splits.items()}
    settings = {**first, "seed": seeds, "num_episodes": counts}
    whole = sources.Manifest(
        manifests[0].environment, settings, {split: tuple(shards) for split, shards in splits.items()}
    )
    sources.write_manifest(output, whole)
    try:
        whole = dataclasses.replace(whole, overlap=overlap.count(output, whole))
    except ValueError:  # a part that holds other bytes than it says makes no collection
        (output / "manifest.json").unlink()
        raise
    sources.write_manifest(output, whole)
    return whole


def link(source: Path, target: Path) -> None:
    """A hard link, or a copy across file systems; what an interrupted call left is replaced."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def main() -> None:
    """Reads the command line and does what it asks."""
    terminal.accept_any_letter()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", type=paths.typed, help="directories of collections")
    parser.add_argument("--output_dir", required=True, type=paths.typed)
    options = parser.parse_args()
    try:
        with command.door("join"):
            manifest = join(options.parts, options.output_dir)
    except (ValueError, OSError) as error:
        sys.exit(f"join: {error}")
    for split, count in manifest.settings["num_episodes"].items():
        print(f"{paths.shown(Path(options.output_dir, split))}: {count} episodes of {len(options.parts)} collections")
    for split, counts in manifest.overlap.items():
        print(f"Held out by seed: {overlap.sentence(split, counts)}.")


if __name__ == "__main__":
    main()
