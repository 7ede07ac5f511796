"""The loss is the equation of its docstring, and summed micro-batches are the large batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anyorder_jax.config import LossConfig
from anyorder_jax.loss import cross_entropy, group_sums, target_weights
from anyorder_jax.types import Batch, Kind


def make_batch(rng, rows=4, length=12, vocab=7):
    kind = rng.choice([-1, Kind.GOAL, Kind.OBSERVATION, Kind.ACTION], size=(rows, length)).astype(np.int8)
    is_target = (rng.random((rows, length)) < 0.5) & (kind >= 0)
    ids = rng.integers(0, vocab, (rows, length), dtype=np.int32)
    rate = np.full((rows, length), 0.25, np.float32)
    zeros = np.zeros((rows, length), np.int32)
    return Batch(ids, ids, is_target, zeros, zeros + 1, kind, zeros.astype(np.int8), rate, zeros)


def test_cross_entropy_is_minus_log_softmax():
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=(3, 5, 7)), rng.integers(0, 7, (3, 5))
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = -np.log(np.take_along_axis(p, targets[..., None], -1)[..., 0])
    np.testing.assert_allclose(cross_entropy(jnp.array(logits, jnp.float32), targets), expected, rtol=1e-5)


def test_token_normalisation_is_a_mean():
    batch = make_batch(np.random.default_rng(1))
    weights = np.asarray(target_weights(batch, LossConfig(normalisation="token")))
    np.testing.assert_allclose(weights[batch.is_target], 1 / batch.is_target.sum(), rtol=1e-6)
    assert (weights[~batch.is_target] == 0).all()


def test_kind_normalisation_gives_every_kind_its_weight():
    batch = make_batch(np.random.default_rng(2))
    config = LossConfig(normalisation="kind", observation_weight=2.0, action_weight=0.5, other_weight=0.25)
    weights = np.asarray(target_weights(batch, config))
    for kind, expected in [(Kind.OBSERVATION, 2.0), (Kind.ACTION, 0.5), (Kind.GOAL, 0.25)]:
        np.testing.assert_allclose(weights[batch.kind == kind].sum(), expected, rtol=1e-5)


def test_rate_normalisation_is_mdlm():
    batch = make_batch(np.random.default_rng(3))
    weights = np.asarray(target_weights(batch, LossConfig(normalisation="rate")))
    np.testing.assert_allclose(weights[batch.is_target], 4.0 / (batch.kind >= 0).sum(), rtol=1e-5)


@pytest.mark.parametrize("normalisation", ["token", "kind", "rate"])
def test_a_batch_without_targets_costs_nothing(normalisation):
    batch = make_batch(np.random.default_rng(4))._replace(is_target=np.zeros((4, 12), bool))
    assert float(target_weights(batch, LossConfig(normalisation=normalisation)).sum()) == 0.0


def test_group_sums_count_targets_once():
    batch = make_batch(np.random.default_rng(5))
    nll = jnp.ones((4, 12))
    sums = jax.jit(group_sums)(nll, jnp.ones((4, 12), bool), batch)
    total = sum(float(sums[f"count/{g}"]) for g in ("observation", "action", "other"))
    assert total == batch.is_target.sum()
    assert float(sums["nll/action"]) == (batch.is_target & (batch.kind == Kind.ACTION)).sum()
