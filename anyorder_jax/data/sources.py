"""Sources: trajectories on disk. JSON Lines shards and their manifest, written whole; records are checked at the door,
and the bytes of a shard against the manifest while they are read. Read from a bucket, too (gs://..., with the extra
`gcs`).

    DIRECTORY/manifest.json                     what was collected, how, and the SHA-256 of every shard
    DIRECTORY/train/shard-00000.jsonl           one trajectory a line (or .jsonl.zst)
    DIRECTORY/validation/...  DIRECTORY/test/...

A line, wrapped here for reading:

    {"id": "BabyAI-GoToObj-v0/7",
     "units": [{"kind": "goal", "step": 0, "text": "go to a red ball"},
               {"kind": "observation", "step": 0, "data": {"image": [[[2, 5, 0], ...], ...], "direction": 3}},
               {"kind": "action", "step": 0, "text": "forward"}, ...],
     "outcome": {"success": true, "return": 0.93, "num_steps": 5},
     "source": {"environment": "BabyAI-GoToObj-v0", "seed": 7, "expert": "BabyAIBot",
                "version": "minigrid 3.2.0"}}

A unit has either text or data; `"is_expert": false` and `"branches": [...]` only where they say something. What data
holds is the business of the environment's codec, which checks it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from etils import epath

from anyorder_jax import files
from anyorder_jax.data.lines import Lines, open_lines
from anyorder_jax.paths import command
from anyorder_jax.types import Kind, Trajectory, Unit

SCHEMA_VERSION = 1
SPLITS = ("train", "validation", "test")

_SEEDS_PER_RUN = 10**7
_SPLIT_OFFSETS = {"train": (0, 8 * 10**6), "validation": (8 * 10**6, 9 * 10**6), "test": (9 * 10**6, 10**7)}
_KINDS = {kind.name.lower(): kind for kind in Kind}
_KIND_NAMES = {kind: name for name, kind in _KINDS.items()}
_TRAJECTORY_KEYS = ("id", "units", "outcome", "source")
_UNIT_KEYS = frozenset(("kind", "step", "text", "data", "is_expert", "branches"))


def seed_range(seed: int, split: str) -> range:
    """The environment seeds that belong to a split: no two splits, and no two values of `seed`, share one.

    Collection takes them from the start of the range, going on to the next where the expert fails.

    Args:
      seed: of the collection, >= 0.
      split: "train", "validation" or "test".
    """
    if split not in _SPLIT_OFFSETS:
        raise ValueError(f"sources: split {split!r} is unknown; expected one of {', '.join(SPLITS)}.")
    if seed < 0:
        raise ValueError(f"sources: the seed must be >= 0, got {seed}.")
    first, end = _SPLIT_OFFSETS[split]
    return range(seed * _SEEDS_PER_RUN + first, seed * _SEEDS_PER_RUN + end)


@dataclass(frozen=True)
class Shard:
    """One file of a split. `seeds` = [first, end): all that were tried; `failures`: (seed, reason) of those
    that the expert did not solve. `file` is relative to the directory of the manifest. `sha256`: of the lines, which
    may lie there compressed (`file` + ".zst"); of the compressed file, when `file` itself ends in ".zst"."""

    file: str
    num_episodes: int
    num_steps: int
    num_bytes: int
    sha256: str
    seeds: tuple[int, int] = (0, 0)
    failures: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True)
class Manifest:
    """What a directory holds. `settings`: everything that determines the bytes of the shards. `overlap`: held-out
    split -> how many of its episodes the training split holds as well (`overlap.count`); empty: nobody counted."""

    environment: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    splits: Mapping[str, tuple[Shard, ...]] = field(default_factory=dict)
    is_complete: bool = True
    overlap: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


def _manifest_path(directory: Path | str) -> Path:
    return epath.Path(directory) / "manifest.json"


def write_manifest(directory: Path | str, manifest: Manifest) -> None:
    """Writes `manifest.json`. Raises OSError with the path when the disk refuses."""
    splits = {}
    for split, shards in manifest.splits.items():
        splits[split] = {
            "num_episodes": sum(shard.num_episodes for shard in shards),
            "num_steps": sum(shard.num_steps for shard in shards),
            "num_bytes": sum(shard.num_bytes for shard in shards),
            "num_failures": sum(len(shard.failures) for shard in shards),
            "shards": [dataclasses.asdict(shard) for shard in shards],
        }
    content = {
        "schema_version": SCHEMA_VERSION,
        "environment": manifest.environment,
        "is_complete": manifest.is_complete,
        "settings": dict(manifest.settings),
        "overlap": {split: dict(counts) for split, counts in manifest.overlap.items()},
        "splits": splits,
    }
    files.write_whole(_manifest_path(directory), [json.dumps(content, indent=2).encode() + b"\n"])


def _collect_command(directory: Path | str) -> str:
    return command("anyorder_jax.collect", "--env=LEVEL", "--num_episodes=NUMBER", f"--output_dir={directory}")


def read_manifest(directory: Path | str) -> Manifest:
    """Reads and checks `manifest.json`.

    Raises:
      FileNotFoundError: no such directory, or no manifest in it.
      ValueError: the manifest is broken, or of another schema version.
    """
    path = _manifest_path(directory)
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"{path.parent}: no such directory. Collect episodes there "
            f"(`{_collect_command(path.parent)}`), or name the directory that holds them."
        )
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: not found, so {path.parent} is no directory of trajectories. Collect into it "
            f"(`{_collect_command(path.parent)}`), or describe your own shards with `sources.write_manifest`."
        )
    try:
        content = json.loads(path.read_bytes())
        version = content["schema_version"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: expected JSON with a schema_version ({error}). Delete the file and collect again."
        ) from error
    if version != SCHEMA_VERSION:
        raise ValueError(
            f"{path}: schema_version {version!r}, but this program reads {SCHEMA_VERSION}. Collect again, "
            "or use the release that wrote it."
        )
    try:
        splits = {
            split: tuple(
                Shard(
                    **{
                        **shard,
                        "seeds": (int(shard["seeds"][0]), int(shard["seeds"][1])),
                        "failures": tuple((int(seed), str(reason)) for seed, reason in shard["failures"]),
                    }
                )
                for shard in entry["shards"]
            )
            for split, entry in content["splits"].items()
        }
        overlap = {split: dict(counts) for split, counts in content.get("overlap", {}).items()}
        return Manifest(content["environment"], content["settings"], splits, bool(content["is_complete"]), overlap)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ValueError(
            f"{path}: a field is missing or malformed ({type(error).__name__}: {error}). Delete the file and "
            "collect again."
        ) from error


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


def trajectory_to_record(trajectory: Trajectory) -> dict[str, Any]:
    """The JSON object of a trajectory; `record_to_trajectory` is its inverse."""
    units = []
    for unit in trajectory.units:
        record: dict[str, Any] = {"kind": _KIND_NAMES[unit.kind], "step": unit.step}
        if unit.text is not None:
            record["text"] = unit.text
        if unit.data is not None:
            record["data"] = dict(unit.data)
        if not unit.is_expert:
            record["is_expert"] = False
        if unit.branches:
            record["branches"] = [dict(branch) for branch in unit.branches]
        units.append(record)
    return {
        "id": trajectory.id,
        "units": units,
        "outcome": dict(trajectory.outcome),
        "source": dict(trajectory.source),
    }


def encode(trajectory: Trajectory) -> bytes:
    """One line of a shard, without its newline."""
    text = json.dumps(trajectory_to_record(trajectory), separators=(",", ":"), ensure_ascii=False)
    return text.encode()


def _require(condition: bool, where: str, expected: str, value: object) -> None:
    if not condition:
        shown = repr(value)
        shown = shown if len(shown) <= 60 else shown[:60] + "..."
        raise ValueError(f"{where}: expected {expected}, got {shown}. Correct or remove this line, or collect again.")


def unit_of(record: Any, where: str) -> Unit:
    """A unit from its JSON object, checked; arguments and errors as `record_to_trajectory`."""
    _require(isinstance(record, dict), where, "an object", record)
    unknown = record.keys() - _UNIT_KEYS
    _require(not unknown, where, f"no keys but {', '.join(sorted(_UNIT_KEYS))}", sorted(unknown))
    for key in ("kind", "step"):
        _require(key in record, where, f"a field {key!r}", sorted(record))
    kind, step, text, data = record["kind"], record["step"], record.get("text"), record.get("data")
    _require(isinstance(kind, str) and kind in _KINDS, f"{where}.kind", f"one of {', '.join(_KINDS)}", kind)
    _require(type(step) is int and step >= 0, f"{where}.step", "an integer >= 0", step)
    _require((text is None) != (data is None), where, "either 'text' or 'data'", sorted(record))
    _require(text is None or isinstance(text, str), f"{where}.text", "a string", text)
    _require(data is None or isinstance(data, dict), f"{where}.data", "an object", data)
    is_expert = record.get("is_expert", True)
    _require(isinstance(is_expert, bool), f"{where}.is_expert", "true or false", is_expert)
    branches = record.get("branches", ())
    _require(
        isinstance(branches, (list, tuple)) and all(isinstance(b, dict) for b in branches),
        f"{where}.branches", "a list of objects", branches,
    )  # fmt: skip
    return Unit(_KINDS[kind], step, text, data, is_expert, tuple(branches))


def record_to_trajectory(record: Any, where: str = "record") -> Trajectory:
    """A trajectory from the JSON object of one line, checked.

    Args:
      record: what `json.loads` gave.
      where: names the record in errors, e.g. "train/shard-00000.jsonl:17".

    Raises:
      ValueError: naming the place, what was expected and what came.
    """
    _require(isinstance(record, dict), where, "a JSON object", record)
    for key in _TRAJECTORY_KEYS:
        _require(key in record, where, f"a field {key!r}", sorted(record))
    unknown = sorted(record.keys() - set(_TRAJECTORY_KEYS))
    _require(not unknown, where, f"no fields but {', '.join(_TRAJECTORY_KEYS)}", unknown)
    _require(isinstance(record["id"], str) and record["id"] != "", f"{where}: id", "a name", record["id"])
    for key in ("outcome", "source"):
        _require(isinstance(record[key], dict), f"{where}: {key}", "an object", record[key])
    _require(
        isinstance(record["units"], list) and len(record["units"]) > 0,
        f"{where}: units", "a list of at least one unit", record["units"],
    )  # fmt: skip
    units = tuple(unit_of(unit, f"{where}: units[{i}]") for i, unit in enumerate(record["units"]))
    for i in range(1, len(units)):
        _require(
            units[i].step >= units[i - 1].step, f"{where}: units[{i}].step",
            f"units in order of time (>= {units[i - 1].step})", units[i].step,
        )  # fmt: skip
    return Trajectory(record["id"], units, record["outcome"], record["source"])


def _listed(manifest: Manifest, split: str) -> dict[str, Shard]:
    """The split's shards by file name, without ".zst"."""
    return {Path(shard.file).name.removesuffix(".zst"): shard for shard in manifest.splits.get(split, ())}


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
        listed = _listed(manifest, split)
        missing = sorted(set(listed) - set(names))
        if missing:
            raise FileNotFoundError(
                f"{folder / missing[0]}: listed in {_manifest_path(directory)} but not there. Run the "
                "collection again: it repairs what is missing."
            )
        strays = sorted(set(names) - set(listed))
        if strays:
            raise ValueError(
                f"{folder / strays[0]}: not listed in {_manifest_path(directory)}. Remove the file, or list it."
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
    """Yields the trajectories of a split in their order; arguments and errors as `read_trajectories`."""
    return (trajectory for _, trajectory in iterate_places(directory, split, limit, on_bad, digests))


def iterate_places(
    directory: Path | str,
    split: str,
    limit: int = 0,
    on_bad: Callable[[str], None] | None = None,
    digests: MutableMapping[str, str] | None = None,
) -> Iterator[tuple[Place, Trajectory]]:
    """As `iterate_trajectories`, with the place of each."""
    root = epath.Path(directory)
    manifest = read_manifest(root)
    if not manifest.is_complete:
        raise ValueError(
            f"{_manifest_path(root)}: the collection was interrupted. Run it again with the same "
            "arguments: it goes on where it stopped."
        )
    paths, listed = _shard_paths(root, split, manifest), _listed(manifest, split)
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
                    trajectory = _line_to_trajectory(line, f"{path}:{number}", ids)
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
                    f"{path}: {num_here} episodes, but {_manifest_path(root)} says "
                    f"{shard.num_episodes}. Run the collection again: it repairs the shard."
                )
            sha256 = lines.sha256()
        _check_bytes(path, shard, sha256, _manifest_path(root))
        if digests is not None:
            digests[f"{split}/{name}"] = sha256
        if limit and len(ids) == limit:
            return
    if limit > len(ids) + num_bad:
        raise ValueError(
            f"{root / split}: asked for {limit} episodes, but there are {len(ids)}. Collect more, or ask for 0 (all)."
        )


def _line_to_trajectory(line: bytes, where: str, ids: Container[str]) -> Trajectory:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{where}: broken JSON ({error}). Correct or remove this line, or collect again.") from error
    trajectory = record_to_trajectory(record, where)
    _require(trajectory.id not in ids, f"{where}: id", "each id once", trajectory.id)
    return trajectory


def check_shards(directory: Path | str, split: str, digests: MutableMapping[str, str] | None = None) -> None:
    """Compares the bytes of a split's shards with the manifest; arguments and errors as `read_trajectories`."""
    root = epath.Path(directory)
    manifest = read_manifest(root)
    listed = _listed(manifest, split)
    for path in _shard_paths(root, split, manifest):
        name = path.name.removesuffix(".zst")
        with _open(path, listed.get(name)) as lines:
            sha256 = lines.sha256()
        _check_bytes(path, listed.get(name), sha256, _manifest_path(root))
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
                            if _line_to_trajectory(line, "", ()).id == trajectory_id:
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
        listed = _listed(manifest, split)
        for path in _shard_paths(root, split, manifest):
            name = path.name.removesuffix(".zst")
            with _open(path, listed.get(name)) as lines:
                found[f"{split}/{name}"] = lines.sha256()
            _check_bytes(path, listed.get(name), found[f"{split}/{name}"], _manifest_path(root))
    return found


def read_record(path: Path | str, number: int) -> Trajectory:
    """Line `number` (from 0) of one shard, its bytes compared with the manifest when there is one two folders up.

    Raises:
      ValueError: no such line, a broken one, or other contents than the manifest says.
    """
    file: Path = epath.Path(path)
    root, shard = file.parent.parent, None
    if _manifest_path(root).is_file():
        shard = _listed(read_manifest(root), file.parent.name).get(file.name.removesuffix(".zst"))
    with _open(file, shard) as lines:
        line = next(itertools.islice(lines, number, None), None)
        if line is None:
            raise ValueError(f"{file}: expected a record {number}, but the file ends before it.")
        trajectory = _line_to_trajectory(line, f"{file}:{number + 1}", ())
        _check_bytes(file, shard, lines.sha256(), _manifest_path(root))
    return trajectory
