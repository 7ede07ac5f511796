"""Attention by description equals a dense softmax over the positions that the description's picture shows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyorder_jax.model.attention import (
    BlockCausal,
    BlockDiffusion,
    Full,
    Segments,
    attend,
    best_backend,
    can_attend,
    runs,
)


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
    ids = getattr(attention, "segment_ids_BL", None)
    ids = None if ids is None else np.asarray(ids)  # a jax.Array takes a millisecond a pair
    for row, i, j in np.ndindex(*allowed.shape):
        match attention:
            case Full():
                allowed[row, i, j] = True
            case Segments():
                allowed[row, i, j] = ids[row, i] == ids[row, j]
            case BlockCausal(size):
                allowed[row, i, j] = j // size <= i // size and ids[row, i] == ids[row, j]
            case BlockDiffusion(size):
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
    BlockCausal(2, SEGMENTS_BL),
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


def definition(q, k, v, allowed_BLL):
    """The definition, to be differentiated."""
    k, v = (jnp.repeat(x, q.shape[2] // x.shape[2], axis=2) for x in (k, v))
    scores = jnp.einsum("blhc,bshc->bhls", q, k) / q.shape[-1] ** 0.5
    weight = jax.nn.softmax(jnp.where(allowed_BLL[:, None], scores, -jnp.inf))
    return jnp.einsum("bhls,bshc->blhc", weight, v)


def compare(q, k, v, attention, backend, atol):
    """Result and gradients against the definition in float64."""
    allowed = pairs(attention, q.shape[0], q.shape[1])
    weigh = lambda y: (jnp.sin(y).sum(), y)  # noqa: E731
    run = jax.jit(jax.grad(lambda *x: weigh(attend(*x, attention, backend=backend)), argnums=(0, 1, 2), has_aux=True))
    grads, out = run(q, k, v)
    with jax.enable_x64(True):
        wide = [np.asarray(x, np.float64) for x in (q, k, v)]
        expected = jax.grad(lambda *x: weigh(definition(*x, allowed)), argnums=(0, 1, 2), has_aux=True)(*wide)
        expected = jax.tree.map(np.asarray, expected)
    assert expected[1].dtype == np.float64
    for one, other in zip((out, *grads), (expected[1], *expected[0]), strict=True):
        np.testing.assert_allclose(np.asarray(one), other, atol=atol)


@pytest.mark.parametrize("attention", DESCRIPTIONS, ids=lambda a: type(a).__name__)
def test_gradients_are_those_of_the_definition(attention):
    compare(*values(2, 8, 4, 2, 4), attention, "xla", 3e-6)


@settings(max_examples=5, deadline=None)
@given(
    block=st.integers(1, 9), documents=st.lists(st.integers(1, 3), min_size=1, max_size=3), padding=st.integers(0, 4),
    is_packed=st.booleans(), seed=st.integers(0, 2**16),
)  # fmt: skip
def test_block_diffusion_of_packed_documents(block, documents, padding, is_packed, seed):
    """Documents of whole blocks, the last one cut anywhere by the padding or the row's end."""
    ids = np.repeat(np.arange(1, len(documents) + 1), np.array(documents) * block)
    ids = np.concatenate([ids[: max(len(ids) - padding // 2, 1)], np.zeros(padding, int)])
    attention = BlockDiffusion(block, jnp.asarray(ids[None], jnp.int32) if is_packed else None)
    compare(*values(1, 2 * len(ids), 2, 1, 4, seed), attention, "xla", 3e-6)


WIDE_SEGMENTS = jnp.asarray(np.repeat([1, 2, 3, 0], [40, 24, 56, 8])[None], jnp.int32)


@pytest.mark.parametrize(
    ("attention", "length"),
    [
        (Full(), 128),
        (Segments(WIDE_SEGMENTS), 128),
        (BlockDiffusion(8), 256),
        (BlockCausal(8, WIDE_SEGMENTS), 128),
        (BlockDiffusion(8, WIDE_SEGMENTS), 256),  # both of its inputs at once: a computed relation, and the documents
    ],
    ids=["Full", "Segments", "BlockDiffusion", "BlockCausal", "packed BlockDiffusion"],
)
def test_the_kernel_of_a_tpu_interpreted_on_this_cpu(attention, length):
    compare(*values(1, length, 1, 1, 128), attention, "splash-interpret", 3e-5)


def test_runs_of_equal_ids():
    start, end = runs(jnp.array([[1, 1, 1, 2, 2, 0], [3, 0, 0, 0, 0, 5]], jnp.int32))
    assert start.tolist() == [[0, 0, 0, 3, 3, 5], [0, 1, 1, 1, 1, 5]]
    assert end.tolist() == [[3, 3, 3, 5, 5, 6], [1, 5, 5, 5, 5, 6]]


def test_every_platform_gets_its_kernel():
    wide = jax.ShapeDtypeStruct((2, 256, 4, 128), jnp.bfloat16)
    assert [best_backend(p, wide) for p in ("cpu", "hopper", "tpu", "gpu")] == ["xla", "flash", "splash", "xla"]
    narrow = jax.ShapeDtypeStruct((2, 232, 2, 32), jnp.float32)
    assert {best_backend(p, narrow) for p in ("cpu", "hopper", "tpu")} == {"xla"}


@pytest.mark.parametrize("block", [2, 8])
def test_block_diffusion_never_holds_all_pairs(block):
    """Temporaries of a step grow with [2L, L], not [2L, 2L]: the dense definition needs more than twice as much."""
    L = 256
    q, k, v = values(1, 2 * L, 1, 1, 8)
    ours = jax.jit(jax.grad(lambda *x: attend(*x, BlockDiffusion(block)).sum())).lower(q, k, v).compile()
    allowed = can_attend(BlockDiffusion(block), 1, 2 * L)
    everything = jax.jit(jax.grad(lambda *x: definition(*x, allowed).sum())).lower(q, k, v).compile()
    ours, everything = (x.memory_analysis().temp_size_in_bytes for x in (ours, everything))
    assert everything >= (2 * L) ** 2 * 4 and ours < 0.8 * everything, (ours, everything)


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
    with pytest.raises(TypeError, match="expected Full, Segments, BlockDiffusion or BlockCausal, got str"):
        attend(q, k, v, "causal")
