"""The routed experts: every part, and all of them together, against a dense computation of every expert."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyorder_jax.model import moe, presets
from anyorder_jax.model.kernels import grouped


def dense(x_TD, expert_TK, weight_TK, gate_up_ED2F, down_EFD):
    """Every expert for every token, then the weighted sum of the chosen."""
    hidden = jnp.einsum("td,edgf->tegf", x_TD, gate_up_ED2F)
    y_TED = jnp.einsum("tef,efd->ted", jax.nn.silu(hidden[:, :, 0]) * hidden[:, :, 1], down_EFD)
    chosen_TKE = jax.nn.one_hot(expert_TK, gate_up_ED2F.shape[0])
    return jnp.einsum("ted,tke,tk->td", y_TED, chosen_TKE, weight_TK)


def case(seed, T, E, K, D, F, loads):
    rng = np.random.default_rng(seed)
    if loads == "even":
        expert_TK = np.stack([rng.permutation(E)[:K] for _ in range(T)])
    elif loads == "one expert":  # the first choice of every token is expert E - 1, the others are random
        expert_TK = np.stack([[E - 1, *rng.permutation(E - 1)[: K - 1]] for _ in range(T)])
    else:  # only the first K experts: all others are empty
        expert_TK = np.stack([rng.permutation(K) for _ in range(T)])
    arrays = [rng.normal(size=s) for s in [(T, D), (T, K), (E, D, 2, F), (E, F, D)]]
    x, weight, gate_up, down = (jnp.asarray(a, jnp.float32) for a in arrays)
    return x, jnp.asarray(expert_TK, jnp.int32), weight, gate_up, down


def ours(arrays, expert_TK, direction_TD, backend):
    x, weight, gate_up, down = arrays
    y, load_E = moe.experts(x, expert_TK, weight, gate_up, down, backend=backend)
    return (y * direction_TD).sum(), (y, load_E)


def reference(arrays, expert_TK, direction_TD):
    x, weight, gate_up, down = arrays
    y = dense(x, expert_TK, weight, gate_up, down)
    return (y * direction_TD).sum(), y


# made once: examples of one shape share a compilation
OURS = jax.jit(jax.grad(ours, has_aux=True), static_argnums=3)
REFERENCE = jax.jit(jax.grad(reference, has_aux=True))


def compare(backend, x, expert_TK, weight, gate_up, down):
    """Forward and all four gradients in float32 against the dense sum in float64."""
    arrays = (x, weight, gate_up, down)
    direction = np.cos(np.arange(x.size, dtype=np.float32)).reshape(x.shape)
    grads, (y, load_E) = OURS(arrays, expert_TK, direction, backend)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: np.asarray(a, np.float64), (arrays, direction))
        expected_grads, expected = REFERENCE(wide[0], np.asarray(expert_TK), wide[1])
    assert expected.dtype == np.float64
    assert load_E.tolist() == np.bincount(np.asarray(expert_TK).ravel(), minlength=len(gate_up)).tolist()
    for one, other in zip((y, *grads), (expected, *expected_grads), strict=True):
        one, other = np.asarray(one), np.asarray(other)
        scale = np.abs(other).max() + 1e-6
        # One weight's gradient is a sum that may cancel: 1e-5 of its size was seen with a single token.
        np.testing.assert_allclose(one / scale, other / scale, atol=3e-5)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    tokens=st.sampled_from([1, 40]),
    sizes=st.sampled_from([(8, 2, 4, 6), (4, 4, 3, 5), (5, 1, 8, 3)]),  # E, K (also K = E), D, F
    loads=st.sampled_from(["even", "one expert", "empty experts"]),
    backend=st.sampled_from(["pieces", "tiles", "ragged"]),
)
def test_experts_equal_the_dense_reference(seed, tokens, sizes, loads, backend):
    compare(backend, *case(seed, tokens, *sizes, loads))


@pytest.mark.parametrize("backend", ["pieces", "tiles", "ragged"])
def test_many_tiles_of_one_expert(backend):
    compare(backend, *case(0, 300, 3, 2, 4, 4, "one expert"))


@given(loads=st.lists(st.integers(0, 40), min_size=1, max_size=6), spare=st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_pieces_cover_every_row_of_every_group_once(loads, spare):
    tile = 4
    sizes = np.array(loads, np.int32) * tile
    rows_of = np.concatenate([np.repeat(np.arange(len(loads)), sizes), np.full(spare * tile, -1)])
    covered = np.full(len(rows_of), -1)
    for pieces in grouped._pieces(jnp.asarray(sizes), (32, 16, 8, 4), len(rows_of)):
        assert pieces.rows % tile == 0
        for expert, first in list(zip(*map(np.asarray, pieces[1:3]), strict=True))[: int(pieces.number)]:
            assert (covered[first : first + pieces.rows] == -1).all()
            covered[first : first + pieces.rows] = expert
    np.testing.assert_array_equal(covered, rows_of)


def test_an_unknown_backend_is_named():
    with pytest.raises(ValueError, match="unknown back-end 'dense'; known: pieces, tiles, ragged, mosaic"):
        moe.experts(*case(0, 4, 3, 2, 4, 4, "even"), backend="dense")


T, E, K, D, F = 4096, 64, 2, 64, 32


def temporaries(device, backend, dtype):
    """Bytes that the compiled forward and backward pass of the experts needs besides arguments and results."""
    place = jax.sharding.SingleDeviceSharding(device)
    shapes = [((T, D), dtype), ((T, K), jnp.float32), ((E, D, 2, F), dtype), ((E, F, D), dtype)]
    arrays = tuple(jax.ShapeDtypeStruct(shape, kind, sharding=place) for shape, kind in shapes)
    expert_TK = jax.ShapeDtypeStruct((T, K), jnp.int32, sharding=place)
    direction = jax.ShapeDtypeStruct((T, D), jnp.float32, sharding=place)
    return OURS.lower(arrays, expert_TK, direction, backend).compile().memory_analysis().temp_size_in_bytes


def test_no_dense_expansion_in_the_compiled_program():
    """Every expert for every token, [E, T, D], never stands in memory; with all experts dense it does."""
    arrays = case(0, T, E, K, D, F, "even")
    dense_bytes = E * T * D * 4
    used = temporaries(jax.devices()[0], "pieces", jnp.float32)
    assert used < dense_bytes / 2
    everything = REFERENCE.lower((arrays[0], *arrays[2:]), arrays[1], arrays[0]).compile()
    assert everything.memory_analysis().temp_size_in_bytes >= dense_bytes


LAYOUT = jax.jit(moe.layout_of, static_argnums=(1, 2), static_argnames="by_sort")


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16), num_experts=st.sampled_from([1, 9]), tile=st.sampled_from([1, 8]))
def test_a_layout_is_a_permutation_into_whole_tiles(seed, num_experts, tile):
    expert_TK = np.random.default_rng(seed).integers(0, num_experts, (11, 2))
    layout = LAYOUT(jnp.asarray(expert_TK, jnp.int32), num_experts, tile)
    row_S, slot_R = np.asarray(layout.row_KT).ravel(), np.asarray(layout.slot_R)
    assert len(slot_R) % tile == 0 and (np.asarray(layout.group_sizes_E) % tile == 0).all()
    np.testing.assert_array_equal(slot_R[row_S], np.arange(22))
    assert (slot_R < 22).sum() == 22
    expert_R = np.repeat(np.arange(num_experts), layout.group_sizes_E)
    np.testing.assert_array_equal(expert_R[row_S], expert_TK.T.ravel())


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**16), num_experts=st.sampled_from([1, 4, 9]), tile=st.sampled_from([1, 8]),
    first=st.sampled_from([0, 3]),
)  # fmt: skip
def test_sorting_and_counting_make_the_same_layout(seed, num_experts, tile, first):
    expert_TK = jnp.asarray(np.random.default_rng(seed).integers(0, 9, (11, 2)), jnp.int32)
    one, other = (LAYOUT(expert_TK, num_experts, tile, jnp.int32(first), by_sort=by_sort) for by_sort in (False, True))
    for a, b in zip(one, other, strict=True):
        assert a.dtype == b.dtype == jnp.int32
        np.testing.assert_array_equal(a, b)


def test_two_devices_with_half_of_the_experts_each_add_up():
    """Choices of experts that are elsewhere get no row, and no gradient flows through them."""
    x, expert_TK, weight, gate_up, down = case(0, 20, 4, 2, 4, 4, "even")

    def halves(arrays):
        x, weight, gate_up, down = arrays
        parts = [moe.experts(x, expert_TK, weight, gate_up[i : i + 2], down[i : i + 2], jnp.int32(i)) for i in (0, 2)]
        return (parts[0][0] + parts[1][0]).sum(), jnp.concatenate([load for _, load in parts])

    arrays = (x, weight, gate_up, down)
    grads, load_E = jax.jit(jax.grad(halves, has_aux=True))(arrays)
    expected, (_, expected_load_E) = OURS(arrays, expert_TK, jnp.ones_like(x), "tiles")
    assert load_E.tolist() == expected_load_E.tolist()
    for one, other in zip(grads, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


def test_rows_behind_the_last_group_are_zero():
    x, w = jnp.ones((24, 2)), jnp.ones((3, 2, 5))
    y = moe.grouped_dot(x, w, jnp.array([8, 0, 8], jnp.int32), 8)
    assert (y[:16] == 2).all() and (y[16:] == 0).all()


def test_what_rows_behind_the_last_group_hold_reaches_nobody(monkeypatch):
    """The contract of "mosaic", kept by a product that leaves NaN there: in its value, and in the gradient of its
    rows. Both pairs of LoRA's factors are multiplied as well; half of the experts are elsewhere."""
    num_behind = []

    def spoiled(rows, sizes):
        is_behind = jnp.arange(len(rows)) >= sizes.sum()
        jax.debug.callback(lambda number: num_behind.append(int(number)), is_behind.sum())
        return jnp.where(is_behind[:, None], jnp.nan, rows)

    def forward(rows, matrices, sizes):
        y, gradients = jax.vjp(lambda *x: grouped.grouped_dot(*x, sizes), rows, matrices)
        return spoiled(y, sizes), (gradients, sizes)

    def backward(saved, grad):
        gradients, sizes = saved
        grad_rows, grad_matrices = gradients(grad)
        return spoiled(grad_rows, sizes), grad_matrices, None

    product = jax.custom_vjp(lambda *x: forward(*x)[0])
    product.defvjp(forward, backward)
    x, expert_TK, weight, gate_up, down = case(0, 20, 4, 2, 4, 6, "even")
    rng = np.random.default_rng(1)
    shapes = [(2, 4, 2, 3), (2, 3, 2, 6), (2, 6, 1, 3), (2, 3, 1, 4)]
    factors = [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]
    direction = jnp.cos(jnp.arange(80.0)).reshape(20, 4)

    def train(backend):
        def here(x, weight, gate_up, down, *factors):
            y, _ = moe.experts(x, expert_TK, weight, gate_up, down, jnp.int32(2), backend, factors)
            return (y * direction).sum(), y

        arrays = x, weight, gate_up[2:], down[2:], *factors
        return jax.jit(jax.grad(here, argnums=tuple(range(8)), has_aux=True))(*arrays)

    expected = train("tiles")
    monkeypatch.setattr(moe, "grouped_dot", lambda x, w, group_sizes_E, tile, backend: product(x, w, group_sizes_E))
    found = train("mosaic")
    jax.effects_barrier()
    assert len(num_behind) == 14 and min(num_behind) > 0  # 7 products, there and back
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-4), found, expected)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (jnp.bfloat16, ["pieces", "tiles", "mosaic", "ragged"]),
        (jnp.float16, ["pieces", "tiles", "mosaic", "ragged"]),
        (jnp.float32, ["pieces", "tiles", "tiles", "ragged"]),
    ],
)
def test_every_platform_gets_its_product(dtype, expected):
    assert [grouped.best_backend(platform, dtype) for platform in ("cpu", "gpu", "hopper", "tpu")] == expected


TINY = presets.get("tiny")
START = jnp.zeros(1, jnp.int32)  # the place of a document's first token


def test_a_group_outside_the_best_is_never_chosen():
    """Groups (0 .. 3) and (4 .. 7); expert 0 is best of all, but group 1 has the better pair."""
    score_E = jnp.array([0.95, 0.1, 0.1, 0.1, 0.6, 0.1, 0.7, 0.1])
    logits_E = jnp.log(score_E / (1 - score_E))
    routing = moe.route(TINY, jnp.ones((1, 1)), logits_E[None], jnp.zeros(8), START)
    assert routing.expert_TK.tolist() == [[6, 4]]
    np.testing.assert_allclose(routing.weight_TK, [[2.5 * 0.7 / 1.3, 2.5 * 0.6 / 1.3]], rtol=1e-6)


def test_the_bias_chooses_and_does_not_weigh():
    score_E = jnp.array([0.9, 0.8, 0.1, 0.1, 0.2, 0.1, 0.3, 0.1])
    logits_E = jnp.log(score_E / (1 - score_E))
    bias_E = jnp.zeros(8).at[4].set(5.0)
    grad_bias = jax.grad(lambda b: moe.route(TINY, jnp.ones((1, 1)), logits_E[None], b, START).weight_TK.sum())(bias_E)
    routing = moe.route(TINY, jnp.ones((1, 1)), logits_E[None], bias_E, START)
    assert routing.expert_TK.tolist() == [[4, 6]] and not grad_bias.any()
    np.testing.assert_allclose(routing.weight_TK, [[2.5 * 0.2 / 0.5, 2.5 * 0.3 / 0.5]], rtol=1e-6)


def test_a_negative_bias_does_not_open_other_groups():
    """-inf, not 0, stands outside the kept groups: all biased scores here are negative."""
    routing = moe.route(TINY, jnp.ones((1, 1)), jnp.zeros((1, 8)), jnp.array([-9.0] * 4 + [-8.0] * 4), START)
    assert set(routing.expert_TK[0].tolist()) <= {4, 5, 6, 7}


def test_one_choice_is_not_normalised():
    config = dataclasses.replace(TINY, num_experts_per_tok=1)
    routing = moe.route(config, jnp.ones((1, 1)), jnp.zeros((1, 8)), jnp.zeros(8), START)
    np.testing.assert_allclose(routing.weight_TK, [[2.5 * 0.5]])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_weighted_sum_is_float32(dtype):
    x, expert_TK, weight, gate_up, down = case(0, 9, 4, 2, 4, 4, "even")
    y, _ = moe.experts(x.astype(dtype), expert_TK, weight, gate_up, down)
    assert y.dtype == jnp.float32
    np.testing.assert_allclose(
        y, dense(x, expert_TK, weight, gate_up, down), atol=1e-4 if dtype == jnp.float32 else 0.5
    )


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 99),
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    block_size=st.integers(1, 5),
    capacity=st.integers(2, 8),
)
def test_block_routing_chooses_among_the_experts_that_the_block_admits(seed, lengths, block_size, capacity):
    rng = np.random.default_rng(seed)
    x_TD, router_DE = rng.normal(size=(sum(lengths), 5)), rng.normal(size=(5, 8))
    bias_E = rng.normal(size=8).astype(np.float32)
    config = dataclasses.replace(TINY, expert_capacity=capacity, block_size=block_size)
    place_T = jnp.concatenate([jnp.arange(length) for length in lengths])
    found = moe.route(config, jnp.asarray(x_TD, jnp.float32), jnp.asarray(router_DE, jnp.float32), bias_E, place_T)

    score_TE = 1 / (1 + np.exp(-(x_TD @ router_DE)))
    for stop, length in zip(np.cumsum(lengths), lengths, strict=True):
        for start in range(stop - length, stop, block_size):
            block_SE = score_TE[start : min(start + block_size, stop)] + bias_E
            admitted = np.argsort(-block_SE.max(0))[:capacity]
            for token, biased_E in enumerate(block_SE, start):
                chosen = sorted(admitted, key=lambda e, biased_E=biased_E: -biased_E[e])[:2]
                weight_K = score_TE[token, chosen]
                assert found.expert_TK[token].tolist() == [int(e) for e in chosen]
                np.testing.assert_allclose(found.weight_TK[token], 2.5 * weight_K / weight_K.sum(), rtol=1e-5)
