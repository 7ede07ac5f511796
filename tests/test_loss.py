"""The loss is the equation of its docstring, and summed micro-batches are the large batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anyorder_jax.config import LossConfig
from anyorder_jax.loss import cross_entropy, gather_targets, head_loss, role_sums, target_weights
from anyorder_jax.model.kernels.counting import argmax
from anyorder_jax.types import ROLES, Batch, Field, Kind


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
    config = LossConfig(normalisation="kind", weights="observation:2,action:0.5,other:0.25")
    weights = np.asarray(target_weights(batch, config))
    for kind, expected in [(Kind.OBSERVATION, 2.0), (Kind.ACTION, 0.5), (Kind.GOAL, 0.25)]:
        np.testing.assert_allclose(weights[batch.kind == kind].sum(), expected, rtol=1e-5)


@pytest.mark.parametrize("normalisation", ["token", "kind"])
def test_ends_after_the_first_weigh_what_the_recipe_says(normalisation):
    batch = make_batch(np.random.default_rng(2))
    is_end = batch.is_target & (np.arange(12) % 3 == 0)
    batch = batch._replace(field=np.where(is_end, Field.END, Field.TEXT).astype(np.int8))
    weights = np.asarray(target_weights(batch, LossConfig(normalisation=normalisation, end_weight=0.1)))
    for kind in (Kind.OBSERVATION, Kind.ACTION):
        ends, others = (np.unique(weights[(batch.kind == kind) & batch.is_target & who]) for who in (is_end, ~is_end))
        np.testing.assert_allclose(ends, 0.1 * others, rtol=1e-5)
    counted = target_weights(batch, LossConfig(normalisation=normalisation))
    np.testing.assert_allclose(weights.sum(), counted.sum(), rtol=1e-5)  # a mean all the same


def test_rate_normalisation_is_mdlm():
    batch = make_batch(np.random.default_rng(3))
    weights = np.asarray(target_weights(batch, LossConfig(normalisation="rate")))
    np.testing.assert_allclose(weights[batch.is_target], 4.0 / (batch.kind >= 0).sum(), rtol=1e-5)


@pytest.mark.parametrize("normalisation", ["token", "kind", "rate"])
def test_a_batch_without_targets_costs_nothing(normalisation):
    batch = make_batch(np.random.default_rng(4))._replace(is_target=np.zeros((4, 12), bool))
    assert float(target_weights(batch, LossConfig(normalisation=normalisation)).sum()) == 0.0


def head_case(seed, rows=4, length=12, width=5, vocab=7):
    rng = np.random.default_rng(seed)
    batch = make_batch(rng, rows, length, vocab)
    hidden = jnp.asarray(rng.normal(size=(rows, length, width)), jnp.float32)
    return batch, hidden, jnp.asarray(rng.normal(size=(width, vocab)), jnp.float32)


@pytest.mark.parametrize("chunk_logits", [10**6, 7 * 13, 7])
@pytest.mark.parametrize(("num_shards", "target_share"), [(1, 1.0), (2, 1.0), (1, 0.75), (4, 0.9)])
@pytest.mark.parametrize("confidence_weight", [0.0, 2.0])
def test_the_chunked_head_is_the_loss_over_all_logits(chunk_logits, num_shards, target_share, confidence_weight):
    batch, hidden, head = head_case(6)
    weights = target_weights(batch, LossConfig())

    def ours(hidden, head):
        asked = gather_targets(hidden, batch, weights, num_shards, target_share)
        return head_loss(asked, head, confidence_weight, chunk_logits)[0], role_sums(
            *head_loss(asked, head, confidence_weight, chunk_logits)[1:], asked
        )

    def plain(hidden, head):
        logits = hidden @ head
        nll, log_p = cross_entropy(logits, batch.targets), jax.nn.log_softmax(logits)
        is_right = logits.argmax(-1) == batch.targets
        entropy = -(jnp.exp(log_p) * log_p).sum(-1)
        by_action = batch.is_target & (batch.kind == Kind.ACTION)
        sums = (nll * by_action).sum(), (is_right * by_action).sum()
        return ((nll + confidence_weight * is_right * entropy) * weights).sum(), sums

    (value, sums), grads = jax.jit(jax.value_and_grad(ours, argnums=(0, 1), has_aux=True))(hidden, head)
    (expected, expected_sums), expected_grads = jax.value_and_grad(plain, argnums=(0, 1), has_aux=True)(hidden, head)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose((sums["nll/action"], sums["right/action"]), expected_sums, rtol=1e-5)
    for one, other in zip(grads, expected_grads, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_the_likeliest_token_is_the_first_of_equals():
    logits = jnp.array([[0.0, 2.0, 2.0], [1.0, 1.0, 1.0], [-1.0, -3.0, -1.0]])
    np.testing.assert_array_equal(argmax(logits), [1, 0, 0])


def test_targets_beyond_the_budget_are_dropped_and_counted():
    batch, hidden, _ = head_case(7)
    asked = gather_targets(hidden, batch, target_weights(batch, LossConfig()), 2, 0.25)
    per_shard = batch.is_target.reshape(2, -1).sum(1)
    assert asked.targets_GK.shape == (2, 6)
    assert int(asked.num_dropped) == np.maximum(per_shard - 6, 0).sum() > 0
    assert bool(asked.is_target_GK.all())


def test_logits_exist_for_a_chunk_of_hidden_positions_only():
    """Read off the compiled program: 4096 positions of 512 classes are 8 MiB of logits, four times in the gradient; an
    eighth of them are 1 MiB."""
    batch, hidden, head = head_case(8, rows=8, length=512, width=4, vocab=512)
    weights = target_weights(batch, LossConfig())

    def temporaries(target_share, chunk_logits):
        def cost(hidden, head):
            asked = gather_targets(hidden, batch, weights, 1, target_share)
            return head_loss(asked, head, 0.0, chunk_logits)[0]

        compiled = jax.jit(jax.grad(cost, argnums=(0, 1))).lower(hidden, head).compile()
        return compiled.memory_analysis().temp_size_in_bytes / 2**20

    assert temporaries(0.6, 512 * 64) < 1 < 2 < temporaries(1.0, 2**30) < 3


def test_chunks_without_targets_do_not_go_through_the_head():
    """Of 64 positions in 8 chunks the first 3 hold the 20 targets of one shard, 1 the 7 of the other: 3 are taken."""
    is_target = np.zeros((2, 64), bool)
    is_target[0, 5:25], is_target[1, ::10] = True, True
    batch, hidden, head = head_case(9, rows=2, length=64)
    batch = batch._replace(is_target=is_target)
    asked = gather_targets(hidden, batch, target_weights(batch, LossConfig()), 2, 1.0)
    _, nll, _ = jax.jit(head_loss)(asked, head)
    np.testing.assert_array_equal(np.asarray(nll) > 0, [np.arange(64) < 24] * 2)
    np.testing.assert_array_equal(np.asarray(asked.is_target_GK), [np.arange(64) < n for n in (20, 7)])


def test_role_sums_count_targets_once():
    batch, hidden, _ = head_case(5)
    asked = gather_targets(hidden, batch, jnp.ones((4, 12)), 1, 1.0)
    sums = jax.jit(role_sums)(jnp.ones((1, 48)), jnp.ones((1, 48), bool), asked)
    total = sum(float(sums[f"count/{g}"]) for g in ROLES)
    assert total == batch.is_target.sum()
    assert float(sums["nll/action"]) == (batch.is_target & (batch.kind == Kind.ACTION)).sum()
