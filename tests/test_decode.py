"""Filling: token for token what the plain implementation gives; ends last; a batch gives what single rows give."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import plain_decode
import shop
from anyorder_jax import decode, generate, state, task
from anyorder_jax.acting.decoding import Decoding
from anyorder_jax.acting.generator import Generator, with_decoding
from anyorder_jax.acting.question import Question, next_step, reaches_end
from anyorder_jax.asking.scorer import mesh_of
from anyorder_jax.config import defaults, freeze
from anyorder_jax.data import contexts, units
from anyorder_jax.model import transformer
from anyorder_jax.model.attention import Segments
from anyorder_jax.types import Kind
from runs import tiny_config, tiny_model

END, MASK, LENGTH, VOCABULARY = 37, 39, 24, 40
SEEDS = np.arange(5, dtype=np.uint32)


@pytest.fixture(scope="module")
def model():
    model_config = tiny_model(initializer_range=0.3)  # so that its probabilities differ
    params = transformer.init(model_config, jax.random.key(1), jnp.float32)

    @jax.jit
    def logits_of(tokens_BL, lengths_B):
        positions_BL = jnp.broadcast_to(jnp.arange(tokens_BL.shape[1], dtype=jnp.int32), tokens_BL.shape)
        segments = Segments((positions_BL < lengths_B[:, None]).astype(jnp.int32))
        return transformer.apply(model_config, params, tokens_BL, positions_BL, segments).logits_BLV

    return model_config, params, logits_of


@pytest.fixture(scope="module")
def fill(model):
    """Compiled once for each shape."""
    return decode.make_fill(tiny_config(), model[0], END)


def rows(seed, num_rows=5):
    """Rows with two units of holes, 2 blocks of 4 each, and where ends may stand."""
    rng = np.random.default_rng(seed)
    lengths_B = rng.integers(20, LENGTH + 1, num_rows).astype(np.int32)
    tokens_BL = rng.integers(0, 36, (num_rows, LENGTH)).astype(np.int32)
    place_BH = np.stack([np.r_[first : first + 8, first + 9 : first + 16] for first in rng.integers(1, 4, num_rows)])
    place_BH = np.concatenate([place_BH, np.zeros((num_rows, 1), int)], 1).astype(np.int32)  # and one of padding
    unit_BH = np.tile(np.r_[[0] * 8, [1] * 7, 0], (num_rows, 1)).astype(np.int32)
    block_BH = np.tile(np.r_[[0] * 4, [1] * 4, [2] * 4, [3] * 3, -1], (num_rows, 1)).astype(np.int32)
    np.put_along_axis(tokens_BL, place_BH[:, :-1], MASK, 1)
    return tokens_BL, lengths_B, decode.Holes(place_BH, unit_BH, block_BH)


@pytest.mark.parametrize("threshold", [0.0, 0.3, 2.0])
@pytest.mark.parametrize("end_bonus", [0.0, 4.0])
def test_filling_is_the_plain_one_token_for_token(model, fill, threshold, end_bonus):
    _, params, logits_of = model
    params = {**params, "head": params["head"].at[:, END].multiply(1 + end_bonus)}  # more ends to be held back
    allowed_V = np.arange(VOCABULARY) < 38
    for seed in range(3):
        tokens_BL, lengths_B, holes = rows(seed)
        filled = fill(params, tokens_BL, lengths_B, holes, allowed_V[None, None], threshold, SEEDS, decode.LIKELIEST)
        for b in range(len(tokens_BL)):
            places = holes.place_BH[b, :-1].tolist()

            def logits(tokens_L, b=b, lengths_B=lengths_B):
                with_bonus = jnp.asarray(logits_of(tokens_L[None], lengths_B[b : b + 1])[0], jnp.float32)
                raw = with_bonus.at[:, END].multiply(1 + end_bonus)
                return np.where(allowed_V, np.asarray(raw, np.float64), -np.inf)

            expected, passes = plain_decode.fill(
                logits, tokens_BL[b], places, dict(zip(places, holes.unit_BH[b].tolist(), strict=False)),
                dict(zip(places, holes.block_BH[b].tolist(), strict=False)), end_id=END, threshold=threshold,
            )  # fmt: skip
            np.testing.assert_array_equal(np.asarray(filled.tokens_BH)[b, :-1], expected[places])
            assert int(filled.passes_B[b]) == passes
            assert threshold < 1 or passes > 1


def test_draws_follow_the_distribution_and_the_seed(model, fill):
    _, params, logits_of = model
    tokens_BL, lengths_B, _ = rows(0, 1)
    tokens_BL[0, 5] = MASK
    num = 512
    hole = decode.Holes(*(np.full((num, 1), value, np.int32) for value in (5, 0, 0)))
    many = np.repeat(tokens_BL, num, 0), np.repeat(lengths_B, num)
    allowed = np.ones((1, 1, VOCABULARY), bool)
    seeds_B = np.arange(num, dtype=np.uint32)
    drawn = np.asarray(fill(params, *many, hole, allowed, 0.0, seeds_B, decode.Draws(1.0)).tokens_BH)[:, 0]
    again = np.asarray(fill(params, *many, hole, allowed, 0.0, seeds_B[::-1], decode.Draws(1.0)).tokens_BH)[:, 0]
    np.testing.assert_array_equal(drawn, again[::-1])  # a row's draws are its seed's
    p = jax.nn.softmax(logits_of(tokens_BL, lengths_B)[0, 5])
    top = int(p.argmax())
    assert abs((drawn == top).mean() - float(p[top])) < 5 * np.sqrt(0.25 / num)


@pytest.mark.parametrize("draws", [decode.Draws(1.3), decode.Draws(1.3, 0.5)])
def test_draws_are_the_plain_ones_for_the_same_noise(model, fill, draws):
    _, params, logits_of = model
    tokens_BL, lengths_B, holes = rows(1)
    allowed_V = np.arange(VOCABULARY) < 38
    filled = fill(params, tokens_BL, lengths_B, holes, allowed_V[None, None], 0.3, SEEDS, draws)
    shape = (holes.place_BH.shape[1], VOCABULARY)
    num_others = 0
    for b in range(len(tokens_BL)):
        places = holes.place_BH[b, :-1].tolist()
        passes = [jax.random.fold_in(jax.random.key(SEEDS[b]), number) for number in range(16)]
        noise = [np.asarray(jax.random.gumbel(key, shape)) for key in passes]

        def logits(tokens_L, b=b):
            raw_LV = np.asarray(logits_of(tokens_L[None], lengths_B[b : b + 1])[0], np.float64)
            return np.where(allowed_V, raw_LV, -np.inf)

        def draw(logits_V, place, number, noise=noise, places=places):
            token = plain_decode.drawn_with(noise[number][places.index(place)], logits_V, *draws)
            nonlocal num_others
            num_others += token != logits_V.argmax()
            return token

        expected, passes = plain_decode.fill(
            logits, tokens_BL[b], places, dict(zip(places, holes.unit_BH[b].tolist(), strict=False)),
            dict(zip(places, holes.block_BH[b].tolist(), strict=False)), end_id=END, threshold=0.3, draw=draw,
        )  # fmt: skip
        np.testing.assert_array_equal(np.asarray(filled.tokens_BH)[b, :-1], expected[places])
        assert int(filled.passes_B[b]) == passes
    assert num_others > 0  # of what is not the likeliest


def test_a_nucleus_is_the_smallest_set_that_holds_its_share():
    logits_V = jnp.log(jnp.array([0.05, 0.4, 0.1, 0.2, 0.2, 0.05]))
    for top_p, kept in ((0.01, [1]), (0.39, [1]), (0.41, [1, 3, 4]), (0.81, [1, 2, 3, 4]), (0.95, None), (1.0, None)):
        found_V = decode.nucleus(logits_V[None, None], top_p)[0, 0]
        expected = jnp.arange(6) if kept is None else jnp.array(kept)
        np.testing.assert_array_equal(jnp.flatnonzero(jnp.isfinite(found_V)), expected)
        np.testing.assert_array_equal(found_V[expected], logits_V[expected])


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--temperature=1", "--top_p=0"], "--top_p: expected a share of the probability above 0 and at most 1"),
        (["--temperature=1", "--top_p=nan"], "--top_p: expected a share"),
        (["--top_p=0.9"], "--top_p: nothing is drawn without --temperature"),
        (["--num_samples=2"], "--num_samples: several samples are all the same without --temperature"),
        (["--temperature=-1"], "--temperature: expected 0 (the likeliest token) or more, got -1.0"),
        (["--temperature=inf"], "--temperature: expected 0"),
        (["--threshold=nan"], "--threshold: expected a probability"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(flags, sentence):
    with pytest.raises(SystemExit) as stopped:
        generate.main(["--checkpoint=none", "--input=none", "--ask=action", *flags])
    assert str(stopped.value).startswith(f"generate: {sentence}")


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    directory = tmp_path_factory.mktemp("shop")
    shop.write(directory)
    config = defaults()
    config.data.path, config.data.num_episodes, config.data.num_tokens = str(directory), 0, 400
    config.data.context_tokens = config.data.row_length = 192
    config.data.blocks = "action:16,thought:16"
    config = freeze(config)
    opened = task.open_task(config)
    model_config = dataclasses.replace(tiny_model(initializer_range=0.3), vocab_size=opened.vocabulary.size)
    params = transformer.init(model_config, jax.random.key(2), jnp.float32)
    return config, model_config, params, opened


@pytest.fixture(scope="module")
def writer(parts):
    return parts[-1], Generator(*parts)


def test_a_batch_writes_what_single_episodes_write(writer, monkeypatch):
    opened, generator = writer
    monkeypatch.setattr("anyorder_jax.acting.generator.MAX_BLOCKS", 2)  # random weights never end; each length compiles
    assert opened.decision() == (Kind.THOUGHT, Kind.ACTION)  # two turns of three begin with a thought
    seen = zip(map(shop.make_trajectory, range(5)), (3, 6, 10, 3, 10), strict=True)
    episodes = [dataclasses.replace(episode, units=episode.units[:num]) for episode, num in seen]
    kinds = [(Kind.THOUGHT, Kind.ACTION)] * 5
    together = generator.write(episodes, kinds)
    for episode, written in zip(episodes, together, strict=True):
        (alone,) = generator.write([episode], kinds[:1])
        assert alone.units == written.units and alone.num_passes == written.num_passes
        assert [unit.kind for unit in written.units] == [Kind.THOUGHT, Kind.ACTION]
        assert all(unit.step == episode.units[-1].step for unit in written.units)


def test_samples_of_one_context_in_a_batch_are_those_of_single_runs(writer, monkeypatch):
    _, generator = writer
    monkeypatch.setattr("anyorder_jax.acting.generator.MAX_BLOCKS", 1)
    drawing = with_decoding(generator, Decoding(threshold=0.3, temperature=1.0, top_p=0.95))
    episode = shop.make_trajectory(2)
    seen = dataclasses.replace(episode, units=episode.units[:6])
    seeds = [7, 8, 9]
    together = drawing.write([seen] * 3, [(Kind.ACTION,)] * 3, seeds)
    for seed, written in zip(seeds, together, strict=True):
        one = with_decoding(generator, drawing.decoding._replace(seed=seed))
        (alone,) = one.write([seen], [(Kind.ACTION,)])
        assert alone.units == written.units and alone.num_passes == written.num_passes
    assert len({written.units for written in together}) == 3


def test_a_mesh_writes_what_one_device_writes(writer, parts, monkeypatch):
    monkeypatch.setattr("anyorder_jax.acting.generator.MAX_BLOCKS", 1)
    config, model_config, params, opened = parts
    mesh = mesh_of(config, "data:2,fsdp:2,expert:2")
    shapes = state.abstract_params(model_config, mesh, "float32")
    placed = jax.device_put(params, jax.tree.map(lambda s: s.sharding, shapes))
    on_mesh, generator = Generator(config, model_config, placed, opened), writer[1]
    episode = shop.make_trajectory(1)
    seen = [dataclasses.replace(episode, units=episode.units[:num]) for num in (3, 6, 10)]
    kinds = [(Kind.THOUGHT, Kind.ACTION)] * 3
    for ours, alone in zip(on_mesh.write(seen, kinds), generator.write(seen, kinds), strict=True):
        assert ours.units == alone.units and ours.num_passes == alone.num_passes
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3), ours.probabilities, alone.probabilities)


def test_special_tokens_are_never_written_and_only_a_units_end_may_end(writer):
    opened, generator = writer
    example = units.tokenise(shop.make_trajectory(1), opened.codec, opened.vocabulary, opened.layout)
    example = contexts.context(example, 5, 0)
    is_hidden_L = example.slots_GL[1] == example.slots_GL[1][example.slots_GL[0] == 2][0]  # the first line of unit 2
    assert not reaches_end(example, is_hidden_L).any()
    hot = with_decoding(generator, Decoding(threshold=0.0, temperature=3.0))
    (answer,) = hot.fill([Question(example, is_hidden_L, 8)])
    written = set(answer.tokens_L[is_hidden_L].tolist())
    assert not written & opened.vocabulary.reserved_ids
    np.testing.assert_array_equal(answer.tokens_L[~is_hidden_L], example.tokens_L[~is_hidden_L])
    assert (answer.probability_L[~is_hidden_L] == 1).all() and (answer.probability_L[is_hidden_L] < 1).any()


def test_what_follows_a_decision_belongs_to_the_next_step():
    episode = shop.make_trajectory(1)
    at = {n: dataclasses.replace(episode, units=episode.units[:n]) for n in (3, 5, 8, 10)}
    assert next_step(at[3], Kind.ACTION) == 0 and next_step(at[5], Kind.USER) == 1
    assert next_step(at[8], Kind.TOOL) == 1 and next_step(at[10], Kind.OBSERVATION) == 2
