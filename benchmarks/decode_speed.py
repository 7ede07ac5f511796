"""How fast holes at the end of a context are filled: with what a cache keeps, and without.

    python benchmarks/decode_speed.py [--preset=tiny --contexts=256,1024,4096 --batches=1,16 --tokens_per_pass=4]
        [--attention=block_diffusion,full]

Block diffusion keeps finished blocks, and is exact. Full attention keeps what stands before the holes
(`--reuse_prefix`), an approximation: its share of equal tokens stands beside, of which random weights say little
(`decoding_ways.py` asks a trained model). A model with random weights fills 128 hidden tokens behind a context. It is
never sure, so that how many tokens a pass accepts is set: groups of `tokens_per_pass` are filled at once. Both ways run
the same passes, with block diffusion must write the same tokens, and take turns, so that a busy machine slows both;
medians over the repeats. Compiling is not timed. A batch stands only beside contexts whose scores fit in memory
(--gigabytes). Only the ratio travels to another machine. Writes benchmarks/results/decode_speed.json and exits with 1
where a bar is missed:

    block diffusion: cached is never slower at 256, and 4 times as fast at 4,096, at batch 1
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from anyorder_jax import cached_decode, decode, prefix_decode
from anyorder_jax.config import Config, TrainConfig
from anyorder_jax.model import presets, transformer
from benchmarks.about import about

RESULT = Path(__file__).parent / "results" / "decode_speed.json"
VOCABULARY, END, MASK = 1024, 1022, 1023
WAYS = {"block_diffusion": cached_decode, "full": prefix_decode}
BARS = {256: 1.0, 4096: 4.0}


def arguments() -> argparse.Namespace:
    """What is measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--preset", default="tiny", help="of model/presets.py")
    parser.add_argument("--contexts", default="256,1024,4096", help="tokens before the holes")
    parser.add_argument("--batches", default="1,16", help="rows")
    parser.add_argument("--attention", default="block_diffusion,full", help="objectives of train.objective")
    parser.add_argument("--new_tokens", type=int, default=128)
    parser.add_argument("--block_size", type=int, default=32, help="of block diffusion")
    parser.add_argument("--tokens_per_pass", type=int, default=4, help="a divisor of the block size")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--gigabytes", type=float, default=4.0, help="that uncached scores of one layer may take")
    parser.add_argument("--output", type=Path, default=RESULT)
    return parser.parse_args()


def question(context: int, batch: int, how: argparse.Namespace) -> tuple[Any, ...]:
    """Rows, lengths, holes and what may stand there."""
    length = context + how.new_tokens
    tokens_BL = np.random.default_rng(0).integers(1, END, (batch, length)).astype(np.int32)
    tokens_BL[:, context:] = MASK
    place_BH = np.tile(np.arange(context, length, dtype=np.int32), (batch, 1))
    holes = decode.Holes(place_BH, np.zeros_like(place_BH), (place_BH - context) // how.tokens_per_pass)
    allowed_V = np.arange(VOCABULARY) < END  # no end: all tokens are written
    return tokens_BL, np.full(batch, length, np.int32), holes, allowed_V[None, None]


def measure(fills: dict[str, Any], params: Any, context: int, batch: int, how: argparse.Namespace) -> dict[str, Any]:
    """One row of the result."""
    given = question(context, batch, how)
    seconds: dict[str, list[float]] = {name: [] for name in fills}
    filled = {}
    for repeat in range(how.repeats + 1):  # the first compiles
        for name, fill in fills.items():
            start = time.perf_counter()
            filled[name] = jax.device_get(fill(params, *given, 0.0, np.zeros(batch, np.uint32), decode.LIKELIEST))
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    share_same = float((filled["cached"].tokens_BH == filled["uncached"].tokens_BH).mean())
    rate = {name: batch * how.new_tokens / statistics.median(taken) for name, taken in seconds.items()}
    return {
        "context": context, "batch": batch, "passes": int(filled["cached"].passes_B.max()),
        "tokens_per_pass": how.new_tokens / float(filled["cached"].passes_B.mean()),
        "tokens_per_second": {name: round(value, 2) for name, value in rate.items()},
        "cached_is_times_as_fast": round(rate["cached"] / rate["uncached"], 2), "share_of_same_tokens": share_same,
    }  # fmt: skip


def main() -> int:
    """Measures, prints a line for each shape and writes the result."""
    how = arguments()
    model_config = dataclasses.replace(presets.get(how.preset), vocab_size=VOCABULARY, mask_token_id=MASK)
    params = transformer.init(model_config, jax.random.key(0), jnp.float32)
    rows, missed = [], []
    shapes = itertools.product(*(map(int, text.split(",")) for text in (how.contexts, how.batches)))
    for (context, batch), objective in itertools.product(shapes, how.attention.split(",")):
        train = TrainConfig(objective=objective, block_size=how.block_size)
        config = dataclasses.replace(Config(), train=train)
        ways = {"cached": WAYS[objective], "uncached": decode}
        fills = {name: way.make_fill(config, model_config, END) for name, way in ways.items()}
        scores = batch * model_config.num_attention_heads * (context + how.new_tokens) ** 2 * 4 / 1e9
        if scores > how.gigabytes:
            print(f"context {context}, batch {batch}: left out, uncached scores take {scores:.1f} GB", flush=True)
            continue
        row = {"attention": objective, **measure(fills, params, context, batch, how)}
        rows.append(row)
        print(json.dumps(row), flush=True)
        is_fast = batch != 1 or row["cached_is_times_as_fast"] >= BARS.get(context, 0)
        is_missed = objective == "block_diffusion" and not (is_fast and row["share_of_same_tokens"] == 1)
        missed += [row] if is_missed else []
    result = {
        **about("decode_speed"), "preset": how.preset, "new_tokens": how.new_tokens,
        "block_size": how.block_size, "bars_at_batch_1": BARS, "rows": rows,
    }  # fmt: skip
    how.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
