"""The first minutes on a GPU: one command, a page of facts.

    bash benchmarks/gpu_kit.sh            # where there is a network: fetches what a bare GPU machine lacks
    bash benchmarks/gpu_kit.sh run        # on the card: unpacks it and runs this file, at most 8 minutes
    python benchmarks/gpu_report.py --rehearse                # every part to its end, tiny, on a CPU
    python benchmarks/gpu_report.py --page=benchmarks/results/gpu-....json    # the page of docs/gpu.md from a result

Every part is a process of its own with a time limit, and adds its rows to a JSON Lines file as it finds them: one that
hangs, raises, dies or runs out of memory costs itself alone. They run one after another, most valuable first, until the
time is over. At the end: a table in Markdown, and `gpu-CARD-DATE.json` with all rows.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gpu_parts import page
from gpu_parts.rows import BREAKAGES, Rows, Skip, append, last_line, one_line, read

ROOT = Path(__file__).parents[1]
TOTAL_SECONDS = 480
"""All parts together."""
REHEARSAL_SECONDS = 360


class Part(NamedTuple):
    """What is measured. module: its file in `gpu_parts`. seconds: its limit on a card. options: of its `run`.
    memory: the share of the card that JAX takes at once; 0: as it is needed (kernels beside another library)."""

    name: str
    module: str
    seconds: int
    options: dict[str, Any] = {}  # noqa: RUF012  (never changed)
    memory: float = 0.0
    is_ahead: bool = False
    is_tuned: bool = True


PARTS = (
    Part("machine", "machine", 45),
    Part("kernels", "kernels", 120, is_tuned=False),
    Part("golden", "golden", 75, is_tuned=False),
    Part("step_all", "steps", 110, {}, 0.95, is_ahead=True),
    Part("trace", "trace", 60, {}, 0.95),
    Part("block_diffusion", "steps", 90, {"objective": "block_diffusion"}, 0.95, is_ahead=True),
    Part("decoding", "decoding", 75, {}, 0.9, is_ahead=True),
    Part("babyai", "babyai", 75),
    Part("saving", "saving", 60, {}, 0.95),
    Part("layer", "layer", 90),
    Part("step_few", "steps", 90, {"num_layers": 2}, 0.95),
)
NAMES = tuple(part.name for part in PARTS)


def environment(part: Part, folder: Path, is_rehearsal: bool, is_compiling: bool = False) -> dict[str, str]:
    """Variables of a part's process. What the caller has set stays, but for the memory that JAX takes."""
    memory = 0.0 if is_compiling else part.memory
    own = {
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.3",
        "HF_HUB_OFFLINE": "1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
    places = [str(ROOT), str(ROOT / "site"), os.environ.get("PYTHONPATH", "")]
    forced = {
        "PYTHONPATH": os.pathsep.join(place for place in places if place),
        "PYTHONUNBUFFERED": "1",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "true" if memory else "false",
        "XLA_PYTHON_CLIENT_MEM_FRACTION": str(part.memory or 0.9),
    }
    if not part.is_tuned:
        forced["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_autotune_level=0".strip()
    if is_rehearsal:
        forced |= {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # it compiles much, computes little
    return {**own, **os.environ, **forced}


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Ends a part and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in the driver: go on without it
        process.wait(timeout=10)


def processor_seconds() -> float:
    """Of all parts that ended so far: what a busy machine does not stretch."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def start_part(part: Part, options: argparse.Namespace, is_compiling: bool = False) -> subprocess.Popen[bytes]:
    """A part's process, its output in a log."""
    command = [sys.executable, str(Path(__file__).resolve()), f"--part={part.name}", f"--out={options.out}"]
    command += ["--rehearse"] if options.rehearse else []
    command += [f"--recipe={options.recipe}"] if options.recipe else []
    command += [f"--break={kind}:{name}" for kind, name in options.breakages if name == part.name]
    command += ["--only_compile"] if is_compiling else []
    name = f"{part.name}-compiling.log" if is_compiling else f"{part.name}.log"
    with (options.out / name).open("wb") as file:
        return subprocess.Popen(
            command, cwd=ROOT, env=environment(part, options.out, options.rehearse, is_compiling), stdout=file,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip


def run_part(part: Part, options: argparse.Namespace, seconds: float) -> str:
    """Runs one part to its end or its limit; adds the row that says how it ended, and returns that."""
    start, busy = time.monotonic(), processor_seconds()
    rows, log = options.out / "rows.jsonl", options.out / f"{part.name}.log"
    process = start_part(part, options)
    try:
        code = process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        code = None
    finally:
        end_group(process)  # also what an ended part left running
    own = [row for row in read(rows) if row["part"] == part.name]
    failed = [f"{row['name']}: {row['measure']}" for row in own if row["verdict"] == "fail"]
    if code is None:
        end, note = "hung", f"ended after its {seconds:.0f} s; last line of its log: {last_line(log)}"
    elif code < 0:
        end, note = "killed", f"by {signal.Signals(-code).name}; last line of its log: {last_line(log)}"
    elif code == SKIPPED:
        end, note = "skipped", last_line(log)
    elif code:
        end, note = "fail", f"exit code {code}: {last_line(log)}"
    else:
        end, note = ("fail", "; ".join(failed)[:500]) if failed else ("pass", "")
    taken, busy = time.monotonic() - start, processor_seconds() - busy
    add_end(rows, part, end, taken, note)
    minutes = f"{taken / 60:5.2f} minutes ({busy / 60:5.2f} of processor)"
    print(f"{part.name:16s} {end:12s} {minutes} {len(own):3d} rows  {note}", flush=True)
    return end


def add_end(path: Path, part: Part, end: str, seconds: float, note: str) -> None:
    """The part's last row."""
    append(path, {
        "part": part.name, "name": "", "measure": "ended", "value": round(seconds, 2), "unit": "s", "verdict": end,
        "bound": "", "note": note, "seconds": round(seconds, 2),
    })  # fmt: skip


SKIPPED = 78
"""Exit code of a part that does not apply here (its last line says why)."""


def run_inside(part: Part, options: argparse.Namespace) -> int:
    """The part's own process."""
    breakage = next((kind for kind, name in options.breakages if name == part.name), "")
    rows = Rows(options.out / "rows.jsonl", part.name, breakage)
    folder = options.out / part.name
    folder.mkdir(exist_ok=True)
    from gpu_parts.measuring import Size  # only here: the parent never starts JAX, which would take the card

    module = importlib.import_module(f"gpu_parts.{part.module}")
    try:
        size = Size(options.rehearse, folder, options.recipe)
        if options.only_compile:
            module.compile_ahead(size, **part.options)
        else:
            module.run(rows, size, **part.options)
    except Skip as reason:
        print(reason, file=sys.stderr, flush=True)
        return SKIPPED
    except Exception as error:
        import traceback

        traceback.print_exc()
        print(one_line(error), file=sys.stderr, flush=True)
        return 1
    return 0


def run_all(options: argparse.Namespace) -> int:
    """All parts in turn, then the table and the file; 0 on a card (or rehearsed), and nothing failed, hung or died."""
    begin, deadline = datetime.datetime.now(datetime.UTC), time.monotonic() + options.seconds
    options.out.mkdir(parents=True, exist_ok=True)
    rows = options.out / "rows.jsonl"
    if rows.exists():
        raise ValueError(f"--out={options.out}: expected a new folder, this one has rows.jsonl. Choose another.")
    is_stopped = False
    chosen = [part for part in PARTS if part.name in options.parts]
    compiling: dict[str, subprocess.Popen[bytes]] = {}
    for part in chosen:
        left = deadline - time.monotonic()
        if part.name != "machine" and not compiling and not is_stopped and not options.rehearse:
            compiling = {p.name: start_part(p, options, is_compiling=True) for p in chosen if p.is_ahead}
        if part.name in compiling:
            with contextlib.suppress(subprocess.TimeoutExpired):
                compiling[part.name].wait(timeout=max(min(90, left - 30), 1))
            end_group(compiling[part.name])
            left = deadline - time.monotonic()
        if left < 5 or is_stopped:
            note = "JAX sees no GPU here" if is_stopped else f"{options.seconds:.0f} s were over"
            add_end(rows, part, "not started", 0.0, note)
            print(f"{part.name:16s} not started: {note}", flush=True)
            continue
        limit = options.limits.get(part.name, part.seconds)
        run_part(part, options, min(limit, left))
        is_stopped = part.name == "machine" and not options.rehearse and page.word(read(rows), "platform") == "cpu"
    for process in compiling.values():
        end_group(process)
    record = page.record(read(rows), begin, options.command)
    path = options.out / page.file_name(record)
    page.write(path, record)
    print(f"\n{page.text(record)}\n\n{path}", flush=True)
    ends = [row["verdict"] for row in record["rows"] if row["measure"] == "ended"]
    return int(is_stopped or bool({"fail", "hung", "killed"} & set(ends)))


def pair(separator: str, text: str, names: Sequence[str]) -> tuple[str, str]:
    """Two words of an option, the one that is a part's name checked."""
    first, found, second = text.partition(separator)
    if not found or not {first, second} & set(names):
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected two words around {separator!r}, one of {', '.join(names)}"
        )
    return first, second


def breakage(text: str) -> tuple[str, str]:
    """(kind, part) of `--break`."""
    kind, part = pair(":", text, NAMES)
    if kind not in BREAKAGES:
        raise argparse.ArgumentTypeError(f"{text!r}: expected one of {', '.join(BREAKAGES)} before the colon")
    return kind, part


def limit(text: str) -> tuple[str, float]:
    """(part, seconds) of `--limit`."""
    part, seconds = pair("=", text, NAMES)
    return part, float(seconds)


def parts(text: str) -> list[str]:
    """Names of parts, with commas between them."""
    names = text.split(",")
    if unknown := [name for name in names if name not in NAMES]:
        raise argparse.ArgumentTypeError(f"unknown part {unknown[0]!r}; known: {', '.join(NAMES)}")
    return names


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--rehearse", action="store_true", help="every part at toy size on a CPU")
    add("--out", type=Path, help="a new folder for rows, logs and the result (default: runs/gpu-report-TIME)")
    add("--parts", type=parts, default=list(NAMES), help=f"some of {','.join(NAMES)}, in their order")
    add("--recipe", default="", help="for steps and trace: a recipe of configs/ other than the card's own")
    add("--seconds", type=float, help=f"all parts together (default {TOTAL_SECONDS}; rehearsal {REHEARSAL_SECONDS})")
    add("--limit", type=limit, action="append", default=[], metavar="PART=SECONDS", help="another limit for a part")
    kinds = ", ".join(BREAKAGES)
    add("--break", type=breakage, action="append", default=[], dest="breakages", metavar="KIND:PART",
        help=f"break a part after its first row, to see that the others do not care: {kinds}")  # fmt: skip
    add("--page", type=Path, metavar="FILE", help="print a result (.json; a cut run's rows.jsonl), fill docs/gpu.md")
    add("--docs", type=Path, default=ROOT / "docs" / "gpu.md", help="the page that --page fills")
    add("--part", choices=NAMES, help=argparse.SUPPRESS)
    add("--only_compile", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    options.command = " ".join(["python benchmarks/gpu_report.py", *(sys.argv[1:] if argv is None else argv)])
    if options.page:
        record = page.load(options.page)
        page.fill(options.docs, record)
        print(page.text(record))
        return 0
    options.limits = dict(options.limit)
    options.seconds = options.seconds or (REHEARSAL_SECONDS if options.rehearse else TOTAL_SECONDS)
    time_now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
    options.out = (options.out or ROOT / "runs" / f"gpu-report-{time_now}").resolve()
    if options.part:
        return run_inside(next(part for part in PARTS if part.name == options.part), options)
    return run_all(options)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ValueError, OSError) as error:
        sys.exit(f"gpu_report: {error}")
