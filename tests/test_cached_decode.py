"""Filling with a cache: at every step the numbers of the pass over the whole row, the same tokens, the same text."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import plain_decode
import shop
from anyorder_jax import cached_decode, decode, task
from anyorder_jax.acting.generator import Generator
from anyorder_jax.config import TrainConfig, defaults, freeze
from anyorder_jax.model import presets, transformer
from anyorder_jax.model.attention import BlockCausal, BlockDiffusion
from anyorder_jax.model.cache import CachedModel, OpenBlock, updated
from anyorder_jax.pretrained.load import load_params, read_model_config
from anyorder_jax.types import Kind
from runs import tiny_config, tiny_model

GOLDEN = Path(__file__).parent / "golden"
LENGTH = 44  # no multiple of the blocks
SEEDS = np.arange(2, dtype=np.uint32)


def causal_config(size):
    return tiny_config(train=TrainConfig(num_steps=50, objective="block_diffusion", block_size=size))


class Model:
    """A model with the pass over whole rows that the cache must agree with."""

    def __init__(self, model_config, params, size):
        self.model_config, self.params, self.size = model_config, params, size
        self.cached = CachedModel(causal_config(size), model_config)
        self.whole = jax.jit(self._whole)
        self.prefill, self.window = jax.jit(self.cached.prefill), jax.jit(self._window)

    def _whole(self, tokens_BL, lengths_B):
        positions_BL = jnp.broadcast_to(jnp.arange(tokens_BL.shape[1], dtype=jnp.int32), tokens_BL.shape)
        attention = BlockCausal(self.size, (positions_BL < lengths_B[:, None]).astype(jnp.int32))
        return transformer.apply(self.model_config, self.params, tokens_BL, positions_BL, attention).logits_BLV

    def _window(self, tokens_BW, start_B, is_real_BW, kept):
        angles = self.cached.angles(kept["moe"][0].shape[3])
        hidden, own = self.cached.forward(self.params, OpenBlock(tokens_BW, start_B, is_real_BW), angles, kept)
        return transformer.head(self.params, hidden), updated(kept, own, start_B)


@pytest.fixture(
    scope="module",
    params=[("a", 4), ("b", 16), ("tiny", 8), ("routed", 8), ("deep", 8)],
    ids=lambda p: f"{p[0]}-{p[1]}",
)
def model(request):
    name, size = request.param
    if name in ("a", "b"):
        folder = GOLDEN / name / "split_bf16"
        model_config = read_model_config(folder)
        return Model(model_config, load_params(folder, model_config), size)
    model_config = dataclasses.replace(presets.get("tiny"), vocab_size=64, initializer_range=0.2)
    if name == "routed":  # LLaDA2.2: the tokens of a block choose experts together
        model_config = dataclasses.replace(model_config, block_size=4, expert_capacity=3)
    if name == "deep":  # layers in a loop
        deep = transformer.MAX_UNROLLED_LAYERS + 2
        model_config = dataclasses.replace(model_config, num_hidden_layers=deep, initializer_range=0.06)
    return Model(model_config, transformer.init(model_config, jax.random.key(1), jnp.float32), size)


def rows(model, seed, num_rows=2, first=13):
    """Rows of several lengths whose last tokens are two units of holes, in groups of 4 that no block cuts, and a hole
    of padding."""
    rng = np.random.default_rng(seed)
    top = model.model_config.vocab_size - 2
    lengths_B = rng.integers(LENGTH - 6, LENGTH + 1, num_rows).astype(np.int32)
    tokens_BL = rng.integers(3, top, (num_rows, LENGTH)).astype(np.int32)
    H = LENGTH - first
    place_BH, unit_BH, block_BH = np.zeros((3, num_rows, H), np.int32)
    block_BH -= 1
    for b, length in enumerate(lengths_B):
        places = np.r_[first:22, 24:length]  # 22 and 23: what stands between two units
        here = slice(0, len(places))
        place_BH[b, here], unit_BH[b, here] = places, places > 22
        block_BH[b, here] = np.cumsum((places % 4 == 0) | (np.diff(places, prepend=0) > 1)) - 1
        tokens_BL[b, places] = model.model_config.mask_token_id if model.model_config.mask_token_id is not None else top
    return tokens_BL, lengths_B, decode.Holes(place_BH, unit_BH, block_BH)


class Stepper:
    """`logits_of` of `plain_decode.fill` for one row: at every step both ways, which must agree on the open block
    (`largest`: how far they are apart, as a share of the largest logit, as the golden models are judged)."""

    def __init__(self, model, tokens_L, length, places, allowed_V):
        self.model, self.length, self.allowed_V, size = model, length, allowed_V, model.size
        self.start, self.places, self.num_steps, self.largest = places[0] // size * size, places, 0, 0.0
        self.kept = model.prefill(model.params, self._padded(tokens_L), np.array([length]))
        self.mask = tokens_L[places[0]]

    def _padded(self, tokens_L):
        return np.pad(tokens_L, (0, -len(tokens_L) % self.model.size))[None]

    def _pass(self, tokens_L):
        place_W = np.arange(self.start, self.start + self.model.size)
        tokens_BW = self._padded(tokens_L)[:, place_W]
        start_B = np.array([self.start], np.int32)
        logits, self.kept = self.model.window(tokens_BW, start_B, place_W[None] < self.length, self.kept)
        return np.asarray(logits)[0]

    def __call__(self, tokens_L):
        first_open = next(p for p in self.places if tokens_L[p] == self.mask)
        while first_open >= self.start + self.model.size:  # the block is finished: its final keys and values
            self._pass(tokens_L)
            self.start += self.model.size
        whole = np.asarray(self.model.whole(tokens_L[None], np.array([self.length])))[0]
        end = min(self.start + self.model.size, self.length)
        off = np.abs(self._pass(tokens_L)[: end - self.start] - whole[self.start : end]).max() / np.abs(whole).max()
        self.largest, self.num_steps = max(self.largest, float(off)), self.num_steps + 1
        return np.where(self.allowed_V, whole.astype(np.float64), -np.inf)


@pytest.mark.parametrize("threshold", [0.3, 2.0])
def test_every_step_has_the_numbers_of_the_whole_row_and_the_same_tokens(model, threshold):
    vocabulary, end = model.model_config.vocab_size, 5
    tokens_BL, lengths_B, holes = rows(model, 0)
    mask = tokens_BL[0, 13]
    allowed_V = (np.arange(vocabulary) != mask) & (np.arange(vocabulary) > 2)
    given = (model.params, tokens_BL, lengths_B, holes, allowed_V[None, None], threshold, SEEDS, decode.LIKELIEST)
    config = causal_config(model.size)
    filled = cached_decode.make_fill(config, model.model_config, end)(*given)
    uncached = decode.make_fill(config, model.model_config, end)(*given)
    np.testing.assert_array_equal(filled.tokens_BH, uncached.tokens_BH)
    np.testing.assert_array_equal(filled.passes_B, uncached.passes_B)
    np.testing.assert_allclose(filled.probability_BH, uncached.probability_BH, atol=1e-5)
    for b, length in enumerate(lengths_B):
        is_hole_H = holes.block_BH[b] >= 0
        places, units, groups = (x[b, is_hole_H].tolist() for x in holes)
        stepper = Stepper(model, tokens_BL[b], int(length), places, allowed_V)
        expected, passes = plain_decode.fill(
            stepper, tokens_BL[b], places, dict(zip(places, units, strict=True)),
            dict(zip(places, groups, strict=True)), end_id=end, threshold=threshold,
        )  # fmt: skip
        np.testing.assert_array_equal(np.asarray(filled.tokens_BH)[b, is_hole_H], expected[places])
        assert int(filled.passes_B[b]) == passes == stepper.num_steps
        assert stepper.largest <= 1e-5


def test_the_whole_rows_pass_is_the_clean_half_of_block_diffusion(model):
    tokens_BL, _, _ = rows(model, 3)
    positions_BL = np.broadcast_to(np.arange(LENGTH, dtype=np.int32), tokens_BL.shape)
    twice = np.tile(tokens_BL, 2), np.tile(positions_BL, 2)
    clean = transformer.apply(model.model_config, model.params, *twice, BlockDiffusion(model.size)).logits_BLV
    found = model.whole(tokens_BL, np.full(len(tokens_BL), LENGTH))
    np.testing.assert_allclose(found, clean[:, LENGTH:], atol=1e-5)


@pytest.fixture(scope="module")
def small():
    model_config = tiny_model(initializer_range=0.3)
    return model_config, transformer.init(model_config, jax.random.key(1), jnp.float32)


def test_what_blocks_do_not_hold_one_after_another_is_filled_without_a_cache(small):
    model_config, params = small
    tokens_BL = np.random.default_rng(0).integers(0, 36, (1, 24)).astype(np.int32)
    tokens_BL[0, 6:14] = 39
    place_BH, unit_BH = np.arange(6, 14, dtype=np.int32)[None], np.zeros((1, 8), np.int32)
    groups = {"two blocks": [0] * 8, "backwards": [1, 1, 0, 0, 0, 0, 0, 0], "in turn": [0, 0, 1, 1, 1, 1, 1, 1]}
    config = causal_config(8)  # the holes lie in blocks 0 (6, 7) and 1
    fills = cached_decode.make_fill(config, model_config, 37), decode.make_fill(config, model_config, 37)
    for name, group in groups.items():
        holes = decode.Holes(place_BH, unit_BH, np.array([group], np.int32))
        assert cached_decode.is_block_after_block(holes, 8) == (name == "in turn")
        rows = (tokens_BL, np.array([20], np.int32), holes, np.ones((1, 1, 40), bool))
        given = (params, *rows, 0.2, SEEDS[:1], decode.LIKELIEST)
        found, expected = (fill(*given) for fill in fills)
        np.testing.assert_array_equal(found.tokens_BH, expected.tokens_BH)
        np.testing.assert_array_equal(found.passes_B, expected.passes_B)


def test_draws_follow_the_distribution_of_the_whole_rows_pass(small):
    model_config, params = small
    tokens_BL = np.random.default_rng(0).integers(0, 36, (1, 24)).astype(np.int32)
    tokens_BL[0, 18] = 39
    num = 512
    hole = decode.Holes(*(np.full((num, 1), value, np.int32) for value in (18, 0, 0)))
    given = np.repeat(tokens_BL, num, 0), np.full(num, 24, np.int32), hole, np.ones((1, 1, 40), bool), 0.0
    fill = cached_decode.make_fill(causal_config(8), model_config, 37)
    seeds_B = np.arange(num, dtype=np.uint32)
    drawn, again = (np.asarray(fill(params, *given, seeds_B, decode.Draws(1.0)).tokens_BH)[:, 0] for _ in range(2))
    np.testing.assert_array_equal(drawn, again)
    p = jax.nn.softmax(Model(model_config, params, 8).whole(tokens_BL, np.array([24]))[0, 18])
    top = int(p.argmax())
    assert 0.05 < float(p[top]) < 0.95 and abs((drawn == top).mean() - float(p[top])) < 5 * np.sqrt(0.25 / num)


def test_full_attention_has_nothing_to_keep(small):
    with pytest.raises(ValueError, match=r"expected train\.objective = block_diffusion, got 'full'"):
        cached_decode.make_fill(tiny_config(), small[0], 37)


def test_the_policy_of_text_environments_writes_with_the_cache(tmp_path):
    """Holes of a decision go through the cache; the tokens are those of whole rows. Their blocks of 16 tokens begin
    anywhere, and are cut where the model's blocks of 8 begin."""
    shop.write(tmp_path)
    config = defaults()
    config.data.path, config.data.num_episodes, config.data.num_tokens = str(tmp_path), 0, 400
    config.data.context_tokens = config.data.row_length = 192
    config.data.blocks = "action:16,thought:16"
    config.train.objective, config.train.block_size = "block_diffusion", 8
    config = freeze(config)
    opened = task.open_task(config)
    model_config = dataclasses.replace(tiny_model(initializer_range=0.3), vocab_size=opened.vocabulary.size)
    params = transformer.init(model_config, jax.random.key(2), jnp.float32)
    generator = Generator(config, model_config, params, opened)
    episodes = [
        dataclasses.replace(episode, units=episode.units[:num])
        for episode, num in zip(map(shop.make_trajectory, range(2)), (3, 6), strict=True)
    ]
    questions = [generator.question(episode, (Kind.THOUGHT, Kind.ACTION), (1, 1)) for episode in episodes]
    answers = generator.fill(questions)
    end_ids = sorted(opened.vocabulary.frames.end_ids)
    uncached, seen = decode.make_fill(config, model_config, opened.vocabulary.end_id, closing_ids=end_ids), []

    def recorded(params, tokens_BL, lengths_B, holes, *more):
        seen.append(holes)
        return uncached(params, tokens_BL, lengths_B, holes, *more)

    generator._fill = recorded
    for answer, again in zip(answers, generator.fill(questions), strict=True):
        np.testing.assert_array_equal(answer.tokens_L, again.tokens_L)
        assert answer.num_passes == again.num_passes > 1
    assert seen and all(cached_decode.is_block_after_block(holes, 8) for holes in seen)
