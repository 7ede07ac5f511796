"""Statistics over training seeds: the level of the test where seeds scatter, no test of one seed, libraries' values."""

import math

import numpy as np
import pytest
from scipy import stats

from anyorder_jax import statistics
from anyorder_jax.evaluation import report
from anyorder_jax.statistics import (
    adjusted,
    holm,
    over_seeds,
    paired_difference,
    paired_over_seeds,
    student_interval,
)

NUM_EPISODES = 200


def runs(rate_S, num_episodes=NUM_EPISODES, rng=None):
    """Numerators and denominators [S, E] of runs that succeed at these rates."""
    rng = rng or np.random.default_rng(0)
    successes_S = rng.binomial(num_episodes, rate_S)
    return (np.arange(num_episodes) < successes_S[:, None]).astype(float), np.ones((len(rate_S), num_episodes))


def equal_recipes(num_seeds, rng, middle, scatter):
    """Two recipes without any difference, whose runs differ by their seeds: rates [2, S]."""
    return np.clip(middle + scatter * rng.standard_normal((2, num_seeds)), 0.02, 0.999)


# -- the level -------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_seeds", [3, 5, 8])
@pytest.mark.parametrize(("middle", "scatter"), [(0.85, 0.08), (0.99, 0.01)], ids=["wide", "near the ceiling"])
def test_scatter_between_seeds_is_no_difference(num_seeds, middle, scatter):
    """Of 2,000 comparisons of equal recipes, p < 0.05 in 6% at most. A bootstrap of seeds and episodes, which was here
    once, finds a difference in 26, 13 and 11% of the wide ones at 3, 5 and 8 seeds."""
    rng = np.random.default_rng(num_seeds)
    found = []
    for _ in range(2000):
        a, b = equal_recipes(num_seeds, rng, middle, scatter)
        found.append(paired_difference(runs(a, rng=rng), runs(b, rng=rng)).p)
    assert np.mean(np.array(found) < 0.05) <= 0.06


def test_one_seed_is_never_tested():
    rng = np.random.default_rng(0)
    for _ in range(50):
        a, b = equal_recipes(1, rng, 0.85, 0.08)
        found = paired_difference(runs(a, rng=rng), runs(b, rng=rng))
        assert math.isnan(found.p) and math.isnan(found.low) and math.isnan(found.high)
        assert not found.p < 0.05 and found.num_seeds == 1


def test_the_interval_holds_the_truth_as_often_as_it_says():
    """The interval of a mean over seeds, too: 95% within two points, over 2,000 recipes whose mean is known."""
    values = 0.7 + 0.05 * np.random.default_rng(0).standard_normal((2000, 3))
    holds = [low <= 0.7 <= high for _, low, high in map(student_interval, values)]
    assert abs(np.mean(holds) - 0.95) < 0.02


def test_a_difference_of_every_seed_is_found():
    rng = np.random.default_rng(1)
    found = paired_difference(runs(np.full(5, 0.9), rng=rng), runs(np.full(5, 0.6), rng=rng))
    assert 0.2 < found.low < found.value < found.high < 0.4 and found.p < 0.01


def test_seeds_that_disagree_are_no_difference():
    """-3, -49 and -50 points by seed: large in the mean, and three seeds cannot say so."""
    a, b = np.array([0.97, 0.48, 0.46]), np.array([1.0, 0.97, 0.96])
    found = paired_over_seeds(a, b)
    assert found.value == pytest.approx(-0.34) and found.p == pytest.approx(0.1596, abs=1e-4) and found.high > 0.3


def test_more_episodes_are_not_more_seeds():
    """The same values by seed from ten times the episodes: the same interval, the same p."""
    rates = np.array([0.9, 0.7, 0.8]), np.array([0.6, 0.65, 0.5])
    exact = [
        [(np.repeat(r[:, None], n, 1), np.ones((3, n))) for r in rates] for n in (20, 200)
    ]  # every episode is the rate itself
    few, many = (paired_difference(*pair) for pair in exact)
    assert (few.value, few.low, few.high, few.p) == pytest.approx((many.value, many.low, many.high, many.p))


# -- values ----------------------------------------------------------------------------------------


def test_test_and_interval_are_scipys():
    rng = np.random.default_rng(3)
    for num_seeds in (2, 3, 5, 8):
        a, b = rng.normal(0.8, 0.1, (2, num_seeds))
        found, theirs = paired_over_seeds(a, b), stats.ttest_rel(a, b)
        interval = theirs.confidence_interval(0.95)
        assert (found.p, found.low, found.high) == pytest.approx((theirs.pvalue, interval.low, interval.high))
        assert student_interval(a)[1:] == pytest.approx(stats.t.interval(0.95, num_seeds - 1, a.mean(), stats.sem(a)))


def test_by_hand():
    # differences 1, 2, 3: t = 2 / (1 / sqrt 3) = 3.4641, two-sided p with 2 degrees of freedom 0.0742
    assert paired_over_seeds([2.0, 4.0, 6.0], [1.0, 2.0, 3.0]).p == pytest.approx(0.0742, abs=1e-4)


def test_unequal_episodes_weigh_by_what_they_count():
    top, bottom = np.array([[1.0, 8.0], [2.0, 9.0]]), np.array([[1.0, 9.0], [2.0, 18.0]])
    zero = np.zeros_like(top)
    assert paired_difference((top, bottom), (zero, bottom)).value == pytest.approx((9 / 10 + 11 / 20) / 2)


def test_without_a_spread_there_is_no_test():
    """The same half point in every seed is what a grid of 200 episodes may give by chance: p = 0 would be a claim."""
    a, b = np.array([0.955, 0.905, 0.805]), np.array([0.95, 0.9, 0.8])
    found = paired_over_seeds(a, b)  # 0.955 - 0.95 and 0.805 - 0.8 differ in the last digit of a float
    assert found.value == pytest.approx(0.005) and math.isnan(found.p)
    same = paired_over_seeds(a, a)
    assert (same.value, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)


def test_what_is_written_has_no_nan():
    assert over_seeds([0.5]) == {"mean": 0.5, "low": None, "high": None, "num_seeds": 1, "values": [0.5]}
    assert over_seeds([0.5, 0.5])["low"] == 0.5
    one = paired_over_seeds([0.5], [0.25]).as_json()
    assert one == {"value": 0.25, "low": None, "high": None, "p": None, "num_seeds": 1}


def test_holm_by_hand_counts_only_what_was_tested():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.01, math.nan, 0.04, 0.03]) == pytest.approx([0.03, math.nan, 0.06, 0.06], nan_ok=True)
    assert holm([]) == [] and holm([0.9, 0.8]) == [1.0, 1.0] and math.isnan(holm([math.nan])[0])
    found = adjusted({"x": paired_over_seeds([1.0, 2.0, 4.0], [0.0, 0.0, 0.0]), "y": paired_over_seeds([1.0], [0.0])})
    assert found["x"]["p_holm"] == pytest.approx(found["x"]["p"]) and found["y"]["p_holm"] is None


def test_what_cannot_be_paired_is_refused():
    with pytest.raises(ValueError, match="same seeds and episodes"):
        paired_difference(runs(np.full(3, 0.5)), runs(np.full(3, 0.5), num_episodes=100))
    with pytest.raises(ValueError, match="same seeds"):
        paired_over_seeds([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="counted nothing"):
        paired_difference((np.zeros((2, 3)), np.zeros((2, 3))), (np.ones((2, 3)), np.ones((2, 3))))


# -- one run ---------------------------------------------------------------------------------------


def test_an_interval_of_one_run_says_that_it_is_over_episodes():
    played = {"success": statistics.success_rate(np.array([True, True, False]))}
    lines = report.text(
        {"checkpoint": "x", "environment": "y", "num_test_episodes": 3, "num_episodes": 3, "window": 2, "held_out": ""},
        {}, {"model/greedy": played},
    ).splitlines()  # fmt: skip
    assert any("95%, episodes" in line for line in lines)
    assert "episodes of this one run" in lines[-1] and "training seeds" in lines[-1]


def test_one_episode_has_no_interval():
    alone = statistics.mean(np.array([3.0]))
    assert report.interval(alone) == "-" and alone.as_json()["low"] is alone.as_json()["high"] is None
    solved = statistics.success_rate(np.array([True]))  # Wilson's, which is wide
    assert solved.as_json()["low"] == pytest.approx(0.2065, abs=1e-4) and report.interval(solved) != "-"
