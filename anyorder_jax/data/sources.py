"""Sources: trajectories on disk. JSON Lines shards and their manifest, written whole; records are checked at the door,
and the bytes of a shard against the manifest while they are read. Read from a bucket, too (gs://..., with the extra
`gcs`).

    DIRECTORY/manifest.json                     what was collected, how, and the SHA-256 of every shard
    DIRECTORY/train/shard-00000.jsonl           one trajectory a line (or .jsonl.zst)
    DIRECTORY/validation/...  DIRECTORY/test/...

What a line holds, and how it is checked, is in records.py; the manifest is in manifest.py.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from pathlib import Path
from typing import NamedTuple

from etils import epath

from anyorder_jax import files
from anyorder_jax.data.lines import Lines, open_lines
from anyorder_jax.data.manifest import SCHEMA_VERSION as SCHEMA_VERSION
from anyorder_jax.data.manifest import SPLITS, Manifest, Shard, manifest_path, read_manifest
from anyorder_jax.data.manifest import listed as listed_shards
from anyorder_jax.data.manifest import seed_range as seed_range
from anyorder_jax.data.manifest import write_manifest as write_manifest
from anyorder_jax.data.records import decode
from anyorder_jax.data.records import encode as encode
from anyorder_jax.data.records import record_to_trajectory as record_to_trajectory
from anyorder_jax.data.records import trajectory_to_record as trajectory_to_record
from anyorder_jax.types import Trajectory


def sha256(path: Path | str) -> str:
    """The SHA-256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_shard(path: Path | str, lines: Iterable[bytes]) -> tuple[int, str]:
    """Writes encoded lines (`encode`) as one shard: nothing is there under its name until all of it is.

    Returns:
      (bytes written, SHA-256 in hex).

    Raises:
      OSError: with the path, when the disk refuses.
    """
    digest = hashlib.sha256()
    num_bytes = 0

    def counted() -> Iterator[bytes]:
        nonlocal num_bytes
        for line in lines:
            ended = line + b"\n"
            digest.update(ended)
            num_bytes += len(ended)
            yield ended

    files.write_whole(Path(path), counted())
    return num_bytes, digest.hexdigest()


def _open(path: Path, shard: Shard | None) -> contextlib.AbstractContextManager[Lines]:
    return open_lines(path, is_packed_digest=shard is not None and shard.file.endswith(".zst"))


def _check_bytes(path: Path, shard: Shard | None, sha256: str, manifest_path: Path) -> None:
    """Raises ValueError when a listed shard does not hold the bytes that the manifest says."""
    if shard is not None and sha256 != shard.sha256:
        raise ValueError(
            f"{path}: other contents than {manifest_path} says (SHA-256 {sha256}, expected {shard.sha256}): the file "
            "was changed or damaged. Put the right one back, or run the collection again: it repairs the shard. If the "
            "change is meant, write the new SHA-256 into the manifest."
        )


def _shard_paths(directory: Path, split: str, manifest: Manifest) -> list[Path]:
    if split not in SPLITS:
        raise ValueError(f"sources: split {split!r} is unknown; expected one of {', '.join(SPLITS)}.")
    folder = directory / split
    paths = sorted((*folder.glob("*.jsonl"), *folder.glob("*.jsonl.zst")))
    if not paths:
        raise FileNotFoundError(
            f"{folder}: no *.jsonl or *.jsonl.zst there, so there is no {split} split. Collect it "
            f"(`python -m anyorder_jax.collect`, num_episodes of that split > 0)."
        )
    names = [path.name.removesuffix(".zst") for path in paths]
    if split in manifest.splits:
        listed = listed_shards(manifest, split)
        missing = sorted(set(listed) - set(names))
        if missing:
            raise FileNotFoundError(
                f"{folder / missing[0]}: listed in {manifest_path(directory)} but not there. Run the "
                "collection again: it repairs what is missing."
            )
        strays = sorted(set(names) - set(listed))
        if strays:
            raise ValueError(
                f"{folder / strays[0]}: not listed in {manifest_path(directory)}. Remove the file, or list it."
            )
    if len(set(names)) != len(names):
        raise ValueError(f"{folder}: a shard is there both plain and as .zst. Remove one of the two.")
    return paths


class Place(NamedTuple):
    """Where a record lies: the shard, its line from 1, and its first byte and number of bytes (of unpacked lines)."""

    path: Path
    line: int
    offset: int
    size: int


def iterate_trajectories(
    directory: Path | str,
    split: str,
    limit: int = 0,
    on_bad: Callable[[str], None] | None = None,
    digests: MutableMapping[str, str] | None = None,
) -> Iterator[Trajectory]:
    """Yields the trajectories of a split in their order; arguments and errors as `read_trajectories`.

    Args:
      directory, split, limit, on_bad, digests: as `read_trajectories`.
    """
    return (trajectory for _, trajectory in iterate_places(directory, split, limit, on_bad, digests))


def iterate_places(
    directory: Path | str,
    split: str,
    limit: int = 0,
    on_bad: Callable[[str], None] | None = None,
    digests: MutableMapping[str, str] | None = None,
) -> Iterator[tuple[Place, Trajectory]]:
    """As `iterate_trajectories`, with the place of each.

    Args:
      directory, split, limit, on_bad, digests: as `read_trajectories`.
    """
    root = epath.Path(directory)
    manifest = read_manifest(root)
    if not manifest.is_complete:
        raise ValueError(
            f"{manifest_path(root)}: the collection was interrupted. Run it again with the same "
            "arguments: it goes on where it stopped."
        )
    paths, listed = _shard_paths(root, split, manifest), listed_shards(manifest, split)
    ids: set[str] = set()
    num_bad = 0
    for path in paths:
        num_before = len(ids) + num_bad
        name = path.name.removesuffix(".zst")
        shard = listed.get(name)
        offset = 0
        with _open(path, shard) as lines:
            for number, line in enumerate(lines, start=1):
                place = Place(path, number, offset, len(line))
                offset += len(line)
                try:
                    trajectory = decode(line, f"{path}:{number}", ids)
                except ValueError as error:
                    if on_bad is None:
                        raise
                    on_bad(str(error))
                    num_bad += 1
                    continue
                ids.add(trajectory.id)
                yield place, trajectory
                if len(ids) == limit:
                    break
            num_here = len(ids) + num_bad - num_before
            if shard is not None and num_here != shard.num_episodes and len(ids) != limit:
                raise ValueError(
                    f"{path}: {num_here} episodes, but {manifest_path(root)} says "
                    f"{shard.num_episodes}. Run the collection again: it repairs the shard."
                )
            sha256 = lines.sha256()
        _check_bytes(path, shard, sha256, manifest_path(root))
        if digests is not None:
            digests[f"{split}/{name}"] = sha256
        if limit and len(ids) == limit:
            return
    if limit > len(ids) + num_bad:
        raise ValueError(
            f"{root / split}: asked for {limit} episodes, but there are {len(ids)}. Collect more, or ask for 0 (all)."
        )


def has_split(directory: Path | str, split: str) -> bool:
    """Whether a collection has such a split; a corpus of a handful of logs has no validation and no test.

    Raises:
      FileNotFoundError, ValueError: as `read_manifest`.
    """
    return bool(read_manifest(directory).splits.get(split)) or (epath.Path(directory) / split).is_dir()


def check_shards(directory: Path | str, split: str, digests: MutableMapping[str, str] | None = None) -> None:
    """Compares the bytes of a split's shards with the manifest; arguments and errors as `read_trajectories`."""
    root = epath.Path(directory)
    manifest = read_manifest(root)
    listed = listed_shards(manifest, split)
    for path in _shard_paths(root, split, manifest):
        name = path.name.removesuffix(".zst")
        with _open(path, listed.get(name)) as lines:
            sha256 = lines.sha256()
        _check_bytes(path, listed.get(name), sha256, manifest_path(root))
        if digests is not None:
            digests[f"{split}/{name}"] = sha256


def place_of(directory: Path | str, trajectory_id: str) -> str:
    """ "FILE:LINE" of a trajectory in a directory that was read, for an error that comes later than reading."""
    manifest = read_manifest(directory)
    for split in SPLITS:
        with contextlib.suppress(FileNotFoundError):
            for path in _shard_paths(epath.Path(directory), split, manifest):
                with open_lines(path) as lines:
                    for number, line in enumerate(lines, start=1):
                        with contextlib.suppress(ValueError):
                            if decode(line, "", ()).id == trajectory_id:
                                return f"{path}:{number}"
    return str(directory)


def read_trajectories(
    directory: Path | str,
    split: str,
    limit: int = 0,
    on_bad: Callable[[str], None] | None = None,
    digests: MutableMapping[str, str] | None = None,
) -> list[Trajectory]:
    """Reads a split, every record checked, and the bytes of every shard compared with the manifest's SHA-256.

    Args:
      directory: holds `manifest.json` and the folders of the splits.
      split: "train", "validation" or "test".
      limit: the first so many episodes; 0: all. Shards behind them are not read.
      on_bad: gets the sentence about a broken line, which is then left out; None: the sentence is raised.
      digests: gets "SPLIT/FILE" -> SHA-256 in hex of what was read, listed in the manifest or not.

    Raises:
      FileNotFoundError: the directory, its manifest, the split or a listed shard is missing.
      ValueError: a broken line, a missing field, an unknown kind, a doubled id, another schema version, an
        unfinished collection, a shard with other contents than the manifest says, or fewer episodes than `limit`;
        names the file and line and what to do.
    """
    return list(iterate_trajectories(directory, split, limit, on_bad, digests))


def digests(directory: Path | str) -> dict[str, str]:
    """ "SPLIT/FILE" -> SHA-256 of every shard, in hex, without looking at records; {} of an unfinished collection.

    Raises:
      FileNotFoundError, ValueError: as `read_trajectories`.
    """
    root = epath.Path(directory)
    manifest = read_manifest(root)
    found: dict[str, str] = {}
    for split in SPLITS if manifest.is_complete else ():
        if not manifest.splits.get(split) and not (root / split).is_dir():
            continue
        listed = listed_shards(manifest, split)
        for path in _shard_paths(root, split, manifest):
            name = path.name.removesuffix(".zst")
            with _open(path, listed.get(name)) as lines:
                found[f"{split}/{name}"] = lines.sha256()
            _check_bytes(path, listed.get(name), found[f"{split}/{name}"], manifest_path(root))
    return found


def read_record(path: Path | str, number: int) -> Trajectory:
    """Line `number` (from 0) of one shard; see `read_records`."""
    return read_records(path, number, 1)[0]


def read_records(path: Path | str, first: int, num: int) -> list[Trajectory]:
    """Up to `num` lines of one shard from number `first` (from 0) on, its bytes compared with the manifest when there
    is one two folders up.

    Raises:
      ValueError: no such line, a broken one, or other contents than the manifest says.
    """
    file: Path = epath.Path(path)
    root, shard = file.parent.parent, None
    if manifest_path(root).is_file():
        shard = listed_shards(read_manifest(root), file.parent.name).get(file.name.removesuffix(".zst"))
    with _open(file, shard) as lines:
        chosen = list(itertools.islice(lines, first, first + num))
        if not chosen:
            raise ValueError(f"{file}: expected a record {first}, but the file ends before it.")
        found = [decode(line, f"{file}:{number}", ()) for number, line in enumerate(chosen, start=first + 1)]
        _check_bytes(file, shard, lines.sha256(), manifest_path(root))
    return found
