"""ModelConfig: the shape of a LLaDA2-MoE, read from and written to a Hugging Face `config.json`."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MODEL_TYPES = ("llada2_moe", "llada2_moe_veomni")
"""Split experts as published, and dFactory's merged experts. Tensor names, not this word, tell the layout
apart."""

_REQUIRED_VALUES: dict[str, tuple[Any, ...]] = {
    # Published keys that the computation does not branch on: these values are what it computes, others are
    # refused.
    "hidden_act": ("silu",),
    "rope_scaling": (None,),
    "tie_word_embeddings": (False,),
    "norm_topk_prob": (True,),
    "score_function": ("sigmoid", None),
    "router_dtype": ("fp32", "float32", None),
    "moe_router_enable_expert_bias": (True,),
    "use_qk_norm": (True,),
    "use_rmsnorm": (True,),
    "norm_head": (False,),
    "norm_softmax": (False,),
    "use_sliding_window": (False,),
    "using_split_qkv_in_self_attention": (False,),
    "attention_dropout": (0, None),
    "embedding_dropout": (0, None),
    "output_dropout": (0, None),
}

_IGNORED = {
    # Keys that change nothing in a forward pass; token ids come from the tokenizer.
    "architectures", "attn_implementation", "auto_map", "chunk_size_feed_forward", "dtype", "id2label",
    "is_encoder_decoder", "label2id", "max_window_layers", "model_type",
    "output_attentions", "output_hidden_states", "output_router_logits",
    "problem_type", "return_dict", "rope_parameters", "rotary_dim", "sliding_window", "tokenizer_class",
    "torch_dtype", "transformers_version", "use_cache",
}  # fmt: skip


@dataclass(frozen=True)
class ModelConfig:
    """What a LLaDA2-MoE computes. Fields carry the names of the published `config.json`.

    `num_shared_experts` 0 means none (published as null or 0). `pad_token_id` names the embedding row that
    the reference never updates; the forward pass treats it like any other token. `mask_token_id` is None when
    only the tokenizer knows it. `expert_capacity` is LLaDA2.2's block routing: each block of `block_size` tokens of
    a document admits that many experts, among which its tokens choose; None: no such limit.

    Raises:
      ValueError: for sizes that do not divide or cannot be routed, naming the field and the value.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    first_k_dense_replace: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    partial_rotary_factor: float
    rope_theta: float
    max_position_embeddings: int
    rms_norm_eps: float
    use_bias: bool
    use_qkv_bias: bool
    num_experts: int
    num_experts_per_tok: int
    num_shared_experts: int
    moe_intermediate_size: int
    n_group: int
    topk_group: int
    routed_scaling_factor: float
    pad_token_id: int
    initializer_range: float = 0.02
    mask_token_id: int | None = None
    expert_capacity: int | None = None
    block_size: int | None = None

    def __post_init__(self) -> None:
        optional = {
            "mask_token_id": (0, self.vocab_size),
            "expert_capacity": (self.num_experts_per_tok, self.num_experts + 1),
            "block_size": (1, 2**31),
        }
        may_be_zero = ("first_k_dense_replace", "num_shared_experts", "pad_token_id", "initializer_range")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in optional:
                start, stop = optional[field.name]
                fits = isinstance(value, int) and not isinstance(value, bool) and start <= value < stop
                self._require(value is None or fits, field.name, f"None or an integer in [{start}, {stop})")
                continue
            if field.type == "bool":
                self._require(isinstance(value, bool), field.name, "true or false")
                continue
            numbers = (int,) if field.type == "int" else (int, float)
            is_number = isinstance(value, numbers) and not isinstance(value, bool)
            lowest = "at least 0" if field.name in may_be_zero else "above 0"
            kind = "an integer" if field.type == "int" else "a number"
            self._require(
                is_number and (value >= 0 if field.name in may_be_zero else value > 0),
                field.name, f"{kind} {lowest}",
            )  # fmt: skip
        heads, groups = self.num_attention_heads, self.n_group
        self._require(heads % self.num_key_value_heads == 0, "num_key_value_heads", f"a divisor of {heads} heads")
        self._require(
            self.partial_rotary_factor <= 1 and self.rotary_dim % 2 == 0,
            "partial_rotary_factor", f"a share of head_dim = {self.head_dim} that is an even number of dims",
        )  # fmt: skip
        self._require(
            self.first_k_dense_replace < self.num_hidden_layers,
            "first_k_dense_replace", f"fewer than num_hidden_layers = {self.num_hidden_layers}",
        )  # fmt: skip
        self._require(
            self.num_experts % groups == 0 and self.num_experts // groups >= 2,
            "n_group", f"a number of groups that gives each at least 2 of {self.num_experts} experts",
        )  # fmt: skip
        self._require(self.topk_group <= groups, "topk_group", f"at most n_group = {groups}")
        reachable = self.topk_group * self.num_experts // groups
        self._require(
            self.num_experts_per_tok <= reachable,
            "num_experts_per_tok", f"at most the {reachable} experts of {self.topk_group} groups",
        )  # fmt: skip
        self._require(
            self.expert_capacity is None or self.block_size is not None,
            "block_size", f"a number of tokens, as expert_capacity = {self.expert_capacity}",
        )  # fmt: skip
        self._require(self.pad_token_id < self.vocab_size, "pad_token_id", f"below vocab_size = {self.vocab_size}")

    def _require(self, condition: bool, field: str, expected: str) -> None:
        if not condition:
            raise ValueError(f"ModelConfig.{field}: expected {expected}, got {getattr(self, field)!r}.")

    def refuse_straddling(self, diffusion_block_size: int) -> None:
        """Raises ValueError for blocks of block diffusion that end inside a block of block routing: a clean block would
        choose experts together with the next one, and so tell the answer to that one's noisy tokens."""
        block = self.block_size
        if self.expert_capacity is not None and block and diffusion_block_size % block:
            raise ValueError(
                f"config.train.block_size: expected a multiple of {block}, as this model chooses experts in blocks of "
                f"{block} tokens, got {diffusion_block_size}: noisy tokens would see answers. Set it to {block}."
            )

    @property
    def rotary_dim(self) -> int:
        """How many of the first dims of a head are rotated."""
        return int(self.head_dim * self.partial_rotary_factor)

    @property
    def num_moe_layers(self) -> int:
        return self.num_hidden_layers - self.first_k_dense_replace

    @classmethod
    def from_hf(cls, values: Mapping[str, Any]) -> ModelConfig:
        """Reads a published `config.json`.

        Args:
          values: the parsed JSON object.

        Raises:
          ValueError: for another model family, a missing field, a value that asks for something this model
            does not
            compute, or an unknown key that may.
        """
        family = values.get("model_type")
        if family not in MODEL_TYPES:
            raise ValueError(f"config.json: model_type is {family!r}; this model reads {' or '.join(MODEL_TYPES)}.")
        values = _unnest_rope(values)
        for key, allowed in _REQUIRED_VALUES.items():
            if key in values and not any(_same(values[key], value) for value in allowed):
                raise ValueError(
                    f"config.json: {key} = {values[key]!r} asks for something LLaDA2 does not compute; "
                    f"expected {allowed[0]!r}."
                )
        if values.get("sliding_window") is not None and values.get("use_sliding_window") is not False:
            raise ValueError(
                f"config.json: sliding_window = {values['sliding_window']!r} without use_sliding_window = false; "
                "LLaDA2 attends to everything. Set use_sliding_window to false or remove sliding_window."
            )
        fields = {field.name: field.default is dataclasses.MISSING for field in dataclasses.fields(cls)}
        _refuse_unknown(values, fields)
        # Null and a missing key both mean "no shared expert" in the reference's configuration class.
        shared = values.get("num_shared_experts")
        values = {**values, "num_shared_experts": shared or 0}
        missing = [name for name, is_required in fields.items() if is_required and name not in values]
        if missing:
            raise ValueError(f"config.json: missing {', '.join(missing)}.")
        config = cls(**{name: values[name] for name in fields if name in values})
        if "rotary_dim" in values and values["rotary_dim"] != config.rotary_dim:
            raise ValueError(
                f"config.json: rotary_dim = {values['rotary_dim']!r} contradicts "
                f"head_dim * partial_rotary_factor = {config.rotary_dim}, which is what the model "
                "rotates. Correct or remove rotary_dim."
            )
        return config

    def to_hf(self, *, is_merged: bool = False, dtype: str = "bfloat16") -> dict[str, Any]:
        """The published `config.json` of this model; `from_hf` gives the same ModelConfig back.

        Args:
          is_merged: True for dFactory's layout (one tensor for all experts of a layer), False for one per
            expert.
          dtype: what the tensors beside it are stored as.
        """
        computed = {key: allowed[0] for key, allowed in _REQUIRED_VALUES.items()}
        written = {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
        return {
            "architectures": ["LLaDA2MoeModelLM"],
            "model_type": MODEL_TYPES[1 if is_merged else 0],
            "torch_dtype": dtype,
            "use_cache": False,
            "rotary_dim": self.rotary_dim,
            **computed,
            **written,
            "num_shared_experts": self.num_shared_experts or None,
        }


def _same(value: object, allowed: object) -> bool:
    # 0 == False in Python: a boolean must not pass for a number, nor a number for a boolean.
    return value == allowed and isinstance(value, bool) == isinstance(allowed, bool)


def _unnest_rope(values: Mapping[str, Any]) -> dict[str, Any]:
    """transformers 5 writes rope_theta into `rope_parameters`; only its "default" type is plain rotary."""
    if "rope_parameters" not in values or values["rope_parameters"] is None:
        return dict(values)
    rope = dict(values["rope_parameters"])
    if rope.pop("rope_type", "default") != "default":
        raise ValueError(f"config.json: rope_parameters = {values['rope_parameters']!r}; only 'default' is computed.")
    unknown = set(rope) - {"rope_theta", "partial_rotary_factor"}
    if unknown:
        raise ValueError(f"config.json: rope_parameters holds {sorted(unknown)}, which is not computed.")
    return {**values, **rope}


def _refuse_unknown(values: Mapping[str, Any], fields: Mapping[str, bool]) -> None:
    """A key we do not know that holds anything but null, false or emptiness may change the computation: say so
    instead of ignoring it."""
    known = {*fields, *_REQUIRED_VALUES, *_IGNORED}
    for key, value in values.items():
        is_setting = value is not None and value is not False and value not in ("", [], {})
        if key not in known and not key.endswith("_token_id") and not key.startswith("_") and is_setting:
            near = difflib.get_close_matches(key, known)
            raise ValueError(
                f"config.json: unknown key {key!r} = {value!r}. {f'Did you mean {near}? ' if near else ''}"
                "If it changes nothing in the forward pass, remove it."
            )
