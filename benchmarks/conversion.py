"""How long conversions take beside `cp` of the same bytes, and how much memory: `python benchmarks/conversion.py`.

A synthetic split checkpoint (64 experts of LLaDA2.0-mini's width, random bfloat16 bytes) is written to
`--directory`, then in each round every command runs beside a `cp` of the bytes it reads on the same disk, in turn after
and before it. Both find the same: nothing waiting to be written, their input alone in the page cache, and free memory
that has been touched a moment ago; what they do not need is held by this process (a virtual machine may have given free
memory back to its host, and getting it again takes up to 2 seconds per GB, of whichever comes first). Neither flushes.
Times are until the command returns, until `sync` has put the bytes on the disk, and of all cores (user and system).
Memory is that of the whole child process, sampled every 5 ms from /proc/PID/status: anonymous (what it allocated) and
file-mapped (libraries, mapped files) apart.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from anyorder_jax import files, paths
from anyorder_jax.pretrained import names
from anyorder_jax.pretrained.shards import Spec
from conversion.writing import config_text, make_plan, written

CONFIG = {
    "architectures": ["LLaDA2MoeModelLM"], "model_type": "llada2_moe", "vocab_size": 32_768, "hidden_size": 2048,
    "intermediate_size": 5120, "num_hidden_layers": 2, "first_k_dense_replace": 1, "num_attention_heads": 16,
    "num_key_value_heads": 4, "head_dim": 128, "partial_rotary_factor": 0.5, "rotary_dim": 64, "rope_theta": 600_000,
    "rope_scaling": None, "max_position_embeddings": 16_384, "rms_norm_eps": 1e-6, "use_bias": False,
    "use_qkv_bias": False, "num_experts": 64, "num_experts_per_tok": 8, "num_shared_experts": 1,
    "moe_intermediate_size": 512, "n_group": 8, "topk_group": 4, "routed_scaling_factor": 2.5,
    "norm_topk_prob": True, "score_function": "sigmoid", "tie_word_embeddings": False, "hidden_act": "silu",
    "initializer_range": 0.02, "pad_token_id": 0, "torch_dtype": "bfloat16",
}  # fmt: skip


def specs_of(config: dict[str, object]) -> list[Spec]:
    """Every tensor of a split checkpoint, bfloat16."""
    places = names.expected(names.Dims.from_config(config, "benchmark"), "split")
    return [Spec(name, "BF16", place.shape) for name, place in places.items()]


def write_checkpoint(directory: Path, num_bytes: int) -> int:
    """Writes a checkpoint of at least `num_bytes` with as many layers as that takes; returns its bytes."""
    config = dict(CONFIG)
    while sum(spec.num_bytes for spec in specs_of(config)) < num_bytes:
        config["num_hidden_layers"] += 1  # type: ignore[operator]
    specs = specs_of(config)
    rng = np.random.default_rng(0)
    # finite bfloat16 numbers of ordinary size, one block written over and over from changing starts
    block = rng.normal(scale=0.02, size=2**23).astype(np.float32).view(np.uint16)[1::2].tobytes()
    block = block * 2
    with written(make_plan(directory, specs, config_text(config, "split"))) as target:
        for spec in specs:
            descriptor, offset = target.place(spec.name)
            left = spec.num_bytes
            while left:
                start = 2 * int(rng.integers(2**22))
                left -= (count := os.pwrite(descriptor, block[start : start + min(left, 2**23)], offset))
                offset += count
    return sum(path.stat().st_size for path in directory.iterdir())


def peak_memory(process: subprocess.Popen[bytes]) -> dict[str, int]:
    """Waits for the process; returns the peaks of its anonymous and file-mapped resident memory in bytes."""
    peak = {"RssAnon": 0, "RssFile": 0, "RssShmem": 0}
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
        except OSError:
            break
        for key in peak:
            if f"{key}:" in status:
                peak[key] = max(peak[key], 1024 * int(status.split(f"{key}:")[1].split()[0]))
        time.sleep(0.005)
    process.wait()
    return peak


RESERVE = 200 * 2**20  # free memory that is left alone
TOUCH = "import mmap, sys; m = mmap.mmap(-1, int(sys.argv[1])); [m.write(b'1' * 2**20) for _ in range(len(m) >> 20)]"


def _memory(kind: str) -> int:
    """Bytes by /proc/meminfo."""
    return 1024 * int(Path("/proc/meminfo").read_text(encoding="utf-8").split(f"{kind}:")[1].split()[0])


def held_memory(num_bytes_needed: int) -> mmap.mmap:
    """Touched memory that leaves `num_bytes_needed` of what is available; a context manager."""
    num_mib = max(1, (_memory("MemAvailable") - num_bytes_needed) >> 20)
    held = mmap.mmap(-1, num_mib << 20)
    for _ in range(num_mib):
        held.write(b"1" * 2**20)
    return held


def forget(directory: Path) -> None:
    """Takes a directory's files out of the page cache."""
    for path in directory.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def prepare(source: Path) -> None:
    """Puts what is written on the disk, reads `source` into the page cache and takes its neighbors out, and touches
    free memory (last: a host takes back within 2 seconds what is free)."""
    os.sync()
    for directory in source.parent.iterdir():
        if directory != source:
            forget(directory)
    files = [path for path in source.rglob("*") if path.is_file()]
    subprocess.run(["cat", *map(str, files)], stdout=subprocess.DEVNULL, check=True)
    subprocess.run([sys.executable, "-c", TOUCH, str(max(2**20, _memory("MemFree") - RESERVE))], check=True)


def measure(command: Sequence[str], source: Path, output: Path) -> dict[str, float]:
    """Runs a command that reads `source` and writes `output`; seconds until it returns, until the disk has it, and
    memory peaks."""
    shutil.rmtree(output, ignore_errors=True)
    prepare(source)
    start = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, cwd=Path(__file__).parents[1])
        peak = peak_memory(process)
        seconds = time.perf_counter() - start
        errors.seek(0)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} failed: {errors.read().decode()[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    os.sync()
    return {"seconds": seconds, "synced_seconds": time.perf_counter() - start, "cpu_seconds": cpu_seconds, **peak}


def run(directory: Path, num_bytes: int, rounds: int, is_orbax: bool) -> dict[str, dict[str, float]]:
    """Measures every command `rounds` times, each beside a `cp`; medians, the ratio of medians and the median of the
    rounds' ratios (what runs second of a pair is slower, so they differ), peaks."""
    source, copy, merged, split = (directory / name for name in ("source", "copy", "merged", "split"))
    size = write_checkpoint(source, num_bytes)
    print(
        f"{size / 1e9:.2f} GB in {len(list(source.glob('*.safetensors')))} shard(s), {rounds} rounds",
        flush=True,
    )
    tool = [sys.executable, "-m", "conversion"]
    held, back = directory / "held", directory / "back"
    commands = {
        "merge": ([*tool, "merge", "--input_path", str(source), "--output_path", str(merged)], source, merged),
        "split": ([*tool, "split", "--input_path", str(merged), "--output_path", str(split)], merged, split),
        "to_orbax": ([*tool, "to_orbax", "--input_path", str(source), "--output_path", str(held)], source, held),
        "to_hf": (
            [*tool, "to_hf", "--checkpoint", str(held), "--output_path", str(back), "--layout", "split"], held, back
        ),
    }  # fmt: skip
    commands = {name: command for name, command in commands.items() if ("to_" in name) == is_orbax}
    done_with = {"split": (split, merged), "to_hf": (back, held)}  # so that memory is left to the others
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ("cp -r", *commands)}
    for number in range(rounds):
        for name, (command, read, output) in commands.items():
            for is_cp in (True, False) if number % 2 == 0 else (False, True):
                if is_cp:
                    found["cp -r"].append(measure(["cp", "-r", str(read), str(copy)], read, copy))
                    shutil.rmtree(copy)
                else:
                    result = measure(command, read, output)
            found[name].append(result | {"its_cp": found["cp -r"][-1]["seconds"]})
            print(f"{name}: {found['cp -r'][-1]['seconds']:.2f} s cp, {result['seconds']:.2f} s, "
                  f"load {os.getloadavg()[0]:.1f}", flush=True)  # fmt: skip
            for folder in done_with.get(name, ()):
                shutil.rmtree(folder)
    return {
        name: {
            "best_seconds": min(result["seconds"] for result in results),
            **{key: statistics.median(r[key] for r in results) for key in ("seconds", "synced_seconds")},
            "ratio": statistics.median(r["seconds"] for r in results)
            / statistics.median(r.get("its_cp", r["seconds"]) for r in results),
            "median_ratio": statistics.median(r["seconds"] / r.get("its_cp", r["seconds"]) for r in results),
            "cpu_seconds": min(result["cpu_seconds"] for result in results),
            **{key: max(result[key] for result in results) for key in ("RssAnon", "RssFile")},
        }
        for name, results in found.items()
    }


def main() -> None:
    """Prints the table; `--json` also writes it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=4.0, help="size of the checkpoint (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--orbax", action="store_true", help="to_orbax and to_hf (default: merge and split)")
    parser.add_argument(
        "--directory", type=paths.typed, help="where to write, four times the size (default: temporary)"
    )
    parser.add_argument("--json", type=paths.typed, help="file for the numbers")
    args = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="conversion-benchmark-", dir=args.directory))
    num_bytes = int(args.gigabytes * 1e9)
    try:
        with held_memory((3 if args.orbax else 2) * num_bytes + 3 * 2**29):
            table = run(directory, num_bytes, args.rounds, args.orbax)
    finally:
        shutil.rmtree(directory)
    if args.json:  # before it is printed: nobody may be reading
        files.write_whole(Path(args.json), json.dumps(table, indent=2) + "\n")
    titles = ("best", "median", "synced", "core", "x its cp", "by round")
    print(f"{'seconds':<10}" + "".join(f"{title:>9}" for title in titles) + "  anonymous MiB  file MiB")
    for name, row in table.items():
        times = ("best_seconds", "seconds", "synced_seconds", "cpu_seconds", "ratio", "median_ratio")
        print(
            f"{name:<10}"
            + "".join(f"{row[key]:9.2f}" for key in times)
            + f"{row['RssAnon'] / 2**20:15.1f} {row['RssFile'] / 2**20:9.1f}"
        )


if __name__ == "__main__":
    main()
