"""Filling holes and scoring with all layers of mini: milliseconds a pass, tokens/s, memory beside the weights."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from anyorder_jax import decode, sharding
from anyorder_jax.asking import scorer
from anyorder_jax.model import transformer
from gpu_parts.measuring import FULL, GIB, Size, peak_bytes, recipe, seconds_of
from gpu_parts.rows import Rows

BLOCK = 32
END = 2


class Setting:
    """Shapes, the model, its functions: one place, so that what is compiled ahead is what runs."""

    def __init__(self, size: Size) -> None:
        self.config, self.model = recipe(size, FULL, size.of(0, toy=2))
        self.context, self.hole, self.batches = size.of((1024, 128, (1, 16)), toy=(48, 16, (1, 2)))
        self.length = size.of(4096, toy=64)
        self.mesh = sharding.make_mesh(self.config.mesh, jax.devices()[:1])
        self.init = jax.jit(lambda key: transformer.init(self.model, key, "bfloat16"))
        self.fill = decode.make_fill(self.config, self.model, END)
        self.score = jax.jit(scorer.make_score(self.config, self.model, self.mesh, 2))

    def filling(self, rows: int) -> tuple[Any, ...]:
        """Arguments of `fill` behind the parameters: one token a pass, which random weights allow."""
        length = self.context + self.hole
        tokens = np.random.default_rng(0).integers(3, self.model.vocab_size - 1, (rows, length), dtype=np.int32)
        place = np.broadcast_to(np.arange(self.context, length, dtype=np.int32), (rows, self.hole))
        tokens[:, self.context :] = self.model.vocab_size - 1
        holes = decode.Holes(place, np.zeros_like(place), (place - self.context) // min(BLOCK, self.hole))
        lengths = np.full(rows, length, np.int32)
        allowed = np.arange(self.model.vocab_size)[None, None] != END  # an end would end the unit early
        return tokens, lengths, holes, allowed, np.float32(2), np.zeros(rows, np.uint32), decode.LIKELIEST

    def scoring(self) -> tuple[Any, ...]:
        """Arguments of `score` behind the parameters: two rows, a quarter of the tokens asked."""
        shape = (2, self.length)
        tokens = np.random.default_rng(0).integers(3, self.model.vocab_size - 1, shape, dtype=np.int32)
        place = np.broadcast_to(np.arange(self.length, dtype=np.int32), shape)
        return tokens, tokens, np.full(2, self.length, np.int32), place, tokens, np.full(2, self.length // 4, np.int32)


def compile_ahead(size: Size) -> None:
    """Puts the programs into the cache."""
    setting = Setting(size)
    params = jax.eval_shape(setting.init, jax.random.key(0))
    setting.init.lower(jax.random.key(0)).compile()
    for rows in setting.batches:
        setting.fill.lower(params, *setting.filling(rows)).compile()  # type: ignore[attr-defined]
    setting.score.lower(params, *setting.scoring()).compile()


def run(rows: Rows, size: Size) -> None:
    """Filling at each batch, then scoring."""
    setting = Setting(size)
    params = jax.block_until_ready(setting.init(jax.random.key(0)))
    weights = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(params)) / GIB
    what = f"mini, {setting.model.num_hidden_layers} layers, bfloat16"
    rows.add(what, "weights", weights, "GiB")
    for batch in setting.batches:
        arguments = jax.device_put(setting.filling(batch)[:-1])
        filled = setting.fill(params, *arguments, decode.LIKELIEST)
        passes = int(np.asarray(filled.passes_B).max())
        seconds = seconds_of(
            lambda arguments=arguments: setting.fill(params, *arguments, decode.LIKELIEST), size.of(1, toy=1)
        )
        name = f"filling {setting.hole} of {setting.context + setting.hole} tokens, batch {batch}"
        rows.judge(name, "every pass fills one token", passes == setting.hole, f"{passes} passes")
        rows.add(name, "a pass", seconds / passes * 1e3, "ms", note="full attention, nothing cached")
        rate = batch * setting.hole / seconds
        rows.add(name, "tokens/s", rate, note="one token of a row a pass; a sure model accepts several")
    before = peak_bytes()
    arguments = jax.device_put(setting.scoring())
    seconds = seconds_of(lambda: setting.score(params, *arguments), size.of(5, toy=1))
    name = f"scoring 2 rows of {setting.length}, a quarter asked"
    rows.add(name, "tokens/s", 2 * setting.length / seconds, note="tokens read")
    if peak_bytes() > before:
        rows.add(name, "peak beside the weights", peak_bytes() / GIB - weights, "GiB", at_most=6)
    memory = setting.score.lower(params, *arguments).compile().memory_analysis()
    rows.add(name, "the compiler's temporaries", memory.temp_size_in_bytes / GIB, "GiB", at_most=6)
    assert jnp.isfinite(setting.score(params, *arguments)[0][:, : setting.length // 4]).all()
