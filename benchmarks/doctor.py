"""What `python -m conversion doctor` costs: `python benchmarks/doctor.py [--gigabytes=1,2] [--out=FILE]`.

Random checkpoints of LLaDA2.0-mini's width with 64 experts a layer (0.43 GB each) and more and more layers are examined
by the real command, without repairs. Memory is the peak of what the process allocated (files that are mapped are left
out): it should grow with a layer's size, not with the number of layers.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.about import about
from benchmarks.conversion import peak_memory, write_checkpoint

ROOT = Path(__file__).parents[1]


def measure(directory: Path, num_bytes: int) -> dict[str, float]:
    """One checkpoint of at least so many bytes."""
    size = write_checkpoint(directory, num_bytes)
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    command = [sys.executable, "-m", "conversion", "doctor", str(directory), "--tries=none"]
    command += [f"--tokenizer={ROOT / 'tests' / 'golden' / 'tokenizer'}"]
    begun = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    peak = peak_memory(process)
    output = process.stdout.read().decode() if process.stdout else ""
    return {
        "gigabytes": round(size / 1e9, 2), "layers": config["num_hidden_layers"],
        "peak_allocated_gib": round(peak["RssAnon"] / 2**30, 2), "seconds": round(time.perf_counter() - begun, 1),
        "exit": process.returncode, "verdict": output.splitlines()[-1] if output else "",
    }  # fmt: skip


def main() -> None:
    """Prints the rows as JSON, and writes them where it is asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", default="1,2", help="sizes of the checkpoints")
    parser.add_argument("--directory", default="", help="where they are written (default: a temporary one)")
    parser.add_argument("--out", default="", help="a file for the rows")
    args = parser.parse_args()
    rows = []
    for size in map(float, args.gigabytes.split(",")):
        with tempfile.TemporaryDirectory(dir=args.directory or None) as folder:
            rows.append(measure(Path(folder) / "model", int(size * 1e9)))
        print(json.dumps(rows[-1]), flush=True)
    if args.out:
        content = {**about("doctor"), "rows": rows}
        Path(args.out).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
