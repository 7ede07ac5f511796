"""What memory and devices are worth on a CPU: the tiny recipe's train step with each, in processes of their own,
in turn.

    python benchmarks/allocator.py [--repeats=5]

As glibc comes ("given back"), freed memory kept in one heap, and kept with a heap for every thread, the main thread
running the step; then the CPU as a device for every core as well, which is what `train` does. Prints the median
milliseconds of each.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

SETTINGS = ("given back", "one heap", "a heap a thread", "a device a core")


def measure(setting: str) -> float:
    """Milliseconds of one step: the median of 30, after 5 to warm up."""
    import jax
    import numpy as np

    from anyorder_jax import flops, keys, process, sharding, state, step
    from anyorder_jax.config import Config
    from anyorder_jax.model import presets
    from anyorder_jax.optimizer import make_optimizer
    from anyorder_jax.types import Batch

    config, model_config = Config(), presets.get("tiny")
    if setting in ("a heap a thread", "a device a core"):
        process.prepare(flops.cpu_devices(config, model_config) if setting == "a device a core" else 0)
    if setting != "given back" and not process.keep_freed_memory(has_one_heap=setting == "one heap"):
        raise SystemExit("keeping freed memory does not apply here (Linux with glibc and JAX on the CPU)")
    mesh = sharding.make_mesh(config.mesh)
    shapes = state.abstract_params(model_config, mesh, "float32")
    optimizer, _ = make_optimizer(config.optimizer, config.train.num_steps, shapes)
    _, placed = state.state_shardings(model_config, optimizer, mesh, "float32")
    train_step = step.make_train_step(config, model_config, optimizer, mesh, placed)
    current = state.create(model_config, optimizer, mesh, "float32", keys.key(0, "init"))
    rng = np.random.default_rng(0)
    shape = (config.train.batch_size, config.data.row_length)
    ids = rng.integers(1, model_config.vocab_size, shape, dtype=np.int32)
    zeros = np.zeros(shape, np.int32)
    batch = Batch(
        tokens=ids, targets=ids, is_target=rng.random(shape) < 0.5,
        positions=zeros + np.arange(shape[1], dtype=np.int32),
        segment_ids=zeros + 1, kind=np.ones(shape, np.int8), field=np.zeros(shape, np.int8),
        rate=np.ones(shape, np.float32), example=zeros,
    )  # fmt: skip
    placed_batch = sharding.place_batch(batch, mesh)
    times = []
    for number in range(35):
        start = time.perf_counter()
        current, _ = train_step(current, placed_batch)
        jax.block_until_ready(current)
        if number >= 5:
            times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--measure", choices=SETTINGS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(measure(options.measure))
        return
    times: dict[str, list[float]] = {what: [] for what in SETTINGS}
    for _ in range(options.repeats):
        for what, found in times.items():
            command = [sys.executable, __file__, f"--measure={what}"]
            environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
            result = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", check=True)
            found.append(float(result.stdout.split()[-1]))
    print("tiny train step: " + ", ".join(f"{what} {statistics.median(found):.1f} ms" for what, found in times.items()))


if __name__ == "__main__":
    main()
