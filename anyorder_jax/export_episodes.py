"""Export: episodes as records that other trainers read; ingested again they are the same episodes.

    python -m anyorder_jax.export_episodes --input=data/goto --format=messages --output=goto.jsonl
        [--split=train --profile=words --on_bad_record=stop --force]

    data/goto/train/*.jsonl    goal, observation, action ...    ->    goto.jsonl    {"id", "messages", "extra"} a line

Collected, played (`RUN/report/played`) or ingested episodes. Grids are written in words where they have some (BabyAI).
Branches are left out: no such format has a place for them. `formats/writing.py` says what becomes what.
"""

from __future__ import annotations

if __name__ == "__main__":
    from anyorder_jax import command

    command.begin("export_episodes")  # imports take seconds

import argparse
import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from anyorder_jax import command, paths, terminal
from anyorder_jax.data import sources
from anyorder_jax.environments import registry
from anyorder_jax.files import opened_whole
from anyorder_jax.formats import registry as formats
from anyorder_jax.formats.writing import WRITERS
from anyorder_jax.progress import Progress
from anyorder_jax.types import DECISION, Codec, Trajectory

PROFILE = "words"
"""How grids are written, where nothing else is asked."""


def export(
    input_dir: str | Path, output: str | Path, *, format: str, split: str = "", profile: str = PROFILE,
    on_bad_record: str = "stop", force: bool = False,
) -> Counter[str]:  # fmt: skip
    """Writes one file of JSON lines, whole or not at all.

    Args:
      input_dir: a directory of episodes.
      output: the file.
      format: one of `formats.writing.WRITERS`.
      split: whose episodes; "": the training split, and where there is none, all.
      profile: in which a grid is written, one of running text.
      on_bad_record: what cannot be written ends the call ("stop"), or is left out and counted ("skip").
      force: a file that is there is replaced.

    Returns:
      Counts: episodes, units, branches (left out), no_decision (episodes in which the agent does nothing, left out)
      and skipped.

    Raises:
      ValueError: an impossible argument, or an episode that cannot be written, by file and line.
      OSError: no such input, an output that is there, or a full or read-only disk, naming the file.
    """
    directory, output = Path(input_dir).expanduser(), Path(output).expanduser()
    for name, value, allowed in (
        ("format", format, tuple(WRITERS)),
        ("split", split, ("", *sources.SPLITS)),
        ("on_bad_record", on_bad_record, ("stop", "skip")),
    ):
        if value not in allowed:
            raise ValueError(
                f"export_episodes: {name}: expected one of {', '.join(filter(None, allowed))}, got {value!r}."
            )
    manifest = sources.read_manifest(directory)
    _check_output(output, directory, force)
    splits = [split] if split else _splits(manifest)
    environment, codec = _codec(directory, manifest.environment, profile)
    counts: Counter[str] = Counter()
    total = sum(shard.num_bytes for name in splits for shard in manifest.splits.get(name, ()))
    with Progress(total, "export_episodes") as progress, opened_whole(output) as file:
        for name in splits:
            on_bad = None if on_bad_record == "stop" else _skipper(counts, progress)
            for place, trajectory in sources.iterate_places(directory, name, on_bad=on_bad):
                progress.update(place.size)
                try:
                    line = _line(trajectory, environment, codec, format, counts)
                except ValueError as error:
                    sentence = f"{place.path}:{place.line}: trajectory {trajectory.id}: {error}"
                    if on_bad is None:
                        raise ValueError(sentence) from error
                    on_bad(sentence)
                    continue
                file.write(line)
        if not counts["episodes"]:
            raise ValueError(f"export_episodes: {directory} has no episode that can be written ({_left_out(counts)}).")
    return counts


def _check_output(output: Path, directory: Path, force: bool) -> None:
    if output.is_dir():
        raise IsADirectoryError(f"export_episodes: --output={output} is a directory; name a file in it.")
    if output.resolve().is_relative_to(directory.resolve()):
        raise ValueError(f"export_episodes: {output} lies in {directory}, which is the input. Choose another place.")
    if output.is_file() and not force:
        raise FileExistsError(f"export_episodes: {output} is there already. Give --force to replace it.")


def _splits(manifest: sources.Manifest) -> list[str]:
    there = [split for split in sources.SPLITS if manifest.splits.get(split)]
    return ["train"] if "train" in there or not there else there


def _codec(directory: Path, environment: str, profile: str) -> tuple[str, Codec]:
    """(environment that the written episodes are of, how their units are written)."""
    codec = registry.make_codec(environment, profile)
    if not codec.is_running_text:
        raise ValueError(
            f"export_episodes: {directory}: episodes of {environment} are grids, which profile {profile!r} does not "
            "write as text. Use a profile of running text (--profile=words), if the environment has one."
        )
    return registry.world_of_text(environment, profile) or environment, codec


def _skipper(counts: Counter[str], progress: Progress) -> Callable[[str], None]:
    def skip(sentence: str) -> None:
        counts["skipped"] += 1
        if counts["skipped"] <= 5:
            progress.say(f"skipped: {sentence}")

    return skip


def in_text(trajectory: Trajectory, environment: str, codec: Codec) -> Trajectory:
    """The trajectory with all units as text, without branches.

    Raises:
      ValueError: for a unit that the codec cannot write.
    """
    units = tuple(
        dataclasses.replace(unit, text="".join(slot.word for slot in codec.slots(unit)), data=None, branches=())
        for unit in trajectory.units
    )
    source = {**trajectory.source, "environment": environment} if environment else trajectory.source
    return dataclasses.replace(trajectory, units=units, source=source)


def _line(trajectory: Trajectory, environment: str, codec: Codec, format: str, counts: Counter[str]) -> bytes:
    """The record's line; empty for an episode in which the agent does nothing.

    Raises:
      ValueError: also when the record, read again, would be another episode.
    """
    if not any(unit.kind in DECISION for unit in trajectory.units):
        counts["no_decision"] += 1
        return b""
    written = in_text(trajectory, environment, codec)
    line = json.dumps(WRITERS[format](written), separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
    if formats.read(json.loads(line), format).units != written.units:
        raise ValueError(f"as a record of {format} it would come back as another episode")
    counts["episodes"] += 1
    counts["units"] += len(written.units)
    counts["branches"] += sum(len(unit.branches) for unit in trajectory.units)
    return line


def _left_out(counts: Counter[str]) -> str:
    said = (
        ("branches", "branches left out"),
        ("no_decision", "episodes without any decision left out"),
        ("skipped", "bad records skipped"),
    )
    return ", ".join(f"{counts[name]} {words}" for name, words in said if counts[name]) or "it is empty"


def _arguments(arguments: Sequence[str] | None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(
        prog="python -m anyorder_jax.export_episodes",
        description="Writes episodes as records of other trainers' formats. The defaults are those of `export`.",
        argument_default=argparse.SUPPRESS,  # what is not given is not passed on: defaults live in one place
        allow_abbrev=False,
    )
    parser.add_argument("--input", dest="input_dir", type=paths.typed, required=True, help="a directory of episodes")
    parser.add_argument("--output", type=paths.typed, required=True, help="the file of JSON lines that is written")
    parser.add_argument("--format", required=True, help=f"one of {', '.join(WRITERS)}")
    parser.add_argument("--split", help="train, validation or test (default: train, and where there is none, all)")
    parser.add_argument("--profile", help="of running text, in which a grid is written")
    parser.add_argument("--on_bad_record", help="stop, or skip and count")
    parser.add_argument("--force", action="store_true", help="replace a file that is there")
    return vars(parser.parse_args(arguments))


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line. What a person can mend is one sentence and exit code 1."""
    terminal.accept_any_letter()
    options = _arguments(arguments)
    with command.door("export_episodes"):
        try:
            counts = export(**options)
        except (ValueError, OSError, ImportError) as error:
            raise SystemExit(f"error: {error}") from error
    where = paths.shown(options["output"])
    left_out = _left_out(counts)
    print(
        f"{where}: {counts['episodes']} episodes, {counts['units']} units, as {options['format']}"
        + (f" ({left_out})" if left_out != "it is empty" else ""),
        file=sys.stdout,
    )
    print("\nTo read them again:")
    print("  " + paths.command("anyorder_jax.ingest", f"--input={where}", "--output_dir=data/again"))


if __name__ == "__main__":
    main()
