"""Reusing a prefix: what one gets by putting the prefix's old keys and values into a plain pass over the row."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import plain_decode
import shop
from anyorder_jax import decode, prefix_decode, state, task
from anyorder_jax.acting.generator import Decoding, Generator, with_decoding
from anyorder_jax.asking.scorer import mesh_of
from anyorder_jax.config import defaults, freeze
from anyorder_jax.model import transformer
from anyorder_jax.model.attention import Segments
from anyorder_jax.types import Kind
from runs import tiny_config, tiny_model

END, MASK, LENGTH, VOCABULARY = 37, 39, 96, 40


class Plain:
    """`logits_of` of `plain_decode.fill` for one row: passes over the whole row, op by op; from the second one of a
    unit on, keys and values before `start` are those of its first one."""

    def __init__(self, model_config, params, length, start, unit_of, monkeypatch):
        self.model_config, self.params, self.length, self.start = model_config, params, length, start
        self.unit_of, self.unit, self.kept, self.real = unit_of, None, [], transformer.attend
        self.num_old, self.is_first = 0, True
        monkeypatch.setattr(transformer, "attend", self.attend)

    def attend(self, q, k, v, attention, mesh=None):
        if self.is_first:
            self.kept.append((k, v))
        else:
            self.num_old += 1
            old_k, old_v = self.kept.pop(0)
            self.kept.append((old_k, old_v))  # layer by layer, round and round
            k, v = (
                jnp.concatenate([old[:, : self.start], new[:, self.start :]], 1)
                for old, new in ((old_k, k), (old_v, v))
            )
        return self.real(q, k, v, attention, mesh=mesh)

    def __call__(self, tokens_L):
        unit = min((block, unit) for place, (unit, block) in self.unit_of.items() if tokens_L[place] == MASK)[1]
        self.is_first = unit != self.unit
        if self.is_first:
            self.unit, self.kept = unit, []
        positions_1L = jnp.arange(len(tokens_L), dtype=jnp.int32)[None]
        segments = Segments((positions_1L < self.length).astype(jnp.int32))
        with jax.disable_jit():
            out = transformer.apply(self.model_config, self.params, jnp.asarray(tokens_L)[None], positions_1L, segments)
        logits_LV = np.array(out.logits_BLV[0], np.float64)
        logits_LV[:, [38, MASK]] = -np.inf
        return logits_LV


@pytest.mark.parametrize("name", ["plain", "routed"])
def test_it_is_the_plain_pass_with_the_prefixs_old_keys_and_values(name, monkeypatch):
    changes = {"block_size": 4, "expert_capacity": 3} if name == "routed" else {}
    model_config = tiny_model(initializer_range=0.3, **changes)
    params = transformer.init(model_config, jax.random.key(1), jnp.float32)
    rng = np.random.default_rng(0)
    lengths_B = np.array([94, 91], np.int32)
    tokens_BL = rng.integers(0, 36, (2, LENGTH)).astype(np.int32)
    firsts = (70, 73)
    place_BH = np.stack([np.r_[first : first + 7, first + 9 : first + 16] for first in firsts]).astype(np.int32)
    unit_BH = np.tile(np.r_[[4] * 7, [5] * 7], (2, 1)).astype(np.int32)
    block_BH = np.tile(np.r_[[0] * 4, [1] * 3, [2] * 4, [3] * 3], (2, 1)).astype(np.int32)
    np.put_along_axis(tokens_BL, place_BH, MASK, 1)
    holes, allowed_V = decode.Holes(place_BH, unit_BH, block_BH), np.arange(VOCABULARY) < 38
    assert prefix_decode.window(lengths_B, holes, 4 if changes else 1) == 32
    given = (params, tokens_BL, lengths_B, holes, allowed_V[None, None], 0.3, np.zeros(2, np.uint32), decode.LIKELIEST)
    filled = prefix_decode.make_fill(tiny_config(), model_config, END)(*given)
    exact = decode.make_fill(tiny_config(), model_config, END)(*given)
    for b, first in enumerate(firsts):
        places = place_BH[b].tolist()
        unit_of = dict(zip(places, zip(unit_BH[b].tolist(), block_BH[b].tolist(), strict=True), strict=True))
        start = min(first, LENGTH - 32)
        logits = Plain(
            model_config, params, int(lengths_B[b]), start // 4 * 4 if changes else start, unit_of, monkeypatch
        )
        expected, passes = plain_decode.fill(
            logits, tokens_BL[b], places, dict(zip(places, unit_BH[b].tolist(), strict=True)),
            dict(zip(places, block_BH[b].tolist(), strict=True)), end_id=END, threshold=0.3,
        )  # fmt: skip
        monkeypatch.undo()
        np.testing.assert_array_equal(np.asarray(filled.tokens_BH)[b], expected[places])
        assert int(filled.passes_B[b]) == passes and logits.num_old > 0
    assert not np.allclose(filled.probability_BH, exact.probability_BH, atol=1e-4)  # it is an approximation


def test_short_rows_are_filled_exactly_and_one_pass_a_unit_is_exact():
    model_config = tiny_model(initializer_range=0.3)
    params = transformer.init(model_config, jax.random.key(1), jnp.float32)
    tokens_BL = np.random.default_rng(0).integers(0, 36, (1, LENGTH)).astype(np.int32)
    fills = [way.make_fill(tiny_config(), model_config, END) for way in (prefix_decode, decode)]
    for first, threshold in ((20, 0.3), (80, 0.0)):  # the first window is too wide
        place_BH = np.arange(first, first + 8, dtype=np.int32)[None]
        holes = decode.Holes(place_BH, np.zeros_like(place_BH), np.zeros_like(place_BH))
        rows = (tokens_BL, np.array([LENGTH], np.int32), holes, np.arange(VOCABULARY)[None, None] < 37)
        given = (params, *rows, threshold, np.zeros(1, np.uint32), decode.Draws(1.0))
        ours, exact = (fill(*given) for fill in fills)
        np.testing.assert_array_equal(ours.tokens_BH, exact.tokens_BH)
        np.testing.assert_allclose(ours.probability_BH, exact.probability_BH, rtol=1e-4)
        assert (ours.passes_B == exact.passes_B).all()


def test_a_generator_reuses_when_it_is_told_to(tmp_path):
    shop.write(tmp_path)
    config = defaults()
    config.data.path, config.data.num_episodes, config.data.num_tokens = str(tmp_path), 0, 400
    config.data.context_tokens = config.data.row_length = 192
    config.data.blocks = "action:16,thought:16"
    config = freeze(config)
    opened = task.open_task(config)
    model_config = dataclasses.replace(tiny_model(initializer_range=0.3), vocab_size=opened.vocabulary.size)
    params = transformer.init(model_config, jax.random.key(2), jnp.float32)
    generator = Generator(config, model_config, params, opened)
    episode = shop.make_trajectory(1)
    seen = dataclasses.replace(episode, units=episode.units[:10])
    question = generator.question(seen, (Kind.THOUGHT, Kind.ACTION), (1, 1))
    reusing = with_decoding(generator, Decoding(threshold=0.3, reuse_prefix=True))
    exact = with_decoding(generator, Decoding(threshold=0.3))
    one, two = (g.fill([question] * 2) for g in (reusing, exact))
    assert not np.allclose(one[0].probability_L, two[0].probability_L, atol=1e-4)
    np.testing.assert_array_equal(one[0].tokens_L, one[1].tokens_L)
    (alone,) = reusing.fill([question])
    np.testing.assert_array_equal(one[0].tokens_L, alone.tokens_L)
    shapes = state.abstract_params(model_config, mesh_of(config, "data:2"), "float32")
    placed = jax.device_put(params, jax.tree.map(lambda s: s.sharding, shapes))
    with pytest.raises(ValueError, match=r"--reuse_prefix: expected weights on one device, they lie on 2"):
        Generator(config, model_config, placed, opened, Decoding(reuse_prefix=True))
