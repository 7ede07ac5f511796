"""The mesh, the rules that place arrays on it, and nothing else: the only file that says `PartitionSpec`.

A weight is declared once with logical axis names (model/transformer.py). RULES turns each name into mesh axes; the
first rule of a name that fits wins: its mesh axes divide the dimension, and no earlier dimension has taken one of them.
A dimension without such a rule stays whole on every device.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from anyorder_jax.config import MeshConfig

AXES = ("data", "fsdp", "expert", "tensor")
BATCH_AXES = ("data", "fsdp", "expert")
"""Rows of a batch are split over these: every device that is not a tensor-parallel partner has its own rows."""

RULES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("layer", ()),  # scanned over
    ("vocab", ("tensor",)),
    # Over `expert` too: outside of the experts its partners would hold, and sum, the same numbers twice.
    ("embed", ("fsdp", "expert")),
    ("embed", ("fsdp",)),
    ("heads", ("tensor",)),
    ("width", ("tensor",)),  # the inner width of an MLP or an expert
    # Whole experts before parts of each: gathering them puts one device's behind another's and turns nothing round.
    ("expert", ("expert", "fsdp")),
    ("expert", ("expert",)),
    ("router", ()),  # the router's outputs: every device routes its own tokens
    ("gate_up", ()),  # the pair (gate, up)
    ("head_width", ()),
    ("rank", ()),  # of LoRA's factors
    ("norm", ()),
    ("row_shard", BATCH_AXES),  # no weight's: what every device has of its own, one entry each
)


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Lays the devices out as `data x fsdp x expert x tensor`, all axes `Auto` (the compiler propagates).

    Raises:
      ValueError: when the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = [config.data, config.fsdp, config.expert, config.tensor]
    known = math.prod(s for s in sizes if s != -1)
    if -1 in sizes and len(devices) % known == 0:
        sizes[sizes.index(-1)] = len(devices) // known
    if math.prod(sizes) != len(devices):
        raise ValueError(
            f"config.mesh: {dict(zip(AXES, sizes, strict=True))} does not lay out {len(devices)} device(s). "
            "Choose sizes whose product is the number of devices; one of them may be -1."
        )
    grid = np.asarray(devices).reshape(sizes)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def platform(mesh: Mesh | None) -> str:
    """What the mesh's devices are (None: the default ones): "cpu", "tpu", "hopper" (H100, H200), or "gpu" for others.

    Kernels are chosen by it, so that a program compiled for devices that are not here gets theirs.
    """
    device = jax.devices()[0] if mesh is None else mesh.devices.flat[0]
    if device.platform in ("cpu", "tpu"):
        return device.platform
    return "hopper" if getattr(device, "compute_capability", "") == "9.0" else "gpu"


def spec_of(axes: Sequence[str | None], shape: Sequence[int], mesh: Mesh) -> PartitionSpec:
    """The mesh axes of each dimension of a weight with these logical axes.

    Raises:
      ValueError: for a logical axis that no rule covers.
    """
    entries: list[Any] = []
    taken: set[str] = set()
    for name, dim in zip(axes, shape, strict=True):
        choices = [mesh_axes for rule, mesh_axes in RULES if rule == name]
        if name is not None and not choices:
            raise ValueError(
                f"sharding: no rule covers the logical axis {name!r}. Add one to RULES in sharding.py (an empty tuple "
                f"replicates); the rules are {sorted({rule for rule, _ in RULES})}."
            )
        fitting = (c for c in choices if dim % math.prod(mesh.shape[a] for a in c) == 0 and not taken & set(c))
        mesh_axes = next(fitting, ())
        taken.update(mesh_axes)
        entries.append(mesh_axes or None)
    return PartitionSpec(*entries)


def constrain(x: jax.Array, axes: Sequence[str | None], mesh: Mesh | None) -> jax.Array:
    """`x`, laid out by the rules for these logical axes; without a mesh wherever it is."""
    return x if mesh is None else jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec_of(axes, x.shape, mesh)))


def weight_shardings(parameters: Any, mesh: Mesh) -> Any:
    """A tree of `NamedSharding` for a tree of declared parameters (leaves with `.axes` and `.shape`)."""
    return jax.tree.map(
        lambda p: NamedSharding(mesh, spec_of(p.axes, p.shape, mesh)),
        parameters,
        is_leaf=lambda p: hasattr(p, "axes"),
    )


def expert_specs(num_weights: int, num_experts: int, mesh: Mesh) -> tuple[Any, Any]:
    """How the inputs and outputs of one device's share of `moe.routed` lie on the mesh.

    Inputs: x [B, L, D]; places, is_needed [B, L]; the first `num_weights` of (router [D, E], bias [E], gate_up
    [E, D, 2, F], down [E, F, D], LoRA's a [E, D, 2, r] and b [E, r, 2, F] of the one, a [E, F, 1, r] and b [E, r, 1, D]
    of the other).
    Outputs: the sum [T, D]; the routing's three [T, ...]; the load [E]. Experts lie as the rules split them; where that
    is over `fsdp`, the share gathers them itself. Weights that are split elsewhere are gathered on the way in.
    """
    rows, whole = PartitionSpec(BATCH_AXES), PartitionSpec()
    lie = spec_of(("expert",), (num_experts,), mesh)[0]
    experts, last, first = (PartitionSpec(lie, *rest) for rest in ((), (None, None, "tensor"), ("tensor",)))
    weights = (whole, whole, last, first, experts, last, first, experts)
    return (rows, rows, rows, weights[:num_weights]), (rows, (rows, rows, rows), PartitionSpec("expert"))


def attention_specs() -> tuple[PartitionSpec, PartitionSpec]:
    """How q, k, v and the result [B, L, heads, C], and the segment ids [B, L], lie where a kernel attends."""
    return PartitionSpec(BATCH_AXES, None, "tensor"), PartitionSpec(BATCH_AXES)


def on_devices(function: Any, mesh: Mesh, in_specs: Any, out_specs: Any) -> Any:
    """`function` as every device runs it on its own part (`jax.shard_map`, without the `check_vma` that loses
    gradients of sorted indices).

    Args:
      function: of arrays.
      mesh: of the devices.
      in_specs, out_specs: how arguments and results are split over it.
    """
    return jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)


def gathered(tree: Any, axis: str, mesh: Mesh) -> Any:
    """Every partner's [n, ...] along a mesh axis, one behind the other: [size * n, ...]; for `on_devices`.

    The gradient is `scattered`. Between processes on a CPU both are exchanges of parts: reduce-scatter there returned
    before its last bytes were sent, and gave wrong sums now and then (jax#40830; jax 0.10 and 0.11).
    """
    if not _is_over_gloo(mesh):
        return lax.all_gather(tree, axis, tiled=True)

    def exchange(x: jax.Array) -> jax.Array:
        copies = jnp.broadcast_to(x, (mesh.shape[axis], *x.shape))
        return lax.all_to_all(copies, axis, 0, 0).reshape(-1, *x.shape[1:])

    return jax.tree.map(exchange, tree)


def scattered(x: jax.Array, axis: str, mesh: Mesh) -> jax.Array:
    """This device's [n, ...] of the partners' sum of [size * n, ...] (reduce-scatter); for `on_devices`."""
    if not _is_over_gloo(mesh):
        return lax.psum_scatter(x, axis, tiled=True)
    return lax.all_to_all(x.reshape(mesh.shape[axis], -1, *x.shape[1:]), axis, 0, 0).sum(0)


def _is_over_gloo(mesh: Mesh) -> bool:
    return platform(mesh) == "cpu" and jax.distributed.is_initialized()


def fitting(wanted: NamedSharding, shape: Sequence[int]) -> NamedSharding:
    """`wanted`, with those dimensions whole that its mesh axes do not divide."""
    entries = []
    for axes, dim in zip(wanted.spec, shape, strict=True):
        parts = math.prod(wanted.mesh.shape[a] for a in ((axes,) if isinstance(axes, str) else axes or ()))
        entries.append(axes if dim % parts == 0 else None)
    return NamedSharding(wanted.mesh, PartitionSpec(*entries))


def on_host(placed: NamedSharding) -> NamedSharding:
    """The same part of the array for every device, in the host's pinned memory."""
    return placed.with_memory_kind("pinned_host")


def is_on_host(placed: Any) -> bool:
    """Whether arrays with this sharding wait on the host."""
    return placed.memory_kind == "pinned_host"


def fetch(tree: Any, placed: Any) -> Any:
    """Inside a jitted function: what waits on the host, brought to the devices; `placed` is the tree's shardings."""
    return jax.tree.map(
        lambda x, s: jax.device_put(x, s.with_memory_kind("device")) if is_on_host(s) else x, tree, placed
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """The placement of an array that is whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def rows(mesh: Mesh) -> NamedSharding:
    """[B, ...] with rows over the batch axes."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def micro_rows(mesh: Mesh) -> NamedSharding:
    """[A, B, ...] with A micro-batches whole and rows over the batch axes."""
    return NamedSharding(mesh, PartitionSpec(None, BATCH_AXES))


ROW_TOKENS, MAX_ROWS = 2**13, 16
"""Tokens, and rows, that each part of the mesh computes together."""


def rows_per_shard(length: int) -> int:
    """Rows of this length that each part of the mesh computes together."""
    return max(1, min(MAX_ROWS, ROW_TOKENS // length))


def mesh_of(params: Any) -> Mesh:
    """The mesh that weights were placed on; of weights that were not, one of their device."""
    embedding = params["embedding"]
    if isinstance(embedding, jax.Array) and isinstance(embedding.sharding, NamedSharding):
        mesh: Any = embedding.sharding.mesh
        return mesh
    devices = embedding.devices() if isinstance(embedding, jax.Array) else jax.local_devices()[:1]
    return make_mesh(MeshConfig(), sorted(devices, key=lambda device: device.id)[:1])


def num_row_shards(mesh: Mesh) -> int:
    """Into how many parts the rows of a batch are split."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


@functools.cache
def data_share(mesh: Mesh) -> tuple[int, int]:
    """(index, count): this process makes share `index` of the `count` equal shares of every batch's rows.

    Each process its own; those whose devices hold the same rows (tensor parallelism across hosts) make the same share.

    Raises:
      ValueError: when the devices of two processes hold rows that are partly the same.
    """
    parts = mesh.devices.reshape(-1, mesh.shape["tensor"])
    held: dict[int, set[int]] = {device.process_index: set() for device in mesh.devices.flat}
    for part, devices in enumerate(parts):
        for device in devices:
            held[device.process_index].add(part)
    shares = sorted({tuple(sorted(rows)) for rows in held.values()})
    if sum(map(len, shares)) != len(parts) or len(set(map(len, shares))) > 1:
        raise ValueError(
            f"config.mesh: tensor = {mesh.shape['tensor']} splits {len(held)} processes of "
            f"{len(mesh.local_devices)} devices unevenly. Choose one that divides a process's devices, or a multiple."
        )
    return shares.index(tuple(sorted(held[jax.process_index()]))), len(shares)


def place_batch(batch: Any, mesh: Mesh) -> Any:
    """Host arrays [B / shares, ...] (`data_share`) -> global arrays [B, ...] with rows over the batch axes.

    Raises:
      ValueError: when the batch axes do not divide the rows.
    """
    parts = num_row_shards(mesh)
    _, num_shares = data_share(mesh)
    num_rows = len(jax.tree.leaves(batch)[0]) * num_shares
    if num_rows % parts:
        raise ValueError(
            f"config.train.batch_size: {num_rows} rows cannot be split over {parts} devices "
            f"(mesh axes {BATCH_AXES}). Choose a multiple of {parts}."
        )
    target = rows(mesh)
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(target, np.asarray(x), (num_rows, *x.shape[1:])), batch
    )
