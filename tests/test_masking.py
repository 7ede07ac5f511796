"""Masking: what may be hidden, what is asked, how often, for every order and granularity."""

import dataclasses
import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import shop
from anyorder_jax.config import ORDERS, Config, LossConfig, MaskingConfig, defaults, freeze
from anyorder_jax.data import units
from anyorder_jax.masking import rates
from anyorder_jax.masking.sampler import AnyOrderMaskSampler, complement
from anyorder_jax.task import open_task
from anyorder_jax.types import GRID_LEVELS, Field, Hidden, Kind, Tokenised

G, O, A, W = Kind.GOAL, Kind.OBSERVATION, Kind.ACTION, Kind.THOUGHT  # noqa: E741
RANDOM = ("any_order", "suffix")


def make_example(units: list[tuple[Kind, bool, list[list[int]]]], num_fillers: int = 0) -> Tokenised:
    """An example whose units are (kind, is expert, tokens of each attribute of each cell). A frame token
    stands before each unit; the last `num_fillers` tokens of every attribute of several tokens are filler."""
    fields: list[int] = []
    rows: list[list[int]] = [[], [], [], []]
    cell = attribute = 0
    for unit, (_, _, cells) in enumerate(units):
        fields.append(Field.FRAME)
        for row in rows:
            row.append(-1)
        for attributes in cells:
            for num_tokens in attributes:
                for place in range(num_tokens):
                    is_filler = place >= max(num_tokens - num_fillers, 1)
                    fields.append(Field.FILLER if is_filler else Field.TEXT)
                    token = max(rows[3]) + 1
                    for row, slot in zip(rows, (unit, cell, attribute, token), strict=True):
                        row.append(slot)
                attribute += 1
            cell += 1
    return Tokenised(
        tokens_L=np.arange(10, 10 + len(fields), dtype=np.int32),
        field_L=np.array(fields, np.int8),
        slots_GL=np.array(rows, np.int32),
        kind_U=np.array([kind for kind, _, _ in units], np.int8),
        step_U=np.arange(len(units), dtype=np.int32),
        is_expert_U=np.array([is_expert for _, is_expert, _ in units]),
    )


def episode(num_steps: int, injected: tuple[int, ...] = ()) -> Tokenised:
    """goal, o0, a0, ..., o_num_steps: observations of three cells with two attributes."""
    grid = [[1, 1], [1, 2], [1, 1]]
    units = [(G, True, [[1], [1]]), (O, True, grid)]
    for step in range(num_steps):
        units += [(A, step not in injected, [[1]]), (O, True, grid)]
    return make_example(units, num_fillers=1)


def units_of(example: Tokenised, is_chosen_L: np.ndarray) -> set[int]:
    return set(example.slots_GL[0][is_chosen_L].tolist())


def sampler(**settings) -> AnyOrderMaskSampler:
    return AnyOrderMaskSampler(MaskingConfig(**settings))


def draws(one: AnyOrderMaskSampler, example: Tokenised, num: int, progress: float = 0.0) -> list[Hidden]:
    return [one(np.random.default_rng((7, i)), example, progress) for i in range(num)]


CELLS = st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=3), min_size=1, max_size=4)
UNITS = st.lists(st.tuples(st.sampled_from([O, A, A, O, W]), st.booleans(), CELLS), max_size=8)


@st.composite
def examples(draw) -> Tokenised:
    """A goal or an observation, then units in any succession; only actions are injected."""
    units = [(G, True, draw(CELLS))] if draw(st.booleans()) else [(O, True, draw(CELLS))]
    units += [(kind, flag or kind != A, cells) for kind, flag, cells in draw(UNITS)]
    return make_example(units, draw(st.integers(0, 2)))


CONFIGS = st.builds(
    MaskingConfig,
    order=st.sampled_from([*ORDERS, "any_order:0.5,causal:0.5", ",".join(ORDERS)]),
    granularity=st.sampled_from([*GRID_LEVELS, "unit:0.5,token:0.5"]),
    rate=st.sampled_from([0.01, 0.3, 0.9, 1.0]),
    rates=st.sampled_from(["observation:0", "observation:0.5", "", "observation:3"]),
    causal_step=st.sampled_from(["last", "any"]),
)


@settings(max_examples=300, deadline=None)
@given(examples(), CONFIGS, st.integers(0, 2**32))
def test_every_draw_keeps_the_promises(example, config, seed):
    one = AnyOrderMaskSampler(config)
    hidden = one(np.random.default_rng(seed), example)
    is_frame_L = example.field_L == Field.FRAME
    is_expert_L = np.append(example.is_expert_U, False)[example.slots_GL[0]]
    scales = {O: config.role_rates()["observation"]}
    scale_L = np.array([scales.get(example.kind_U[u], 1.0) if u >= 0 else 0.0 for u in example.slots_GL[0]])

    assert hidden.is_hidden_L.shape == hidden.is_target_L.shape == (len(example),)
    assert hidden.is_hidden_L.dtype == hidden.is_target_L.dtype == bool
    assert not (hidden.is_target_L & ~hidden.is_hidden_L).any()
    assert not (hidden.is_hidden_L & is_frame_L).any()
    assert not (hidden.is_target_L & ~is_expert_L).any()
    assert not (hidden.is_target_L & (example.field_L == Field.FILLER)).any()
    assert 0 < hidden.rate <= 1
    if hidden.order == "any_order":
        assert not (hidden.is_hidden_L & ~(is_expert_L & (scale_L > 0))).any()
    elif hidden.order != "suffix":
        assert hidden.is_target_L.any()
    if (is_expert_L & (scale_L > 0)).any():
        assert hidden.is_target_L.any()
    slot_L = example.slots_GL[GRID_LEVELS.index(hidden.granularity)]
    for slot in np.unique(slot_L[hidden.is_hidden_L]):
        assert hidden.is_hidden_L[slot_L == slot].all()

    again = one(np.random.default_rng(seed), example)
    np.testing.assert_array_equal(again.is_hidden_L, hidden.is_hidden_L)
    np.testing.assert_array_equal(again.is_target_L, hidden.is_target_L)
    assert again[2:] == hidden[2:]


@settings(max_examples=200, deadline=None)
@given(examples(), CONFIGS, st.integers(0, 2**32))
def test_complement_is_what_was_left(example, config, seed):
    one = AnyOrderMaskSampler(config)
    hidden = one(np.random.default_rng(seed), example)
    rest = one.complement(example, hidden)
    unit_L = example.slots_GL[0]
    scales = rates.kind_scales(config)
    is_eligible_U = example.is_expert_U & (scales[example.kind_U] > 0)
    is_eligible_L = np.append(is_eligible_U, False)[unit_L]
    assert (rest.order, rest.granularity) == (hidden.order, hidden.granularity)
    assert not (rest.is_target_L & ~rest.is_hidden_L).any()
    assert not (rest.is_hidden_L & ~is_eligible_L).any()
    assert rest.is_target_L.any() or not is_eligible_L.any()
    assert 0 < rest.rate <= 1
    assume(not (hidden.is_hidden_L | ~is_eligible_L | (example.field_L == Field.FILLER)).all())
    assert not (rest.is_hidden_L & hidden.is_hidden_L).any()
    np.testing.assert_array_equal(is_eligible_L & ~hidden.is_hidden_L, rest.is_hidden_L)
    is_filler_L = example.field_L == Field.FILLER
    np.testing.assert_array_equal(rest.is_target_L, rest.is_hidden_L & ~is_filler_L)


def test_complement_rate_and_nothing_left():
    example = episode(3)
    hidden = sampler(rate=0.3)(np.random.default_rng(0), example)
    assert complement(example, hidden).rate == pytest.approx(0.7)
    everything = sampler(rate=1.0)(np.random.default_rng(0), example)
    rest = complement(example, everything)
    assert rest.rate == 1.0 and len(units_of(example, rest.is_target_L)) == 1
    np.testing.assert_array_equal(rest.is_hidden_L, complement(example, everything).is_hidden_L)


def test_complement_of_the_sampler_honours_scales_of_zero():
    example = episode(3)
    one = sampler(rates="observation:0")
    hidden = one(np.random.default_rng(0), example)
    kinds = example.kind_U[list(units_of(example, one.complement(example, hidden).is_hidden_L))]
    assert O not in kinds
    assert O in example.kind_U[list(units_of(example, complement(example, hidden).is_hidden_L))]


# units:               0  1   2   3   4   5   6   7
# episode(3):          g  o0  a0  o1  a1  o2  a2  o3
@pytest.mark.parametrize(
    ("settings_", "injected", "expected_hidden", "expected_targets"),
    [
        ({"order": "causal"}, (), {6, 7}, {6}),
        ({"order": "causal"}, (2,), {4, 5, 6, 7}, {4}),
        ({"order": "prefix"}, (), {3, 4, 5, 6, 7}, {3, 5, 7}),
        ({"order": "prefix"}, (0, 1), {3, 4, 5, 6, 7}, {3, 5, 7}),
        ({"order": "inverse", "rate": 1.0}, (1,), {2, 6}, {2, 6}),
        ({"order": "goal"}, (), {0}, {0}),
        ({"order": "any_order", "rate": 1.0}, (0,), {0, 1, 3, 4, 5, 6, 7}, {0, 1, 3, 4, 5, 6, 7}),
    ],
)
def test_orders_hide_and_ask_the_right_units(settings_, injected, expected_hidden, expected_targets):
    example = episode(3, injected)
    hidden = sampler(**settings_)(np.random.default_rng(0), example)
    assert units_of(example, hidden.is_hidden_L) == expected_hidden
    assert units_of(example, hidden.is_target_L) == expected_targets
    assert hidden.order == settings_["order"]


@pytest.mark.parametrize(("order", "asked"), [("causal", {2, 6}), ("forward", {3, 5, 7})])
def test_one_unit_is_asked_and_all_later_are_hidden(order, asked):
    example = episode(3, injected=(1,))
    seen = set()
    for hidden in draws(sampler(order=order, causal_step="any"), example, 60):
        (target,) = units_of(example, hidden.is_target_L)
        assert units_of(example, hidden.is_hidden_L) == set(range(target, 8))
        assert hidden.rate == 1.0
        seen.add(target)
    assert seen == asked


def test_suffix_hides_all_from_a_uniform_point_on():
    example = episode(3, injected=(2,))
    starts = Counter()
    for hidden in draws(sampler(order="suffix", rate=1e-9), example, 700):
        units = units_of(example, hidden.is_hidden_L)
        assert units == set(range(min(units), 8))
        assert units_of(example, hidden.is_target_L) == units - {6}
        starts[min(units)] += 1
    assert set(starts) == set(range(1, 8))
    assert all(60 < count < 145 for count in starts.values())  # 100 expected, s.d. 9.3


def test_suffix_adds_the_random_set_before_the_point():
    hidden = draws(sampler(order="suffix", rate=0.5), episode(3), 200)
    assert any(h.is_hidden_L[1] and not h.is_hidden_L.all() for h in hidden)  # the goal, which no point covers


@pytest.mark.parametrize("order", ["causal", "inverse"])
def test_without_an_expert_action_the_order_becomes_any_order(order):
    for example in (episode(1, injected=(0,)), episode(0)):
        hidden = sampler(order=order, granularity="cell")(np.random.default_rng(0), example)
        assert (hidden.order, hidden.granularity, hidden.rate) == ("any_order", "cell", 0.5)
        assert hidden.is_target_L.any()


@pytest.mark.parametrize("order", ["prefix", "forward"])
def test_without_a_later_observation_the_order_becomes_any_order(order):
    hidden = sampler(order=order)(np.random.default_rng(0), episode(0))
    assert hidden.order == "any_order" and hidden.is_target_L.any()


def test_goal_without_a_goal_becomes_any_order():
    assert sampler(order="goal")(np.random.default_rng(0), make_example([(O, True, [[1]])])).order == "any_order"


def test_prefix_without_actions_gives_the_first_observation():
    example = make_example([(G, True, [[1]]), *[(O, True, [[1]])] * 3])
    hidden = sampler(order="prefix")(np.random.default_rng(0), example)
    assert units_of(example, hidden.is_target_L) == {2, 3}


def test_nothing_eligible_hides_nothing():
    one = sampler(rates="observation:0,goal:0")
    example = episode(1, injected=(0,))
    hidden = one(np.random.default_rng(0), example)
    assert not hidden.is_hidden_L.any() and not one.complement(example, hidden).is_hidden_L.any()


@pytest.mark.parametrize("granularity", GRID_LEVELS)
def test_share_of_hidden_slots_is_the_rate(granularity):
    """4000 and more slots at p = 0.3: five standard deviations of a binomial are below 0.037."""
    example = episode(8)
    slot_L = example.slots_GL[GRID_LEVELS.index(granularity)]
    num_slots, num_draws = slot_L.max() + 1, 240
    hidden = draws(sampler(rate=0.3, granularity=granularity), example, num_draws)
    num_hidden = sum(len(np.unique(slot_L[h.is_hidden_L])) for h in hidden)
    total = num_slots * num_draws
    assert total >= 4000
    assert abs(num_hidden / total - 0.3) < 5 * np.sqrt(0.3 * 0.7 / total)


def test_slots_are_hidden_independently():
    """Pairs of units: P(both) = p^2. 2000 draws at p = 0.5, five standard deviations."""
    example = episode(3)
    hidden_NU = np.array([
        np.isin(np.arange(8), list(units_of(example, h.is_hidden_L)))
        for h in draws(sampler(rate=0.5), example, 2000)
    ])  # fmt: skip
    for first, second in ((0, 1), (1, 2), (3, 7)):
        share = (hidden_NU[:, first] & hidden_NU[:, second]).mean()
        assert abs(share - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 2000)


def test_scales_change_the_rate_of_their_kind():
    example = episode(8)
    one = sampler(rate=0.4, rates="observation:0.5,action:5,goal:0")
    num = 400
    counts = Counter()
    for hidden in draws(one, example, num):
        counts.update(example.kind_U[u] for u in units_of(example, hidden.is_hidden_L))
        assert hidden.rate == 0.4
    assert counts[G] == 0
    assert counts[A] == 8 * num  # 0.4 * 5 is clipped to 1
    assert abs(counts[O] / (9 * num) - 0.2) < 5 * np.sqrt(0.2 * 0.8 / (9 * num))


def test_only_observations_or_only_actions():
    example = episode(4)
    for kind, off in ((O, "action"), (A, "observation")):
        for hidden in draws(sampler(rates=f"{off}:0,goal:0"), example, 50):
            assert {example.kind_U[u] for u in units_of(example, hidden.is_hidden_L)} == {kind}


def test_an_empty_draw_hides_one_slot_uniformly():
    example = episode(3, injected=(0,))
    counts = Counter()
    for hidden in draws(sampler(rate=1e-9), example, 700):
        (unit,) = units_of(example, hidden.is_target_L)
        counts[unit] += 1
    assert set(counts) == {0, 1, 3, 4, 5, 6, 7}
    assert all(60 < count < 145 for count in counts.values())


def test_inverse_asks_actions_with_the_rate():
    example, num = episode(8), 400
    one = sampler(order="inverse", rate=0.5)
    counts = [len(units_of(example, h.is_target_L)) for h in draws(one, example, num)]
    assert abs(np.mean(counts) / 8 - 0.5) < 5 * np.sqrt(0.25 / (8 * num))
    assert one(np.random.default_rng(0), example).rate == 0.5
    (lone,) = {len(units_of(example, h.is_target_L)) for h in draws(sampler(order="inverse", rate=1e-9), example, 9)}
    assert lone == 1


def test_mixtures_occur_in_their_proportions():
    one = sampler(order="any_order:2,causal:1,goal:1", granularity="unit:3,cell:1")
    hidden = draws(one, episode(3), 2000)
    orders = Counter(h.order for h in hidden)
    for order, share in (("any_order", 0.5), ("causal", 0.25), ("goal", 0.25)):
        assert abs(orders[order] / 2000 - share) < 5 * np.sqrt(share * (1 - share) / 2000)
    grains = [h.granularity for h in hidden if h.order == "any_order"]
    assert abs(grains.count("cell") / len(grains) - 0.25) < 5 * np.sqrt(0.25 * 0.75 / len(grains))


def test_rate_is_fixed_drawn_or_scheduled():
    example = episode(3)
    assert {h.rate for h in draws(sampler(rate=0.15), example, 20)} == {0.15}
    drawn = np.array([h.rate for h in draws(sampler(rate=0.3, rate_max=0.8), example, 2000)])
    assert drawn.min() >= 0.3 and drawn.max() <= 0.8
    assert abs(drawn.mean() - 0.55) < 5 * 0.5 / np.sqrt(12 * 2000)
    assert (np.histogram(drawn, 5, (0.3, 0.8))[0] > 310).all()  # 400 expected, s.d. 18

    for schedule, quarter in (("linear", 0.2375), ("cosine", 0.15 + 0.35 * (1 - np.sqrt(0.5)) / 2)):
        config = MaskingConfig(rate=0.15, rate_end=0.5, schedule=schedule)
        at = {t: rates.scheduled(config, t) for t in (-1.0, 0.0, 0.25, 0.5, 1.0, 2.0)}
        assert at[0.0] == at[-1.0] == 0.15 and at[1.0] == at[2.0] == 0.5
        assert at[0.25] == pytest.approx(quarter) and at[0.5] == pytest.approx(0.325)
        assert AnyOrderMaskSampler(config)(np.random.default_rng(0), example, 1.0).rate == 0.5


def test_another_generator_gives_another_draw():
    """The seed moves the draw: 20 draws of 2^8 patterns are not all one."""
    example = episode(3)
    assert len({h.is_hidden_L.tobytes() for h in draws(sampler(), example, 20)}) > 10


def test_sampler_travels_to_worker_processes():
    one = sampler(order="any_order:0.5,causal:0.5")
    other = pickle.loads(pickle.dumps(one))  # our own object, as multiprocessing sends it
    example = episode(3)
    for a, b in zip(draws(one, example, 10), draws(other, example, 10), strict=True):
        np.testing.assert_array_equal(a.is_hidden_L, b.is_hidden_L)


@pytest.mark.parametrize(
    ("granularity", "expected"),
    [("unit", "##########"), ("cell", "....######"), ("attribute", "......####"), ("token", "......#...")],
)
def test_granularity_takes_the_whole_slot(granularity, expected):
    """One cell of attributes (2, 2 tokens), one of (2, 4 tokens): only the slot around token 6 is hidden."""
    example = make_example([(O, True, [[2, 2], [2, 4]])])
    shown = {
        "".join(".#"[int(x)] for x in h.is_hidden_L[1:])
        for h in draws(sampler(rate=1e-9, granularity=granularity), example, 100)
    }
    assert expected in shown


def test_partly_written_decisions_show_words_and_never_an_end():
    example = make_example([(G, True, [[2]]), (O, True, [[3]]), (A, True, [[4]]), (O, True, [[2]])])
    places = np.flatnonzero(example.slots_GL[0] == 2)
    fields = example.field_L.copy()
    fields[places[-1]] = Field.END  # two words, the first end, one more
    example = dataclasses.replace(example, field_L=fields)
    whole = AnyOrderMaskSampler(MaskingConfig(order="causal"))(np.random.default_rng(0), example)
    partly = AnyOrderMaskSampler(MaskingConfig(order="causal", partial=1.0))
    draws = [partly(np.random.default_rng(seed), example) for seed in range(2000)]
    shown_NL = np.array([whole.is_hidden_L & ~draw.is_hidden_L for draw in draws])
    share_L = shown_NL.mean(0)
    assert (np.abs(share_L[places[:2]] - 0.5) < 0.05).all() and share_L.sum() == share_L[places[:2]].sum()
    both = (shown_NL[:, places[:2]].all(1)).mean(), (~shown_NL[:, places[:2]].any(1)).mean()
    np.testing.assert_allclose(both, 1 / 3, atol=0.05)  # one probability for both: a third each, not a quarter
    for draw in draws:
        np.testing.assert_array_equal(draw.is_target_L, whole.is_target_L & draw.is_hidden_L)
    half = AnyOrderMaskSampler(MaskingConfig(order="causal", partial=0.5))
    same = [(half(np.random.default_rng(seed), example).is_hidden_L == whole.is_hidden_L).all() for seed in range(2000)]
    assert abs(np.mean(same) - (0.5 + 0.5 / 3)) < 0.05
    with pytest.raises(ValueError, match=r"masking.partial: expected a share in \[0, 1\]"):
        MaskingConfig(partial=1.5)
    with pytest.raises(ValueError, match=r"masking.partial: expected 0 with loss.normalisation 'rate'"):
        Config(masking=MaskingConfig(partial=0.5), loss=LossConfig(normalisation="rate"))


def test_the_first_end_of_a_text_is_never_shown(tmp_path):
    shop.write(tmp_path)
    config = defaults()
    config.data.path, config.data.num_episodes, config.data.num_tokens = str(tmp_path), 0, 300
    config.data.blocks = "action:16,thought:16"
    opened = open_task(freeze(config))
    partly = AnyOrderMaskSampler(MaskingConfig(order="causal", causal_step="any", partial=1.0))
    end_ids, num_shown = sorted(opened.vocabulary.frames.end_ids), 0
    for number in range(40):
        example = units.tokenise(shop.make_trajectory(number), opened.codec, opened.vocabulary, opened.layout)
        hidden = partly(np.random.default_rng(number), example)
        asked = np.unique(example.slots_GL[0][hidden.is_target_L])
        for unit in asked:
            is_end_L = (example.slots_GL[0] == unit) & np.isin(example.tokens_L, end_ids)
            assert is_end_L.any() and hidden.is_target_L[is_end_L].all()
            num_shown += np.count_nonzero((example.slots_GL[0] == unit) & ~hidden.is_hidden_L)
    assert num_shown > 40
