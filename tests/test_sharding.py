"""Mesh sizes multiply to the devices, every logical axis has a rule, rows split over the batch axes."""

import jax
import numpy as np
import pytest

from anyorder_jax import sharding
from anyorder_jax.config import MeshConfig


def test_minus_one_takes_what_is_left(devices):
    mesh = sharding.make_mesh(MeshConfig(data=-1, fsdp=2, expert=2), devices)
    assert dict(mesh.shape) == {"data": 2, "fsdp": 2, "expert": 2, "tensor": 1}


@pytest.mark.parametrize("config", [MeshConfig(data=3), MeshConfig(data=-1, fsdp=3), MeshConfig(data=16)])
def test_a_mesh_that_does_not_fit_is_refused(config, devices):
    with pytest.raises(ValueError, match=r"config\.mesh.*does not lay out 8 device"):
        sharding.make_mesh(config, devices)


def axes_of(spec):
    """A spec as a tuple of mesh axes per dimension, whichever way JAX spells one axis."""
    return tuple((entry,) if isinstance(entry, str) else entry for entry in spec)


def test_rules_place_weights_and_leave_odd_dims_whole(devices):
    mesh = sharding.make_mesh(MeshConfig(data=1, fsdp=2, expert=2, tensor=2), devices)
    spec = sharding.spec_of(("layer", "expert", "embed", "gate_up", "width"), (3, 8, 16, 2, 6), mesh)
    assert axes_of(spec) == (None, ("expert", "fsdp"), None, None, ("tensor",))
    odd = sharding.spec_of(("layer", "expert", "embed"), (3, 6, 16), mesh)  # no 4 equal parts: half of each expert
    assert axes_of(odd) == (None, ("expert",), ("fsdp",))
    dense = [axes_of(sharding.spec_of(("embed", "width"), (dim, 6), mesh)) for dim in (8, 6, 7)]
    assert dense == [(("fsdp", "expert"), ("tensor",)), (("fsdp",), ("tensor",)), (None, ("tensor",))]


def test_an_unknown_logical_axis_is_named(devices):
    mesh = sharding.make_mesh(MeshConfig(), devices)
    with pytest.raises(ValueError, match="no rule covers the logical axis 'colour'"):
        sharding.spec_of(("colour",), (4,), mesh)


def test_rows_that_do_not_split_are_refused(devices):
    mesh = sharding.make_mesh(MeshConfig(), devices)
    with pytest.raises(ValueError, match=r"batch_size: 12 rows cannot be split over 8 devices"):
        sharding.place_batch({"x": np.zeros((12, 3))}, mesh)
    placed = sharding.place_batch({"x": np.arange(16.0).reshape(16, 1)}, mesh)["x"]
    assert len(placed.sharding.device_set) == 8 and jax.numpy.sum(placed) == 120
