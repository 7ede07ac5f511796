"""Logs through the four commands of docs/own_data.md: `python benchmarks/own_data.py --logs=FOLDER [--out=FILE]`.

    every file of FOLDER ─► ingest ─► train, a few updates ─► evaluate ─► generate an action, observation, thought, goal

Each command is a process of its own, as a person types it. A command that fails leaves its last sentence in the table,
and what needs it is left out. A log that is refused for its images is ingested again with --drop_images, as the
sentence says. The table (JSON) has a row a file: what went well, seconds of each command (with imports and compiling).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from anyorder_jax.data import sources
from anyorder_jax.files import write_whole
from anyorder_jax.ingestion.files import find

ROOT = Path(__file__).parents[1]
ASKS = ("action", "observation", "thought", "goal")


class Row:
    """What became of one file."""

    def __init__(self, file: Path):
        self.table: dict[str, Any] = {"file": file.name, "bytes": file.stat().st_size, "seconds": {}, "said": {}}

    def run(self, name: str, module: str, *arguments: str) -> bool:
        """Runs a command; keeps its seconds, and its last sentence where it fails."""
        start = time.perf_counter()
        command = [sys.executable, "-m", f"anyorder_jax.{module}", *arguments]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False)
        self.table["seconds"][name] = round(time.perf_counter() - start, 1)
        is_fine = ended.returncode == 0
        warnings = [line for line in ended.stderr.splitlines() if line.startswith("warning:")]
        said = warnings if is_fine else ended.stderr.strip().splitlines()[-1:] or [f"exit status {ended.returncode}"]
        if said:
            self.table["said"][name] = said[-1]
        return is_fine


def try_file(file: Path, work: Path, num_steps: int, num_tokens: int) -> dict[str, Any]:
    """The row of one file of logs.

    Args:
      file: of logs.
      work: for its data and its run.
      num_steps: updates.
      num_tokens: of a context.
    """
    row, data, run = Row(file), work / "data", work / "run"
    flags = [f"--input={file}", "--format=auto", f"--output_dir={data}"]
    is_ingested = row.run("ingest", "ingest", *flags)
    if not is_ingested and "--drop_images" in row.table["said"]["ingest"]:
        is_ingested = row.run("ingest --drop_images", "ingest", *flags, "--drop_images")
    row.table["ingested"] = is_ingested
    if not is_ingested:
        return row.table
    manifest = sources.read_manifest(data)
    row.table["episodes"] = {split: sum(s.num_episodes for s in shards) for split, shards in manifest.splits.items()}
    shard = data / next(reversed(manifest.splits.values()))[0].file
    row.table["shown"] = row.run("data.show", "data.show", str(shard))
    row.table["trained"] = row.run(
        "train", "train", "--config=configs/own_data.py", f"--config.data.path={data}", f"--workdir={run}",
        f"--config.train.num_steps={num_steps}", "--config.train.batch_size=4",
        f"--config.data.context_tokens={num_tokens}", f"--config.data.row_length={num_tokens}",
    )  # fmt: skip
    if not row.table["trained"]:
        return row.table
    where = f"--checkpoint={run}"
    row.table["evaluated"] = row.run("evaluate", "evaluate", where, "--num_episodes=2", "--num_windows=2")
    row.table["generated"] = {
        ask: row.run(f"generate {ask}", "generate", where, f"--input={shard}", f"--ask={ask}") for ask in ASKS
    }
    return row.table


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--logs", required=True, help="a folder of logs, each file by itself")
    parser.add_argument("--out", default="", help="a .json for the table")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--context", type=int, default=256, help="tokens")
    parser.add_argument("--jobs", type=int, default=1, help="files at a time")
    flags = parser.parse_args(arguments)

    def one(file: Path) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as work:
            row = try_file(file.resolve(), Path(work), flags.steps, flags.context)
        told = json.dumps(row).replace(work, "WORK").replace(str(file.resolve()), file.name)
        print(told, flush=True)
        return json.loads(told)

    rows = []
    about = {
        "steps": flags.steps, "context_tokens": flags.context, "jobs": flags.jobs, "python": platform.python_version(),
        "load_before": os.getloadavg()[0], "processors": os.cpu_count(),
    }  # fmt: skip
    with ThreadPoolExecutor(flags.jobs) as pool:
        for row in pool.map(one, find([flags.logs])):
            rows.append(row)
            if flags.out:
                write_whole(flags.out, json.dumps({"about": about, "rows": rows}, indent=1, ensure_ascii=False) + "\n")
    failed = [row["file"] for row in rows if not (row.get("evaluated") and all(row["generated"].values()))]
    print(
        f"{len(rows) - len(failed)} of {len(rows)} files went through all commands" + f"; not {failed}" * bool(failed)
    )
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
