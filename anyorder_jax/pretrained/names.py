"""The table of names: what every tensor of a LLaDA2.x checkpoint is called, on disk and in our parameter tree.

One row per weight, read in both directions. On disk experts are `split` (one tensor an expert, as published)
or `merged` (one tensor a layer, as dFactory trains them). In the tree every layer of a group (`dense`: the
first layers, `moe`: the rest) is stacked on axis 0, and gate and up projections lie side by side:

    model.layers.3.mlp.experts.7.up_proj.weight [F, D]  ->  moe/expert_gate_up[3 - num_dense, 7, :, 1, :]

Letters: V vocabulary, D width, Q = (H + 2K)·C fused query, key and value rows, O = H·C, C head width, E experts,
F expert width, S width of the shared expert, I width of the dense MLP.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

LAYOUTS = ("split", "merged")
MODEL_TYPES = {"split": "llada2_moe", "merged": "llada2_moe_veomni"}
"""The `model_type` that the trainer of each layout needs. Layouts are recognised by names, never by this."""


@dataclass(frozen=True)
class Dims:
    """The sizes that decide which tensors a checkpoint has; read from its `config.json`."""

    num_layers: int
    num_dense: int
    num_experts: int
    sizes: Mapping[str, int]  # letter -> size
    has_qkv_bias: bool
    has_dense_bias: bool
    is_tied: bool  # no lm_head of its own

    @classmethod
    def from_config(cls, values: Mapping[str, Any], where: str) -> Dims:
        """Reads the sizes from the values of a `config.json`.

        Raises:
          ValueError: for another model family, and for a size that is missing or not a whole number.
        """
        model_type = values.get("model_type")
        if model_type not in MODEL_TYPES.values():
            raise ValueError(
                f"{where}: model_type is {model_type!r}, expected one of {sorted(MODEL_TYPES.values())}. "
                "Only LLaDA2.x checkpoints are converted."
            )

        def whole(key: str) -> int:
            if key not in values:
                raise ValueError(f"{where}: the key {key!r} is missing; a LLaDA2.x config has it.")
            if not isinstance(values[key], int) or isinstance(values[key], bool) or values[key] < 0:
                raise ValueError(f"{where}: {key!r} is {values[key]!r}, expected a whole number >= 0.")
            return values[key]

        def flag(key: str) -> bool:
            return bool(values.get(key))

        # null, 0 and a missing key all mean "no shared expert" in the reference
        num_shared = values.get("num_shared_experts")
        heads, kv_heads, head_width = (
            whole("num_attention_heads"),
            whole("num_key_value_heads"),
            whole("head_dim"),
        )
        return cls(
            num_layers=whole("num_hidden_layers"),
            num_dense=min(whole("first_k_dense_replace"), whole("num_hidden_layers")),
            num_experts=whole("num_experts"),
            sizes={
                "V": whole("vocab_size"),
                "D": whole("hidden_size"),
                "Q": (heads + 2 * kv_heads) * head_width,
                "O": heads * head_width,
                "C": head_width,
                "E": whole("num_experts"),
                "F": whole("moe_intermediate_size"),
                "S": whole("moe_intermediate_size") * (num_shared or 0),
                "I": whole("intermediate_size"),
            },
            has_qkv_bias=flag("use_qkv_bias"),
            has_dense_bias=flag("use_bias"),
            is_tied=flag("tie_word_embeddings"),
        )


@dataclass(frozen=True)
class Row:
    """One weight: its name on disk, its leaf in the tree, and how the one lies in the other.

    hf: the name; `{i}` is the layer, and for experts `{e}` the expert (split layout).
    merged_hf: the name in the merged layout, for experts only.
    group: "top", "attention" (every layer), "dense" or "moe" (the layers that have it).
    leaf: name in the tree, below "dense" or "moe" for the weights of a layer.
    shape: letters of one tensor of the split layout; in the merged layout E stands before them.
    is_transposed: torch keeps [out, in], the tree [in, out].
    half: for fused leaves [in, 2, out], which half this weight is.
    """

    hf: str
    group: str
    leaf: str
    shape: str
    is_transposed: bool = False
    half: int | None = None
    merged_hf: str = ""
    requires: str = ""  # the flag of Dims that says it is there


LAYER = "model.layers.{i}."
TABLE: tuple[Row, ...] = (
    Row("model.word_embeddings.weight", "top", "embedding", "VD"),
    Row(LAYER + "input_layernorm.weight", "attention", "input_norm", "D"),
    Row(LAYER + "attention.query_key_value.weight", "attention", "query_key_value", "QD", is_transposed=True),
    Row(LAYER + "attention.query_key_value.bias", "attention", "query_key_value_bias", "Q",
        requires="has_qkv_bias"),
    Row(LAYER + "attention.query_layernorm.weight", "attention", "query_norm", "C"),
    Row(LAYER + "attention.key_layernorm.weight", "attention", "key_norm", "C"),
    Row(LAYER + "attention.dense.weight", "attention", "attention_output", "DO", is_transposed=True),
    Row(LAYER + "attention.dense.bias", "attention", "attention_output_bias", "D", requires="has_dense_bias"),
    Row(LAYER + "post_attention_layernorm.weight", "attention", "post_attention_norm", "D"),
    Row(LAYER + "mlp.gate_proj.weight", "dense", "gate_up", "ID", is_transposed=True, half=0),
    Row(LAYER + "mlp.up_proj.weight", "dense", "gate_up", "ID", is_transposed=True, half=1),
    Row(LAYER + "mlp.down_proj.weight", "dense", "down", "DI", is_transposed=True),
    Row(LAYER + "mlp.gate.weight", "moe", "router", "ED", is_transposed=True),
    Row(LAYER + "mlp.gate.expert_bias", "moe", "expert_bias", "E"),
    Row(LAYER + "mlp.experts.{e}.gate_proj.weight", "moe", "expert_gate_up", "FD", is_transposed=True, half=0,
        merged_hf=LAYER + "mlp.experts.gate_proj"),
    Row(LAYER + "mlp.experts.{e}.up_proj.weight", "moe", "expert_gate_up", "FD", is_transposed=True, half=1,
        merged_hf=LAYER + "mlp.experts.up_proj"),
    Row(LAYER + "mlp.experts.{e}.down_proj.weight", "moe", "expert_down", "DF", is_transposed=True,
        merged_hf=LAYER + "mlp.experts.down_proj"),
    Row(LAYER + "mlp.shared_experts.gate_proj.weight", "moe", "shared_gate_up", "SD", is_transposed=True, half=0),
    Row(LAYER + "mlp.shared_experts.up_proj.weight", "moe", "shared_gate_up", "SD", is_transposed=True, half=1),
    Row(LAYER + "mlp.shared_experts.down_proj.weight", "moe", "shared_down", "DS", is_transposed=True),
    Row("model.norm.weight", "top", "final_norm", "D"),
    Row("lm_head.weight", "top", "head", "VD", is_transposed=True),
)  # fmt: skip


@dataclass(frozen=True)
class Place:
    """What one tensor on disk is: its row, its layer and expert (None where there is none), its shape."""

    row: Row
    layer: int | None
    expert: int | None
    shape: tuple[int, ...]
    is_optional: bool = False


def _layers(row: Row, dims: Dims) -> Sequence[int | None]:
    if row.group == "top":
        return (None,)
    first = dims.num_dense if row.group == "moe" else 0
    last = dims.num_dense if row.group == "dense" else dims.num_layers
    return range(first, last)


def is_there(row: Row, dims: Dims) -> bool:
    return not row.requires or bool(getattr(dims, row.requires))


def expected(dims: Dims, layout: str) -> dict[str, Place]:
    """Every tensor name of a checkpoint with these sizes -> what it is.

    Zero-sized shared experts (the reference writes them for `num_shared_experts: 0`) and the head of a tied
    model are
    optional: both forms are found in the wild and mean the same.
    """
    places: dict[str, Place] = {}
    for row in TABLE:
        if not is_there(row, dims):
            continue
        shape = tuple(dims.sizes[letter] for letter in row.shape)
        is_optional = math.prod(shape) == 0 or (row.leaf == "head" and dims.is_tied)
        for layer in _layers(row, dims):
            if not row.merged_hf:
                places[row.hf.format(i=layer)] = Place(row, layer, None, shape, is_optional)
            elif layout == "merged":
                name = row.merged_hf.format(i=layer)
                places[name] = Place(row, layer, None, (dims.num_experts, *shape), is_optional)
            else:
                for expert in range(dims.num_experts):
                    places[row.hf.format(i=layer, e=expert)] = Place(row, layer, expert, shape, is_optional)
    return places


def recognise(names: Sequence[str], where: str) -> str:
    """The layout, "split" or "merged", that these tensor names show.

    Raises:
      ValueError: when they show both, or neither.
    """
    expert_names = [name for name in names if ".mlp.experts." in name]
    split = [name for name in expert_names if name.split(".mlp.experts.")[1][:1].isdigit()]
    merged = [name for name in expert_names if name.split(".mlp.experts.")[1][:1].isalpha()]
    if split and merged:
        raise ValueError(
            f"{where}: expected one layout of experts, found both: {split[0]} is split and {merged[0]} is merged. "
            "The directory mixes two checkpoints."
        )
    if not expert_names:
        raise ValueError(
            f"{where}: no tensor is named '...mlp.experts...', so it is no mixture-of-experts checkpoint of LLaDA2.x. "
            f"It has {len(names)} tensors, the first are {sorted(names)[:3]}."
        )
    return "split" if split else "merged"


@dataclass(frozen=True)
class Differences:
    """How the names of a checkpoint differ from those that its config asks for."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    wrong_shape: tuple[str, ...]  # ready to print

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.wrong_shape)


def differences(shapes: Mapping[str, Sequence[int]], places: Mapping[str, Place]) -> Differences:
    """Compares the tensors that are there ({name: shape}) with those that should be."""
    return Differences(
        missing=tuple(name for name, place in places.items() if name not in shapes and not place.is_optional),
        unexpected=tuple(name for name in shapes if name not in places),
        wrong_shape=tuple(
            f"{name} has shape {list(shape)}, expected {list(places[name].shape)}"
            for name, shape in shapes.items()
            if name in places and tuple(shape) != places[name].shape
        ),
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def describe(found: Differences, places: Mapping[str, Place]) -> str:
    """The differences as sentences for an error message."""
    parts = []
    if found.missing:
        parts.append(f"{len(found.missing)} tensors are missing: {_some(found.missing)}.")
    if found.unexpected:
        near = difflib.get_close_matches(found.unexpected[0], found.missing or list(places)[:2000], n=1)
        hint = f" (is {found.unexpected[0]} meant to be {near[0]}?)" if near else ""
        parts.append(f"{len(found.unexpected)} tensors are unknown: {_some(found.unexpected)}{hint}.")
    if found.wrong_shape:
        parts.append(f"{len(found.wrong_shape)} shapes are wrong: {_some(found.wrong_shape)}.")
    return " ".join(parts)
