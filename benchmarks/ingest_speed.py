"""Ingestion speed: MB a second and peak memory of `ingest` on generated chat logs.

    python benchmarks/ingest_speed.py [--megabytes=200 --kind=jsonl --num_workers=2]

The logs are OpenAI messages with tool calls, thoughts and results of some hundred characters, about 7 kB an episode;
half of the tasks have several. Measured is the whole call, from the command line: looking through the
files, reading, joining, splitting, writing. Memory is the largest resident size of any one process.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WORDS = ("the", "a", "key", "door", "shelf", "file", "open", "take", "read", "page", "user", "price", "order", "result")


def sentence(rng: random.Random, num_words: int) -> str:
    return " ".join(rng.choices(WORDS, k=num_words))


def episode(rng: random.Random, number: int) -> dict[str, Any]:
    task = rng.randrange(1 + number * 2)
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "You are an agent with tools. " + "Follow the rules. " * 20},
        {"role": "user", "content": f"Task {task}: {sentence(random.Random(task), 30)}"},
    ]
    for turn in range(rng.randint(2, 10)):
        calls = [
            {
                "id": f"c{turn}_{i}",
                "type": "function",
                "function": {"name": "search", "arguments": json.dumps({"query": sentence(rng, 4), "page": i})},
            }
            for i in range(rng.choice((1, 1, 1, 2)))
        ]
        messages.append(
            {"role": "assistant", "content": None, "reasoning_content": sentence(rng, 40), "tool_calls": calls}
        )
        for called in reversed(calls):
            result = json.dumps({"items": [sentence(rng, 12) for _ in range(rng.randint(2, 12))]})
            messages.append({"role": "tool", "tool_call_id": called["id"], "content": result})
    messages.append({"role": "assistant", "content": sentence(rng, 25)})
    return {"messages": messages}


def lines(num_bytes: int) -> Iterator[str]:
    rng = random.Random(0)
    number = written = 0
    while written < num_bytes:
        line = json.dumps(episode(rng, number))
        yield line
        number, written = number + 1, written + len(line) + 1


def write_logs(path: Path, kind: str, num_bytes: int) -> None:
    with open(path, "w", encoding="utf-8") as file:
        if kind == "json":
            file.write("[\n")
        for number, line in enumerate(lines(num_bytes)):
            file.write(line if kind == "jsonl" else (",\n" if number else "") + line)
            if kind == "jsonl":
                file.write("\n")
        if kind == "json":
            file.write("\n]\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--kind", choices=("jsonl", "json"), default="jsonl")
    parser.add_argument("--num_workers", type=int, default=2)
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        logs = Path(folder) / f"logs.{flags.kind}"
        write_logs(logs, flags.kind, flags.megabytes * 10**6)
        size = logs.stat().st_size / 1e6
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        clock = time.perf_counter()
        subprocess.run(
            [
                sys.executable, "-m", "anyorder_jax.ingest", f"--input={logs}", f"--output_dir={folder}/out",
                f"--num_workers={flags.num_workers}",
            ],
            check=True,
        )  # fmt: skip
        seconds = time.perf_counter() - clock
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(
        f"{size:.0f} MB ({flags.kind}) in {seconds:.1f} s: {size / seconds:.1f} MB/s; {cpu:.1f} CPU seconds, "
        f"{size / cpu:.1f} MB per CPU second; peak {after.ru_maxrss / 1024:.0f} MB in one process; "
        f"1 GB would take {1000 * seconds / size:.0f} s"
    )


if __name__ == "__main__":
    main()
