"""Attention by description equals a dense softmax over the positions that the description's picture shows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyorder_jax.model.attention import BlockDiffusion, Full, Segments, attend, can_attend


def dense(q_BLHC, k_BLKC, v_BLKC, allowed_BLL):
    """The definition, head by head, in float64."""
    q, k, v = (np.asarray(x, np.float64) for x in (q_BLHC, k_BLKC, v_BLKC))
    mixed = np.zeros_like(q)
    for row in range(q.shape[0]):
        for head in range(q.shape[2]):
            shared = head // (q.shape[2] // k.shape[2])
            scores = q[row, :, head] @ k[row, :, shared].T / np.sqrt(q.shape[-1])
            weight = np.where(allowed_BLL[row], np.exp(scores), 0)
            mixed[row, :, head] = weight / weight.sum(-1, keepdims=True) @ v[row, :, shared]
    return mixed


def pairs(attention, num_rows, length):
    """can_attend, written once more as a loop over pairs."""
    allowed = np.zeros((num_rows, length, length), bool)
    half = length // 2
    for row, i, j in np.ndindex(*allowed.shape):
        match attention:
            case Full():
                allowed[row, i, j] = True
            case Segments(ids):
                allowed[row, i, j] = ids[row, i] == ids[row, j]
            case BlockDiffusion(size, ids):
                block_i, block_j = i % half // size, j % half // size
                if i < half:
                    seen = block_i == block_j if j < half else block_j < block_i
                else:
                    seen = j >= half and block_j <= block_i
                allowed[row, i, j] = seen and (ids is None or ids[row, i % half] == ids[row, j % half])
    return allowed


SEGMENTS_BL = jnp.array([[1, 1, 1, 1, 2, 2, 0, 0], [1, 1, 1, 1, 1, 1, 1, 0]], jnp.int32)
DESCRIPTIONS = [
    Full(),
    Segments(SEGMENTS_BL),
    BlockDiffusion(3),  # the last block is shorter
    BlockDiffusion(2, jnp.array([[1, 1, 2, 2], [1, 1, 1, 0]], jnp.int32)),
]


def values(num_rows, length, heads, kv_heads, width, seed=0):
    rng = np.random.default_rng(seed)
    shapes = [(num_rows, length, h, width) for h in (heads, kv_heads, kv_heads)]
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


@pytest.mark.parametrize("attention", DESCRIPTIONS, ids=lambda a: type(a).__name__)
def test_attend_is_the_dense_definition(attention):
    q, k, v = values(2, 8, 4, 2, 4)
    allowed = pairs(attention, 2, 8)
    relation = can_attend(attention, 2, 8)
    if relation is not None:
        assert (np.broadcast_to(relation, allowed.shape) == allowed).all()
    np.testing.assert_allclose(attend(q, k, v, attention), dense(q, k, v, allowed), atol=1e-6)


@pytest.mark.parametrize("attention", DESCRIPTIONS, ids=lambda a: type(a).__name__)
def test_gradients_are_those_of_the_definition(attention):
    q, k, v = values(2, 8, 4, 2, 4)
    allowed = jnp.asarray(pairs(attention, 2, 8))

    def definition(q, k, v):
        k, v = (jnp.repeat(x, 2, axis=2) for x in (k, v))
        scores = jnp.einsum("blhc,bshc->bhls", q, k) / 2
        weight = jax.nn.softmax(jnp.where(allowed[:, None], scores, -jnp.inf))
        return jnp.einsum("bhls,bshc->blhc", weight, v)

    ours = jax.grad(lambda *x: jnp.sin(attend(*x, attention)).sum(), argnums=(0, 1, 2))(q, k, v)
    expected = jax.grad(lambda *x: jnp.sin(definition(*x)).sum(), argnums=(0, 1, 2))(q, k, v)
    for one, other in zip(ours, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6)


@settings(max_examples=15, deadline=None)
@given(ids=st.lists(st.integers(0, 3), min_size=6, max_size=6), seed=st.integers(0, 2**16))
def test_other_segments_do_not_move_the_result(ids, seed):
    attention = Segments(jnp.array([ids], jnp.int32))
    q, k, v = values(1, 6, 2, 1, 4, seed)
    is_other = jnp.array(ids)[None, :, None, None] != ids[0]
    moved = attend(q, jnp.where(is_other, 100.0, k), jnp.where(is_other, -9.0, v), attention)
    here = np.array(ids) == ids[0]
    np.testing.assert_array_equal(moved[0, here], attend(q, k, v, attention)[0, here])


def test_descriptions_that_do_not_fit_are_refused():
    q, k, v = values(2, 8, 2, 1, 4)
    with pytest.raises(ValueError, match=r"segment ids are \(2, 4\), the rows they describe are \(2, 8\)"):
        attend(q, k, v, Segments(SEGMENTS_BL[:, :4]))
    with pytest.raises(ValueError, match=r"even length and block_size >= 1, got length 7"):
        can_attend(BlockDiffusion(2), 1, 7)
    with pytest.raises(TypeError, match="expected Full, Segments or BlockDiffusion, got str"):
        attend(q, k, v, "causal")
