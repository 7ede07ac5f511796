"""The routed experts, in four parts that can be replaced apart: route -> dispatch -> grouped_dot -> combine.

Every token reaches all the experts it chose, whatever the load (dropless). Letters: T tokens, K experts a
token chooses, E experts, F expert width, R rows of the dispatched buffer.

    tokens  t0 t1 t2          expert of slot (k, t)   e1 e0 e1 | e0 e2 e0
    rows    t1 t0 t2 .  t0 t2 .  .  t1 .  .  .        tiles of 4 rows, `.` are zero rows
            ---- e0 --  ---- e1 --  ---- e2 --
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh

from anyorder_jax import sharding
from anyorder_jax.model.config import ModelConfig
from anyorder_jax.model.kernels.grouped import best_backend, grouped_dot
from anyorder_jax.model.layers import Pair, gated, low_rank


class Routing(NamedTuple):
    """What the router decided. logits_TE: float32 [T, E], before the sigmoid. expert_TK: int32 [T, K],
    highest biased score first. weight_TK: float32 [T, K]."""

    logits_TE: jax.Array
    expert_TK: jax.Array
    weight_TK: jax.Array


def route(
    config: ModelConfig, x_TD: jax.Array, router_DE: jax.Array, expert_bias_E: jax.Array, place_T: jax.Array
) -> Routing:
    """Chooses experts by biased scores within the best groups, and weighs them by unbiased ones; all in
    float32. With `config.expert_capacity` (LLaDA2.2) the blocks of a document admit experts, in place of groups.

        s = sigmoid(x W)     choice: top K of s + bias, in the topk_group groups whose two best sum highest
        weight = s / (sum of the chosen s + 1e-20) * routed_scaling_factor          (K = 1: s * factor)

    The bias is a buffer: no gradient. LLaDA2 (dFactory), `LLaDA2MoeGate`; groups as in DeepSeek-V3, arXiv
    2412.19437.

    Args:
      config: the model's shape.
      x_TD: [T, D], documents one after another.
      router_DE: any float dtype.
      expert_bias_E: added to the scores by which experts are chosen.
      place_T: int32 [T], a token's place in its document, from 0; read by block routing alone.
    """
    logits_TE = jnp.einsum(
        "td,de->te", x_TD.astype(jnp.float32), router_DE.astype(jnp.float32), precision=lax.Precision.HIGHEST
    )
    score_TE = jax.nn.sigmoid(logits_TE)
    biased_TE = lax.stop_gradient(score_TE + expert_bias_E.astype(jnp.float32)[None])
    if config.expert_capacity is not None and config.block_size is not None:
        biased_TE = _keep_admitted(biased_TE, place_T, config.block_size, config.expert_capacity)
    elif config.topk_group < config.n_group:
        biased_TE = _keep_best_groups(biased_TE, config.n_group, config.topk_group)
    _, expert_TK = lax.top_k(biased_TE, config.num_experts_per_tok)
    weight_TK = jnp.take_along_axis(score_TE, expert_TK, axis=1)
    if config.num_experts_per_tok > 1:
        weight_TK = weight_TK / (weight_TK.sum(-1, keepdims=True) + 1e-20)
    return Routing(logits_TE, expert_TK, weight_TK * config.routed_scaling_factor)


def _keep_best_groups(biased_TE: jax.Array, num_groups: int, num_kept: int) -> jax.Array:
    """-inf outside the groups with the highest sums of their two best scores (the published model; others use
    0, which is wrong when a bias makes scores negative)."""
    T, E = biased_TE.shape
    grouped_TGS = biased_TE.reshape(T, num_groups, E // num_groups)
    group_score_TG = lax.top_k(grouped_TGS, 2)[0].sum(-1)
    _, kept_TN = lax.top_k(group_score_TG, num_kept)
    is_kept_TG = (kept_TN[:, :, None] == jnp.arange(num_groups)[None, None]).any(1)
    return jnp.where(is_kept_TG[:, :, None], grouped_TGS, -jnp.inf).reshape(T, E)


def _keep_admitted(biased_TE: jax.Array, place_T: jax.Array, block_size: int, capacity: int) -> jax.Array:
    """-inf outside the `capacity` experts that a token's block admits: those of the highest score that any of its
    tokens gives. LLaDA2.2 technical report, block routing; the biased scores, without groups, as SGLang serves it
    (sgl-project/sglang pull request 31768).

    Blocks count from the start of a document, so that others in its row and padding do not vote (block_size 3):

        place_T  0 1 2 3 4 0 1 0       block  a a a b b c c d
    """
    T, E = biased_TE.shape
    first_T = jnp.arange(T) - place_T % block_size  # of the token's block
    best_TE = jax.ops.segment_max(biased_TE, first_T, T, indices_are_sorted=True)[first_T]
    _, admitted_TC = lax.top_k(best_TE, capacity)
    is_admitted_TE = (admitted_TC[..., None] == jnp.arange(E)[None, None]).any(1)
    return jnp.where(is_admitted_TE, biased_TE, -jnp.inf)


class Layout(NamedTuple):
    """Where each (token, choice) lies in the dispatched buffer.

    row_KT: int32 [K, T], the row of token t's k-th choice; R when its expert is on another device. slot_R:
      int32 [R], the inverse: k * T + t, or K * T for a row that no token fills. group_sizes_E: int32 [E],
      rows of each expert, one after another from row 0, each a multiple of the tile. load_E: int32 [E], how
      many of them are tokens.
    """

    row_KT: jax.Array
    slot_R: jax.Array
    group_sizes_E: jax.Array
    load_E: jax.Array


def tile_rows(backend: str, num_slots: int, num_experts: int, width: int) -> int:
    """Rows that `grouped_dot` wants groups rounded up to. Measured on a CPU: for "pieces" an eighth of an expert's mean
    load, from 8 to 32, to 16 for rows of few dims; for "tiles" from a half to all of it, from 8 to 128.

    Args:
      backend: of `grouped_dot`.
      num_slots: tokens times experts a token.
      num_experts: that share them.
      width: dims of a row.
    """
    mean_load = max(num_slots // num_experts, 1)
    match backend:
        case "pieces":
            return min(1 << max(mean_load.bit_length() - 4, 3), 32 if width >= 256 else 16)
        case "tiles":
            return min(max(1 << (mean_load // 2).bit_length(), 8), 128)
    return 1


def layout_of(
    expert_TK: jax.Array,
    num_experts: int,
    tile: int,
    first_expert: jax.Array | int = 0,
    by_sort: bool = False,
) -> Layout:
    """The slots in order of their experts, stable, with every group rounded up to whole tiles.

    Slots of experts outside first_expert .. first_expert + num_experts - 1 (those of other devices) get no
    row.

    Counting (the running count of a one-hot [K*T, E]) is faster on a CPU: 0.16 against 0.45 ms for 3,712 slots of 8
    experts; with 256 experts and 64k slots on an accelerator `by_sort` is. Both give the same layout. No gradient flows
    through either; `shard_map` must run without `check_vma`, or a sort's indices lose other gradients (jax 0.10, 0.11).

    Args:
      expert_TK: int32 [T, K], of `route`.
      num_experts: that are here.
      tile: rows that groups are rounded up to.
      first_expert: the first that is here.
      by_sort: how; see above.
    """
    T, K = expert_TK.shape
    num_slots = K * T
    num_rows = (num_slots + num_experts * (tile - 1)) // tile * tile
    expert_S = expert_TK.T.reshape(num_slots) - first_expert
    is_mine_S = (expert_S >= 0) & (expert_S < num_experts)
    slots = jnp.arange(num_slots, dtype=jnp.int32)
    if by_sort:
        expert_S = jnp.where(is_mine_S, expert_S, num_experts)
        sorted_S, order_S = lax.sort_key_val(expert_S, slots, is_stable=True)
        edges = jnp.searchsorted(sorted_S, jnp.arange(num_experts + 1), side="left").astype(jnp.int32)
        load_E = jnp.diff(edges)
        group_sizes_E = (load_E + tile - 1) // tile * tile
        shift_E = jnp.cumsum(group_sizes_E) - group_sizes_E - edges[:-1]
        row_of_sorted_S = slots + shift_E.at[sorted_S].get(mode="fill", fill_value=0)
        row_of_sorted_S = jnp.where(sorted_S < num_experts, row_of_sorted_S, num_rows)
        row_S = jnp.zeros_like(slots).at[order_S].set(row_of_sorted_S, unique_indices=True)
    else:
        is_mine_SE = expert_S[:, None] == jnp.arange(num_experts)[None]
        count_SE = jnp.cumsum(is_mine_SE, axis=0, dtype=jnp.int32)
        load_E = count_SE[-1]
        group_sizes_E = (load_E + tile - 1) // tile * tile
        start_E = jnp.cumsum(group_sizes_E) - group_sizes_E
        row_S = jnp.where(is_mine_SE, count_SE - 1 + start_E[None], 0).sum(1)
        row_S = jnp.where(is_mine_S, row_S, num_rows)
    slot_R = jnp.full((num_rows,), num_slots, jnp.int32).at[row_S].set(slots, mode="drop")
    return Layout(row_S.reshape(K, T), slot_R, group_sizes_E, load_E)


def _rows(x_RD: jax.Array, row_T: jax.Array) -> jax.Array:
    """Rows of the buffer, zeros where the row is R (no row)."""
    return x_RD.at[row_T].get(mode="fill", fill_value=0)


@jax.custom_vjp
def dispatch(x_TD: jax.Array, layout: Layout) -> jax.Array:
    """Copies every token to the rows of the experts it chose: [T, D] -> [R, D], zeros in unfilled rows.

    Its gradient is written as a gather, because the transpose of a gather (scatter-add) is slow and, on a
    GPU, not reproducible.
    """
    T, num_slots = x_TD.shape[0], layout.row_KT.size
    token_R = jnp.where(layout.slot_R < num_slots, layout.slot_R % T, T)
    return x_TD.at[token_R].get(mode="fill", fill_value=0)


def _dispatch_forward(x_TD: jax.Array, layout: Layout) -> tuple[jax.Array, Layout]:
    return dispatch(x_TD, layout), layout


def _dispatch_backward(layout: Layout, grad_RD: jax.Array) -> tuple[jax.Array, None]:
    total_TD = sum(_rows(grad_RD, row_T).astype(jnp.float32) for row_T in layout.row_KT)
    return jnp.asarray(total_TD).astype(grad_RD.dtype), None


dispatch.defvjp(_dispatch_forward, _dispatch_backward)


@jax.custom_vjp
def combine(y_RD: jax.Array, weight_TK: jax.Array, layout: Layout) -> jax.Array:
    """Sums every token's expert outputs with the router's weights, in float32: [R, D], [T, K] -> float32 [T,
    D]."""
    rows_KTD = (_rows(y_RD, row_T).astype(jnp.float32) for row_T in layout.row_KT)
    total_TD = sum(row_TD * weight_T[:, None] for row_TD, weight_T in zip(rows_KTD, weight_TK.T, strict=True))
    return jnp.asarray(total_TD)


def _combine_forward(y_RD: jax.Array, weight_TK: jax.Array, layout: Layout) -> tuple[jax.Array, tuple]:
    return combine(y_RD, weight_TK, layout), (y_RD, weight_TK, layout)


def _combine_backward(saved: tuple, grad_TD: jax.Array) -> tuple[jax.Array, jax.Array, None]:
    y_RD, weight_TK, layout = saved
    T = weight_TK.shape[0]
    weight_R = weight_TK.T.reshape(-1).at[layout.slot_R].get(mode="fill", fill_value=0)
    grad_RD = (grad_TD[layout.slot_R % T] * weight_R[:, None]).astype(y_RD.dtype)
    grad_weight = [(_rows(y_RD, row_T).astype(jnp.float32) * grad_TD).sum(-1) for row_T in layout.row_KT]
    return grad_RD, jnp.stack(grad_weight, axis=1), None


combine.defvjp(_combine_forward, _combine_backward)


def experts(
    x_TD: jax.Array,
    expert_TK: jax.Array,
    weight_TK: jax.Array,
    gate_up_ED2F: jax.Array,
    down_EFD: jax.Array,
    first_expert: jax.Array | int = 0,
    backend: str = "tiles",
    factors: Sequence[jax.Array] = (),
) -> tuple[jax.Array, jax.Array]:
    """The weighted sum of every token's experts, as far as they are here: first_expert and the E-1 after it.

    Args:
      x_TD: tokens.
      expert_TK: int32 [T, K], of `route`.
      weight_TK: float32 [T, K], of `route`.
      gate_up_ED2F: both first matrices of each expert.
      down_EFD: the last one.
      first_expert: the number of the first that is here.
      backend: of `grouped_dot`.
      factors: the last four of `Weights`, or none.

    Returns:
      (float32 [T, D], int32 [E] tokens sent to each expert).
    """
    E, D, _, F = gate_up_ED2F.shape
    tile = tile_rows(backend, expert_TK.size, E, D)
    layout = layout_of(expert_TK, E, tile, first_expert, by_sort=tile == 1)
    dot = functools.partial(grouped_dot, group_sizes_E=layout.group_sizes_E, tile=tile, backend=backend)
    x_RD = dispatch(x_TD, layout)
    hidden_RG = dot(x_RD, gate_up_ED2F.astype(x_TD.dtype).reshape(E, D, 2 * F))
    if factors:
        hidden_RG = hidden_RG + low_rank(x_RD, Pair(*factors[:2]), dot)
    hidden_RF = gated(hidden_RG.reshape(-1, 2, F))
    y_RD = dot(hidden_RF, down_EFD.astype(x_TD.dtype))
    if factors:
        y_RD = y_RD + low_rank(hidden_RF, Pair(*factors[2:]), dot)
    return combine(y_RD, weight_TK, layout), layout.load_E


class Weights(NamedTuple):
    """One layer's router and experts; with LoRA on experts a `layers.Pair` for each of the two stacks."""

    router_DE: jax.Array
    expert_bias_E: jax.Array
    gate_up_ED2F: jax.Array
    down_EFD: jax.Array
    gate_up_a: jax.Array | None = None
    gate_up_b: jax.Array | None = None
    down_a: jax.Array | None = None
    down_b: jax.Array | None = None


def routed(
    config: ModelConfig,
    x_BLD: jax.Array,
    place_BL: jax.Array,
    weights: Weights,
    mesh: Mesh | None,
    is_needed_BL: jax.Array | None = None,
) -> tuple[jax.Array, Routing, jax.Array]:
    """Routes every token and sums its experts, on one device or on a mesh.

    On a mesh every device routes its own rows. Partners along `fsdp` hold a part of the experts each, and gather them;
    the gradients are scattered back (reduce-scatter). Partners along `expert` hold E / size experts each: they
    gather one another's tokens, add what their own experts say, and scatter the sums back (all-gather,
    reduce-scatter). Partners along `tensor` hold a part of every expert's width and add up. `check_vma` is
    off in `shard_map`, because with it a sort's indices lose their gradient silently (jax 0.10 and 0.11).
    The kernel is that of the mesh's devices, also when they are only compiled for.

    Args:
      place_BL: int32 [B, L], of `attention.places`.
      is_needed_BL: bool, tokens that are sent to their experts; the others' sum is 0 (None: all are sent).

    Returns:
      (float32 [T, D], routing of all T tokens, int32 [E] tokens sent to each expert).
    """

    def here(
        x_BLD: jax.Array, place_BL: jax.Array, is_needed_BL: jax.Array, weights: tuple[jax.Array, ...]
    ) -> tuple[jax.Array, tuple[jax.Array, ...], jax.Array]:
        router_DE, expert_bias_E, gate_up_ED2F, down_EFD, *factors = weights
        x_TD = x_BLD.reshape(-1, x_BLD.shape[-1])
        routing = route(config, x_TD, router_DE, expert_bias_E, place_BL.reshape(-1))
        sent_TK = jnp.where(is_needed_BL.reshape(-1, 1), routing.expert_TK, config.num_experts)  # else to nobody
        slots = (x_TD, sent_TK, routing.weight_TK)
        if mesh is not None and down_EFD.shape[0] < num_experts_here:
            mine = gate_up_ED2F, down_EFD, *factors
            gate_up_ED2F, down_EFD, *factors = sharding.gathered(mine, "fsdp", mesh)
        first: jax.Array | int = 0
        if mesh is not None and over_experts:
            slots = sharding.gathered(slots, "expert", mesh)
            first = lax.axis_index("expert") * down_EFD.shape[0]
        y_TD, load_E = experts(*slots, gate_up_ED2F, down_EFD, first, backend, factors)
        if over_width:
            y_TD = lax.psum(y_TD, "tensor")
        if mesh is not None and over_experts:
            y_TD = sharding.scattered(y_TD, "expert", mesh)
        if mesh is not None:
            load_E = lax.psum(load_E, ("data", "fsdp"))
        return y_TD, tuple(routing), load_E

    backend = best_backend(sharding.platform(mesh), x_BLD.dtype)
    # Cast before they are gathered over `fsdp`: half the bytes, half the memory.
    weights = weights._replace(
        gate_up_ED2F=weights.gate_up_ED2F.astype(x_BLD.dtype), down_EFD=weights.down_EFD.astype(x_BLD.dtype)
    )
    arrays = tuple(array for array in weights if array is not None)
    mesh = None if mesh is None or mesh.size == 1 else mesh
    over_experts = mesh is not None and mesh.shape["expert"] > 1
    over_width = mesh is not None and mesh.shape["tensor"] > 1
    num_experts_here = weights.down_EFD.shape[0] // (1 if mesh is None else mesh.shape["expert"])
    if is_needed_BL is None:
        is_needed_BL = jnp.ones(x_BLD.shape[:2], bool)
    if mesh is None:
        y_TD, routing, load_E = here(x_BLD, place_BL, is_needed_BL, arrays)
        return y_TD, Routing(*routing), load_E
    E, F = weights.down_EFD.shape[:2]
    if E % mesh.shape["expert"] or F % mesh.shape["tensor"]:
        raise ValueError(
            f"config.mesh: {E} experts of width {F} do not split over expert={mesh.shape['expert']}, "
            f"tensor={mesh.shape['tensor']}. Choose divisors."
        )
    specs = sharding.expert_specs(len(arrays), E, mesh)
    y_TD, routing, load_E = sharding.on_devices(here, mesh, *specs)(x_BLD, place_BL, is_needed_BL, arrays)
    return y_TD, Routing(*routing), load_E
