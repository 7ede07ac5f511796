"""Ingest: logs of any agent become trajectories that `train` reads.

    python -m anyorder_jax.ingest --input=logs.jsonl --output_dir=data/mine
        [--format=auto --validation=0.1 --test=0.1 --on_bad_record=stop --drop_images --num_workers=0]

    logs.jsonl ─┬─ piece 0 ─► part 0 ─┐  joined, doubles dropped,      train/shard-00000.jsonl, ...
                ├─ piece 1 ─► part 1 ─┼─ split by task             ─►  validation/...  test/...
                └─ piece 2 ─► part 2 ─┘                                manifest.json, refused.jsonl

Workers read pieces of the logs on their own; a part appears under its name when it is whole. So the same command goes
on where a killed one stopped, and the bytes depend on the logs and the arguments alone. See docs/own_data.md.
"""

from __future__ import annotations

if __name__ == "__main__":
    from anyorder_jax import command

    command.begin("ingest")

import argparse
import errno
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from anyorder_jax import command, paths, terminal
from anyorder_jax.data import sources
from anyorder_jax.environments.pool import Pool, serve
from anyorder_jax.files import only_writer, write_whole
from anyorder_jax.formats.registry import FORMATS
from anyorder_jax.ingestion.files import Scanned, find, scan
from anyorder_jax.ingestion.merge import merge, refused_lines
from anyorder_jax.ingestion.stage import stage
from anyorder_jax.ingestion.summary import summary_lines
from anyorder_jax.progress import Progress

MAPPING_VERSION = 1
"""Of the formats' mappings: a directory that was ingested with another is not gone on with."""

_STAGING = ".ingest"
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
_NUM_SHOWN = 5


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _work(staging: str) -> None:
    """The worker process: stages the pieces that the parent asks for."""

    def play(number: int) -> tuple[bool, bytes]:
        try:
            return True, json.dumps(stage(Path(staging), number)).encode()
        except OSError as error:
            said = f"{error.filename}: {error.strerror}. Make room, or see to the file."
            return False, (said if error.filename else error.strerror or str(error)).encode()

    serve(play)


def _is_intact(directory: Path, manifest: sources.Manifest) -> bool:
    for shard in (shard for shards in manifest.splits.values() for shard in shards):
        path = directory / shard.file
        if not path.is_file() or path.stat().st_size != shard.num_bytes or sources.sha256(path) != shard.sha256:
            return False
    return True


def _compare(directory: Path, found: sources.Manifest, settings: dict[str, Any]) -> None:
    """Raises ValueError when the directory holds something else than what is asked."""
    there = {key: value for key, value in found.settings.items() if key != "counts"}
    if found.environment == "" and there == settings:
        return
    different = sorted(key for key in there.keys() | settings.keys() if there.get(key) != settings.get(key))
    told = [f"{key} is {there.get(key)}, asked {settings.get(key)}" for key in different if key != "files"]
    told += ["the files, or what is in them, differ"] * ("files" in different)
    raise ValueError(
        f"ingest: {directory} holds something else ({'; '.join(told) or 'episodes of ' + found.environment}). Choose "
        "another directory, or delete it."
    )


def _existing(directory: Path, settings: dict[str, Any]) -> sources.Manifest:
    """The manifest of an earlier call with these settings, or a new one, written, when there was none."""
    if not (directory / "manifest.json").exists():
        strays = sorted(path for split in sources.SPLITS for path in (directory / split).glob("*.jsonl*"))
        if strays:
            raise ValueError(
                f"ingest: {strays[0]} is there, but no manifest says what it is. Choose another directory."
            )
        manifest = sources.Manifest("", settings, is_complete=False)
        sources.write_manifest(directory, manifest)
        return manifest
    found = sources.read_manifest(directory)
    _compare(directory, found, settings)
    return found


def _scan(files: Sequence[Path]) -> list[Scanned]:
    with Progress(sum(path.stat().st_size for path in files), "ingest: looking through the files") as progress:
        return [scan(path, progress.update) for path in files]


def _stage_all(staging: Path, scanned: Sequence[Scanned], settings: dict[str, Any], num_workers: int) -> dict[str, Any]:
    """Stages every piece that is not there yet. Returns the sums of the parts' counts.

    Raises:
      ValueError: a record is refused and `on_bad_record` is "stop".
      OSError: the disk refuses.
      RuntimeError: a worker died.
    """
    pieces = [piece for file in scanned for piece in file.pieces]
    staging.mkdir(exist_ok=True)
    plan = json.dumps({"settings": settings, "pieces": pieces}).encode()
    path = staging / "plan.json"
    if not path.exists() or path.read_bytes() != plan:
        for old in staging.glob("part-*"):
            old.unlink()
        write_whole(path, plan)
    total: dict[str, Any] = {"records": 0, "refused": 0, "dropped": Counter(), "recognised": Counter()}
    sizes = [file.num_bytes / max(len(file.pieces), 1) for file in scanned for _ in file.pieces]
    worker = ["-m", "anyorder_jax.ingest", "--worker", f"--output_dir={staging}", "--input="]
    num_workers = min(num_workers or os.cpu_count() or 1, len(pieces)) or 1
    with Progress(int(sum(sizes)), "ingest: reading") as progress, Pool(worker, num_workers, 1) as pool:
        for number, is_staged, reply in pool.results(range(len(pieces)), len(pieces)):
            if not is_staged:
                raise OSError(f"{reply.decode()} The same command then goes on.")
            part = json.loads(reply)
            if part["refused"]:
                if settings["on_bad_record"] == "stop":
                    raise ValueError(
                        f"{part['first_refused']}. Correct or remove the record, or leave such records out with "
                        "--on_bad_record=skip."
                    )
                if total["refused"] < _NUM_SHOWN:
                    progress.say(f"refused: {part['first_refused']}")
            total["records"] += part["records"]
            total["refused"] += part["refused"]
            total["dropped"] += Counter(part["counts"])
            total["recognised"] += Counter(part["recognised"])
            progress.update(int(sizes[number]))
    return total


def _merge(directory: Path, staging: Path, settings: dict[str, Any], num_parts: int, total: dict[str, Any]) -> None:
    merged = merge(staging, directory, num_parts, settings["validation"], settings["test"], Progress)
    if total["refused"]:
        sources.write_shard(directory / "refused.jsonl", refused_lines(staging, num_parts))
    counts = {**total, "dropped": total["dropped"] + merged.of_joined, **merged.counts}
    sources.write_manifest(directory, sources.Manifest("", {**settings, "counts": counts}, merged.splits))


def ingest(
    inputs: Sequence[str], output_dir: str | Path, *, format: str = "auto", validation: float = 0.1, test: float = 0.1,
    on_bad_record: str = "stop", drop_images: bool = False, num_workers: int = 0,
) -> Path:  # fmt: skip
    """Turns logs into shards, validated and split by task. Does nothing that an earlier call has done.

    Args:
      inputs: files, folders (with what lies below them) and patterns.
      output_dir: gets `manifest.json`, `train/`, `validation/`, `test/` and, if some were refused, `refused.jsonl`.
      format: one of `formats.registry.FORMATS`, or "auto": each record tells.
      validation: share of the tasks, in [0, 1).
      test: share of the tasks, in [0, 1).
      on_bad_record: what cannot be read ends the call ("stop"), or is left out and listed ("skip").
      drop_images: leaves images out, instead of refusing their records.
      num_workers: processes; 0: one per CPU. The bytes do not depend on it.

    Returns:
      `output_dir`.

    Raises:
      ValueError: an impossible argument, a directory with something else, a refused record, or no episode left.
      OSError: no such input, or a full or read-only disk, naming the file.
      RuntimeError: a worker process died. What was staged whole stays.
    """
    for name, value, is_good, expected in (
        ("format", format, format == "auto" or format in FORMATS, f"auto or one of {', '.join(sorted(FORMATS))}"),
        ("validation", validation, 0 <= validation < 1, "a share in [0, 1)"),
        ("test", test, 0 <= test < 1, "a share in [0, 1)"),
        ("validation + test", validation + test, validation + test < 1, "less than 1, so that training gets some"),
        ("on_bad_record", on_bad_record, on_bad_record in ("stop", "skip"), "'stop' or 'skip'"),
        ("num_workers", num_workers, num_workers >= 0, ">= 0"),
    ):
        if not is_good:
            raise ValueError(f"ingest: {name}: expected {expected}, got {value!r}.")
    directory = Path(output_dir).expanduser()
    own = directory.resolve()
    files = [path for path in find(inputs) if not path.resolve().is_relative_to(own)]
    if not files:
        raise FileNotFoundError(f"ingest: the only logs that --input names lie in {directory}, which is the output.")
    staging = directory / _STAGING
    with only_writer("ingest", directory):
        scanned = _scan(files)
        settings = {
            "mapping_version": MAPPING_VERSION, "format": format, "validation": validation, "test": test,
            "on_bad_record": on_bad_record, "drop_images": drop_images,
            "files": [{"file": s.file, "bytes": s.num_bytes, "sha256": s.sha256} for s in scanned],
        }  # fmt: skip
        manifest = _existing(directory, settings)
        if manifest.is_complete and _is_intact(directory, manifest):
            shutil.rmtree(staging, ignore_errors=True)
            _say(f"ingest: {directory} holds these logs already, whole; nothing to do.")
            return directory
        try:
            total = _stage_all(staging, scanned, settings, num_workers)
            _merge(directory, staging, settings, sum(len(s.pieces) for s in scanned), total)
        except ValueError:  # the logs or the arguments have to change: leave no half of an ingestion in their way
            shutil.rmtree(staging, ignore_errors=True)
            (directory / "manifest.json").unlink(missing_ok=True)
            raise
        shutil.rmtree(staging, ignore_errors=True)
    return directory


def _arguments(arguments: Sequence[str] | None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(
        prog="python -m anyorder_jax.ingest",
        description="Turns logs of agents into trajectories that train reads. The defaults are those of `ingest`.",
        argument_default=argparse.SUPPRESS,  # what is not given is not passed on: defaults live in one place
        allow_abbrev=False,
    )
    parser.add_argument("--input", required=True, help="files, folders and patterns, with commas between them")
    parser.add_argument(
        "--output_dir", type=paths.typed, required=True, help="gets manifest.json, train/, validation/, test/"
    )
    flags: tuple[tuple[str, Callable[[str], Any], str], ...] = (
        ("format", str, f"auto, or one of {', '.join(sorted(FORMATS))}"),
        ("validation", float, "share of the tasks"),
        ("test", float, "share of the tasks"),
        ("on_bad_record", str, "stop, or skip and list in refused.jsonl"),
        ("num_workers", int, "processes; 0: one per CPU"),
    )
    for name, kind, text in flags:
        parser.add_argument(f"--{name}", type=kind, help=text)
    parser.add_argument("--drop_images", action="store_true", help="leave images out, instead of refusing records")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return vars(parser.parse_args(arguments))


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line. What a person can mend is one sentence and exit code 1."""
    terminal.accept_any_letter()
    options = _arguments(arguments)
    if options.pop("worker", False):
        _work(options["output_dir"])
        return
    with command.door("ingest"):
        _answer(options)


def _answer(options: dict[str, Any]) -> None:
    """Answers the command line."""
    # A comma may also be part of a name that is there.
    inputs = options.pop("input")
    inputs = [inputs] if Path(inputs).expanduser().exists() else [name for name in inputs.split(",") if name]
    try:
        directory = ingest(inputs, options.pop("output_dir"), **options)
        manifest = sources.read_manifest(directory)
    except (ValueError, OSError, ImportError, RuntimeError) as error:
        raise SystemExit(f"error: {error}") from error
    for line in summary_lines(manifest):
        print(line)
    if manifest.settings["counts"]["refused"]:
        print(f"Every refused record, with file, line and reason: {directory / 'refused.jsonl'}")
    shard = next(iter(manifest.splits.values()))[0].file
    print("\nNext:")
    where = paths.shown(directory)
    print("  " + paths.command("anyorder_jax.data.show", f"{where}/{shard}"))
    print("  " + paths.command("anyorder_jax.train", "--config=configs/own_data.py", f"--config.data.path={where}"))


if __name__ == "__main__":
    main()
