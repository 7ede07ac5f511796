"""Packing puts every example into exactly one row, fills rows, and refuses what does not fit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyorder_jax.data.packing import pack


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=200), st.integers(40, 90), st.integers(0, 5))
def test_every_example_once_and_no_row_too_long(lengths, row_length, seed):
    lengths_E = np.array(lengths)
    plan = pack(lengths_E, row_length, seed)
    rows = [plan.row(r) for r in range(plan.num_rows)]
    assert sorted(np.concatenate(rows)) == list(range(len(lengths)))
    sums = [lengths_E[row].sum() for row in rows]
    assert max(sums) <= row_length and min(map(len, rows)) >= 1
    assert plan.fill == pytest.approx(sum(lengths) / (len(rows) * row_length))
    assert sorted(sums)[0] + sorted(sums)[1] > row_length if len(rows) > 1 else True, "two rows fit into one"


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [([3, 5, 2, 4, 3], [[3, 5], [3, 4], [2]]), ([7, 6, 2, 1], [[1, 7], [2, 6]]), ([6, 5, 2], [[2, 6], [5]])],
)
def test_best_fit_decreasing_by_hand(lengths, expected):
    plan = pack(np.array(lengths), 8, seed=0)
    assert [sorted(np.array(lengths)[plan.row(r)].tolist()) for r in range(plan.num_rows)] == expected


def test_deterministic_and_seeded():
    lengths_E = np.random.default_rng(0).integers(10, 40, 500)
    one, same, other = (pack(lengths_E, 100, seed).example_E for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


def test_fill_on_babyai_like_lengths():
    """Windows of four steps: goal 9 tokens, 53 a step, 51 for a last observation."""
    rng = np.random.default_rng(0)
    lengths = []
    for num_actions in rng.integers(1, 15, 1500):
        whole = [9 + 53 * min(end + 1, 4) for end in range(num_actions)]
        lengths += [*whole, 9 + 53 * min(num_actions, 3) + 51]
    assert pack(np.array(lengths), 232, seed=0).fill >= 0.95
    trajectories_E = 9 + 53 * rng.integers(1, 15, 1500) + 51
    assert pack(trajectories_E, 1024, seed=0).fill >= 0.95


def test_fill_on_chat_like_lengths():
    """Log-normal with the mean of ShareGPT's conversations, 161 tokens asked and 338 answered (arXiv 2309.06180, figure
    11), from a few tokens to the whole row."""
    rng = np.random.default_rng(0)
    for sigma in (0.8, 1.0, 1.3):
        lengths_E = np.exp(rng.normal(np.log(499) - sigma**2 / 2, sigma, 5000)).astype(int).clip(8, 4096)
        assert pack(lengths_E, 4096, seed=0).fill >= 0.99


def test_an_example_longer_than_a_row_is_named():
    with pytest.raises(ValueError, match=r"episode 1 has 9 tokens, but data.row_length is 8 \(2 of 3") as caught:
        pack(np.array([8, 9, 9]), 8, seed=0, name="episode {}".format)
    assert "Set data.row_length >= 9, or a smaller data.window" in str(caught.value)


def test_no_examples_is_an_error():
    with pytest.raises(ValueError, match="no examples"):
        pack(np.zeros(0, int), 8, seed=0)
