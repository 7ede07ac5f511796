"""Our Hopper kernel on a CPU, by JAX's interpreter for such kernels, which also finds races (jax 0.11 and later)."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import mosaic_gpu

from anyorder_jax.model.kernels import mosaic

Interpret = getattr(mosaic_gpu, "InterpretGPUParams", None)


@pytest.mark.skipif(Interpret is None, reason="this JAX has no interpreter for Mosaic GPU kernels (0.11 has)")
@pytest.mark.parametrize("sides", [(128, 64), (64, 32)])
@pytest.mark.parametrize("sizes", [(100, 0, 37, 90), (0, 256, 0, 0), (64, 64, 64, 64), (1, 1, 1, 1)])
def test_the_gradient_of_matrices_is_its_definition(sides, sizes):
    """Groups that begin and end anywhere; sides that are filled up; NaN in rows of nobody."""
    rng = np.random.default_rng(0)
    x, grad = (jnp.asarray(rng.standard_normal((256, side)), jnp.bfloat16) for side in sides)
    filled = sum(sizes)
    spoiled = [a.at[filled:].set(jnp.nan) for a in (x, grad)]
    interpret = Interpret(detect_races=True)
    found = mosaic.gradient_of_matrices(*spoiled, jnp.asarray(sizes, jnp.int32), interpret)
    edges = np.cumsum([0, *sizes])
    wide = [np.asarray(a, np.float64) for a in (x, grad)]
    for e, (first, end) in enumerate(itertools.pairwise(edges)):
        np.testing.assert_allclose(
            found[e].astype(float), wide[0][first:end].T @ wide[1][first:end], rtol=1e-2, atol=1e-6
        )


def test_rows_that_are_no_multiple_of_a_block_are_refused():
    with pytest.raises(ValueError, match="expected a multiple of 64 rows, got 65"):
        mosaic.gradient_of_matrices(jnp.ones((65, 64)), jnp.ones((65, 64)), jnp.ones(1, jnp.int32))
