"""Iterative filling: all at once, by confidence, one at a time; only hidden positions change."""

import numpy as np
import pytest

from anyorder_jax.decode import fill


def forward_of(logits_BLV, calls):
    def forward(tokens_BL):
        calls.append(tokens_BL.copy())
        return logits_BLV

    return forward


@pytest.mark.parametrize(("threshold", "passes"), [(0.0, 1), (2.0, 5), (0.9, 4)])
def test_number_of_passes(threshold, passes):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(1, 6, 4))
    logits[0, 1, 2] = logits[0, 3, 0] = 9.0  # two positions are certain
    hidden = np.array([[False, True, True, True, True, True]])
    calls = []
    filled = fill(forward_of(logits, calls), np.full((1, 6), 7, np.int32), hidden, threshold=threshold)
    assert len(calls) == passes
    assert filled[0, 0] == 7 and (filled[hidden] == logits.argmax(-1)[hidden]).all()


def test_only_allowed_tokens_are_chosen_and_draws_follow_the_distribution():
    logits = np.log(np.array([[[0.5, 0.3, 0.2]]])).repeat(4000, 0)
    tokens, hidden = np.zeros((4000, 1), np.int32), np.ones((4000, 1), bool)
    allowed = np.array([False, True, True])
    drawn = fill(forward_of(logits, []), tokens, hidden, allowed_BLV=allowed, rng=np.random.default_rng(1))
    assert set(np.unique(drawn)) == {1, 2}
    assert abs((drawn == 1).mean() - 0.6) < 0.03
