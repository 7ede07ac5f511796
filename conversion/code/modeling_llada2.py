"""LLaDA2-MoE in PyTorch, as anyorder_jax trains it: a masked language model that fills holes anywhere in a text.

    from modeling_llada2 import LLaDA2MoeModelLM       or by AutoModelForCausalLM, as the model card beside it says
    model = LLaDA2MoeModelLM.from_pretrained(DIRECTORY)
    model.infill(tokens_BL).tokens_BL                  mask tokens in the holes, anywhere
    model.generate(prompt_BL, max_new_tokens=128)      a hole behind the prompt

Part of anyorder_jax (Apache License 2.0). One file, for transformers 4.57 and 5. It reads experts as published (one
tensor each, `llada2_moe`) and merged (one tensor a layer, `llada2_moe_veomni`). Every position sees every real one, or
with `causal_block_size` (block diffusion) those of its own and earlier blocks. Nothing is cached between passes.

Letters: B rows, L positions, D width, H heads, K kv-heads or choices of a token, C head width, E experts, F expert
width, V vocabulary, T = B * L tokens, N holes of a row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutput

IGNORED_LABEL = -100
_COMPUTED: dict[str, tuple[Any, ...]] = {  # keys that ask for what is computed here, and for nothing else
    "hidden_act": ("silu",), "rope_scaling": (None,), "tie_word_embeddings": (False,), "norm_topk_prob": (True,),
    "score_function": ("sigmoid", None), "use_qk_norm": (True,), "use_rmsnorm": (True,), "norm_head": (False,),
    "norm_softmax": (False,), "use_sliding_window": (False,), "moe_router_enable_expert_bias": (True,),
}  # fmt: skip
_DEFAULTS: dict[str, Any] = {  # LLaDA2.0-mini's
    "vocab_size": 157184, "hidden_size": 2048, "intermediate_size": 5120, "num_hidden_layers": 20,
    "first_k_dense_replace": 1, "num_attention_heads": 16, "num_key_value_heads": 4, "head_dim": 128,
    "partial_rotary_factor": 0.5, "rope_theta": 600000, "max_position_embeddings": 8192, "rms_norm_eps": 1e-6,
    "use_bias": False, "use_qkv_bias": False, "num_experts": 256, "num_experts_per_tok": 8, "num_shared_experts": 1,
    "moe_intermediate_size": 512, "n_group": 8, "topk_group": 4, "routed_scaling_factor": 2.5,
    "initializer_range": 0.02, "expert_capacity": None, "block_size": None, "tie_word_embeddings": False,
    "pad_token_id": None, "eos_token_id": None, "mask_token_id": None, "model_type": "llada2_moe",
}  # fmt: skip


class LLaDA2MoeConfig(PretrainedConfig):
    """The published keys. `expert_capacity` and `block_size` are LLaDA2.2's block routing; `model_type` tells how
    experts are stored.

    Raises:
      ValueError: for a value that asks for another computation.
    """

    model_type = "llada2_moe"

    def __init__(self, **values: Any) -> None:
        rope = dict(values.pop("rope_parameters", None) or {})  # as transformers 5 writes it
        if rope.pop("rope_type", "default") != "default":
            raise ValueError(f"config.json: rope_parameters asks for {rope!r}; only the default type is computed.")
        values |= rope
        for key, known in _COMPUTED.items():
            if key in values and values[key] not in known:
                raise ValueError(f"config.json: {key} = {values[key]!r}; this model computes {known[0]!r} only.")
        values.pop("rope_scaling", None)
        own = {name: values.pop(name, default) for name, default in _DEFAULTS.items()}
        super().__init__(**values)
        for name, value in own.items():
            setattr(self, name, value)

    def to_dict(self) -> dict[str, Any]:
        """As the base class, with the `model_type` of this model instead of the class's."""
        return {**super().to_dict(), "model_type": self.model_type}


def wide(x: torch.Tensor) -> torch.Tensor:
    """In float32 at least: norms, the router and the sum over experts are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class LLaDA2MoeRMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) in float32, cast back, times the weight."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = wide(x)
        return (y * torch.rsqrt(y.square().mean(-1, keepdim=True) + self.eps)).to(x.dtype) * self.weight


def angles(config: Any, position_BL: torch.Tensor, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin of position * theta^(-2i / R), [B, L, 1, R / 2], in the dtype of `like`; R dims of a head turn."""
    num_rotated = int(config.head_dim * config.partial_rotary_factor)
    index = torch.arange(0, num_rotated, 2, device=position_BL.device).to(wide(like).dtype)
    angle = (position_BL[..., None] / config.rope_theta ** (index / num_rotated))[:, :, None]
    return angle.cos().to(like.dtype), angle.sin().to(like.dtype)


def rotate(x_BLHC: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turns dim i with dim i + R / 2; dims from R on pass through."""
    half = cos.shape[-1]
    first, second, rest = x_BLHC.split([half, half, x_BLHC.shape[-1] - 2 * half], -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], -1)


class Attention(nn.Module):
    """softmax(q k^T / sqrt(C)) v with grouped heads; queries, keys and values in one matrix, normalised by head."""

    def __init__(self, config: LLaDA2MoeConfig) -> None:
        super().__init__()
        self.sizes = [config.num_attention_heads, config.num_key_value_heads, config.num_key_value_heads]
        C, D = config.head_dim, config.hidden_size
        self.query_key_value = nn.Linear(D, sum(self.sizes) * C, bias=config.use_qkv_bias)
        self.query_layernorm = LLaDA2MoeRMSNorm(C, config.rms_norm_eps)
        self.key_layernorm = LLaDA2MoeRMSNorm(C, config.rms_norm_eps)
        self.dense = nn.Linear(self.sizes[0] * C, D, bias=config.use_bias)

    def forward(self, x_BLD: torch.Tensor, turn: Any, can_attend: torch.Tensor | None) -> torch.Tensor:
        B, L, _ = x_BLD.shape
        q, k, v = self.query_key_value(x_BLD).view(B, L, sum(self.sizes), -1).split(self.sizes, 2)
        q, k = rotate(self.query_layernorm(q), *turn), rotate(self.key_layernorm(k), *turn)
        k, v = (t.repeat_interleave(self.sizes[0] // self.sizes[1], 2) for t in (k, v))
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=can_attend)
        return self.dense(mixed.transpose(1, 2).reshape(B, L, -1))


class MLP(nn.Module):
    """down(silu(gate x) * up x)"""

    def __init__(self, config: LLaDA2MoeConfig, width: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, width, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, width, bias=False)
        self.down_proj = nn.Linear(width, config.hidden_size, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class MergedExperts(nn.Module):
    """All experts of a layer in three tensors (dFactory's layout)."""

    def __init__(self, config: LLaDA2MoeConfig) -> None:
        super().__init__()
        E, D, width = config.num_experts, config.hidden_size, config.moe_intermediate_size
        self.gate_proj = nn.Parameter(torch.empty(E, width, D))
        self.up_proj = nn.Parameter(torch.empty(E, width, D))
        self.down_proj = nn.Parameter(torch.empty(E, D, width))

    def __getitem__(self, e: int) -> Callable[[torch.Tensor], torch.Tensor]:
        gate, up, down = self.gate_proj[e], self.up_proj[e], self.down_proj[e]
        return lambda x: F.linear(F.silu(F.linear(x, gate)) * F.linear(x, up), down)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *more: Any) -> None:
        """Raises ValueError for weights of single experts: PEFT would pass over an adapter's without a word."""
        for name in state_dict:
            if name.startswith(prefix) and name.removeprefix(prefix).split(".")[0].isdecimal():
                raise ValueError(f"{name}: is of one expert, and this model's are merged. Use its split layout.")
        super()._load_from_state_dict(state_dict, prefix, *more)


class Router(nn.Module):
    """Chooses experts by biased scores, weighs them by unbiased ones, in float32.

    s = sigmoid(x W)      choice: top K of s + bias, within the groups whose two best sum highest, or (LLaDA2.2)
    weight = s / (sum of the chosen s) * factor       within those that the best scores of a block of tokens admit
    """

    def __init__(self, config: LLaDA2MoeConfig) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(config.num_experts, config.hidden_size))
        self.expert_bias = nn.Parameter(torch.zeros(config.num_experts), requires_grad=False)  # float32 always

    def forward(self, x_TD: torch.Tensor, block_T: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """block_T: number of each token's routing block. Returns (expert_TK, weight_TK)."""
        c = self.config
        score_TE = torch.sigmoid(F.linear(wide(x_TD), wide(self.weight)))
        biased_TE = (score_TE + wide(self.expert_bias)).detach()
        if block_T is not None:
            best = biased_TE.new_full((int(block_T.max()) + 1, c.num_experts), -torch.inf)
            best = best.scatter_reduce(0, block_T[:, None].expand_as(biased_TE), biased_TE, "amax")
            is_kept = torch.zeros_like(best, dtype=torch.bool).scatter_(1, best.topk(c.expert_capacity).indices, True)
            biased_TE = biased_TE.masked_fill(~is_kept[block_T], -torch.inf)
        elif c.topk_group < c.n_group:
            group_TGS = biased_TE.view(len(biased_TE), c.n_group, -1)
            kept = group_TGS.topk(2).values.sum(-1).topk(c.topk_group).indices
            is_kept = torch.zeros_like(group_TGS[..., 0], dtype=torch.bool).scatter_(1, kept, True)
            biased_TE = group_TGS.masked_fill(~is_kept[..., None], -torch.inf).flatten(1)
        expert_TK = biased_TE.topk(c.num_experts_per_tok).indices
        weight_TK = score_TE.gather(1, expert_TK)
        if c.num_experts_per_tok > 1:
            weight_TK = weight_TK / (weight_TK.sum(-1, keepdim=True) + 1e-20)
        return expert_TK, weight_TK * c.routed_scaling_factor


class MoE(nn.Module):
    """The weighted sum of the chosen experts, and the shared one."""

    def __init__(self, config: LLaDA2MoeConfig) -> None:
        super().__init__()
        is_merged, width = config.model_type == "llada2_moe_veomni", config.moe_intermediate_size
        self.gate = Router(config)
        own = [] if is_merged else [MLP(config, width) for _ in range(config.num_experts)]
        self.experts = MergedExperts(config) if is_merged else nn.ModuleList(own)
        self.shared_experts = MLP(config, width * config.num_shared_experts) if config.num_shared_experts else None

    def forward(self, x_BLD: torch.Tensor, block_T: torch.Tensor | None) -> torch.Tensor:
        x_TD = x_BLD.flatten(0, 1)
        expert_TK, weight_TK = self.gate(x_TD, block_T)
        total_TD = torch.zeros_like(wide(x_TD))
        for e in expert_TK.unique().tolist():
            token, choice = (expert_TK == e).nonzero(as_tuple=True)
            total_TD.index_add_(0, token, wide(self.experts[e](x_TD[token])) * weight_TK[token, choice, None])
        y_BLD = total_TD.to(x_BLD.dtype).view_as(x_BLD)
        return y_BLD if self.shared_experts is None else y_BLD + self.shared_experts(x_BLD)


class LLaDA2MoeLayer(nn.Module):
    """x + attention(norm x), then x + mlp(norm x)."""

    def __init__(self, config: LLaDA2MoeConfig, number: int) -> None:
        super().__init__()
        self.is_dense = number < config.first_k_dense_replace
        self.input_layernorm = LLaDA2MoeRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.attention = Attention(config)
        self.post_attention_layernorm = LLaDA2MoeRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config, config.intermediate_size) if self.is_dense else MoE(config)

    def forward(self, x: torch.Tensor, turn: Any, can_attend: Any, block_T: torch.Tensor | None) -> torch.Tensor:
        x = x + self.attention(self.input_layernorm(x), turn, can_attend)
        normed = self.post_attention_layernorm(x)
        return x + (self.mlp(normed) if self.is_dense else self.mlp(normed, block_T))


class LLaDA2MoePreTrainedModel(PreTrainedModel):
    """What both models share with transformers."""

    config_class = LLaDA2MoeConfig
    base_model_prefix = "model"
    _input_embed_layer = "word_embeddings"
    _no_split_modules = ["LLaDA2MoeLayer"]  # noqa: RUF012
    _keep_in_fp32_modules_strict = ["expert_bias"]  # noqa: RUF012
    _supports_sdpa = True

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, Router):
            nn.init.uniform_(module.weight, -(module.weight.shape[1] ** -0.5), module.weight.shape[1] ** -0.5)
            nn.init.zeros_(module.expert_bias)
        elif isinstance(module, MergedExperts):
            for weight in module.parameters():
                nn.init.normal_(weight, 0.0, self.config.initializer_range)
        else:
            super()._init_weights(module)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: Any, *model_args: Any, output_loading_info: bool = False, **kwargs: Any
    ) -> Any:
        """As the base class; a weight that is not in the files is an error, not a random number.

        Raises:
          ValueError: when weights are missing.
        """
        directory = pretrained_model_name_or_path
        model, info = super().from_pretrained(directory, *model_args, output_loading_info=True, **kwargs)
        missing = sorted(info["missing_keys"])
        if missing:
            raise ValueError(
                f"{directory}: {len(missing)} weights are not there, {missing[0]} first. Is config.json's model_type "
                "right? llada2_moe is for one tensor an expert, llada2_moe_veomni for one a layer."
            )
        return (model, info) if output_loading_info else model


class LLaDA2MoeModel(LLaDA2MoePreTrainedModel):
    """All but the head."""

    def __init__(self, config: LLaDA2MoeConfig) -> None:
        super().__init__(config)
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList([LLaDA2MoeLayer(config, i) for i in range(config.num_hidden_layers)])
        self.norm = LLaDA2MoeRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_init()

    def forward(
        self, input_ids: torch.Tensor | None = None, attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None, inputs_embeds: torch.Tensor | None = None,
        causal_block_size: int | None = None,
    ) -> BaseModelOutput:  # fmt: skip
        """Hidden states [B, L, D] after the final norm, in one bidirectional pass.

        Args:
          input_ids: int [B, L], the mask id in the holes; or inputs_embeds [B, L, D].
          attention_mask: [B, L], 0 for padding, left or right; or bool [B or 1, 1, L, L], query by key, who sees whom.
          position_ids: int [B, L]; default: counted over what is no padding. Routing blocks begin where they do.
          causal_block_size: a position sees its own block of so many positions and the earlier ones.

        Raises:
          ValueError: for a mask of another shape or type.
        """
        x = self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        is_real_BL = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        can_attend = None
        if attention_mask is not None and attention_mask.shape == x.shape[:2]:
            is_real_BL = attention_mask != 0
            if not bool(is_real_BL.all()):
                can_attend = is_real_BL[:, None, :, None] == is_real_BL[:, None, None, :]
        elif attention_mask is not None:
            if attention_mask.ndim != 4 or attention_mask.dtype != torch.bool:
                raise ValueError(
                    f"attention_mask: expected [B, L] = {list(x.shape[:2])} with 0 for padding, or booleans "
                    f"[B, 1, L, L], got {attention_mask.dtype} {list(attention_mask.shape)}."
                )
            can_attend = attention_mask
        position_BL = (is_real_BL.cumsum(1) - 1).clamp(min=0) if position_ids is None else position_ids
        position_BL = position_BL.expand(x.shape[:2])
        if causal_block_size is not None:
            number = position_BL // causal_block_size
            seen = number[:, None, :, None] >= number[:, None, None, :]
            can_attend = seen if can_attend is None else seen & can_attend
        turn, block_T = angles(self.config, position_BL, x), self._routing_blocks(position_BL)
        for layer in self.layers:
            x = layer(x, turn, can_attend, block_T)
        return BaseModelOutput(last_hidden_state=self.norm(x))

    def _routing_blocks(self, position_BL: torch.Tensor) -> torch.Tensor | None:
        if self.config.expert_capacity is None:
            return None
        before = F.pad(position_BL[:, :-1], (1, 0), value=-2)
        is_first_BL = (position_BL % self.config.block_size == 0) | (position_BL != before + 1)
        return is_first_BL.flatten().cumsum(0) - 1


class Decoding(NamedTuple):
    """How holes are filled. A token is accepted from probability `threshold` on, and the surest of the block always;
    temperature 0 takes the likeliest, 1 draws from the distribution (with `generator`), of which `top_p` below 1 leaves
    the smallest set of likeliest tokens that holds that share of the probability. Blocks of `block_length` are
    filled one after another. `end_token_ids` end a unit: none is accepted while anything before it in its unit is open,
    and what follows is filled with the first of them. None: those of config.json."""

    threshold: float = 0.95
    temperature: float = 0.0
    top_p: float = 1.0
    block_length: int = 32
    causal_block_size: int | None = None
    mask_token_id: int | None = None
    end_token_ids: tuple[int, ...] | None = None
    generator: torch.Generator | None = None


class Filled(NamedTuple):
    """tokens_BL: int [B, L]. probability_BL: float32 [B, L], what each token had when it was accepted, 1 elsewhere.
    passes_B: int [B], forward passes until the row was full."""

    tokens_BL: torch.Tensor
    probability_BL: torch.Tensor
    passes_B: torch.Tensor


class LLaDA2MoeModelLM(LLaDA2MoePreTrainedModel):
    """The masked language model."""

    def __init__(self, config: LLaDA2MoeConfig) -> None:
        super().__init__(config)
        self.model = LLaDA2MoeModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def forward(
        self, input_ids: torch.Tensor | None = None, attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None, inputs_embeds: torch.Tensor | None = None,
        causal_block_size: int | None = None, labels: torch.Tensor | None = None,
    ) -> CausalLMOutput:  # fmt: skip
        """Logits float32 [B, L, V] of every position (of itself, not of the next one); with `labels` [B, L], -100 where
        nothing is asked, also the mean cross-entropy. Other arguments: `LLaDA2MoeModel.forward`."""
        hidden = self.model(input_ids, attention_mask, position_ids, inputs_embeds, causal_block_size)[0]
        logits = wide(self.lm_head(hidden))
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED_LABEL)
        return CausalLMOutput(loss=loss, logits=logits)

    @torch.no_grad()
    def generate(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, max_new_tokens: int = 128,
        **decoding: Any,
    ) -> torch.Tensor:  # fmt: skip
        """The prompts [B, L] with `max_new_tokens` filled in behind each: int [B, L + new]. `decoding`: of `Decoding`.
        What follows a row's first end token is end tokens; padding of the prompts (attention_mask 0) is not seen."""
        how = self._decoding(decoding)
        new = input_ids.new_full((len(input_ids), max_new_tokens), how.mask_token_id)
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        is_new = torch.cat([torch.zeros_like(input_ids), torch.ones_like(new)], 1) != 0
        both = torch.cat([input_ids, new], 1), torch.cat([mask, torch.ones_like(new).to(mask)], 1)
        return self.infill(*both, is_hidden_BL=is_new, **decoding).tokens_BL

    @torch.no_grad()
    def infill(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None,
        is_hidden_BL: torch.Tensor | None = None, unit_BL: torch.Tensor | None = None,
        block_BL: torch.Tensor | None = None, is_allowed: torch.Tensor | None = None, **decoding: Any,
    ) -> Filled:  # fmt: skip
        """Fills the holes, block by block, several tokens a pass (LLaDA2.0 report, section 6).

        Args:
          input_ids: int [B, L], the mask id in the holes.
          attention_mask: [B, L], 0 for padding.
          is_hidden_BL: bool, the holes; default: where the mask id stands.
          unit_BL: int, which text a hole belongs to (a sentence, an answer); default: holes side by side.
          block_BL: int, holes of the lowest block are filled first; default: `block_length` holes of a unit each.
          is_allowed: bool, broadcastable to [B, L, V], tokens that may stand there; the mask token never may.
          decoding: fields of `Decoding`.

        Raises:
          ValueError: without a mask id, and for blocks that are not numbered from left to right within a unit.
        """
        how, tokens_BL = self._decoding(decoding), input_ids.clone()
        if is_hidden_BL is None:
            is_hidden_BL = input_ids == how.mask_token_id
        if attention_mask is not None:
            is_hidden_BL = is_hidden_BL & (attention_mask != 0)
        own_units, own_blocks = _runs(is_hidden_BL, how.block_length)
        num_B1 = is_hidden_BL.sum(1, keepdim=True)
        place_BN = (~is_hidden_BL).to(torch.int8).argsort(dim=1, stable=True)[:, : int(num_B1.max())]  # holes first
        order_N = torch.arange(place_BN.shape[1], device=tokens_BL.device)
        is_open_BN = order_N[None] < num_B1
        unit_BN = (own_units if unit_BL is None else unit_BL).gather(1, place_BN)
        block_BN = (own_blocks if block_BL is None else block_BL).gather(1, place_BN)
        is_before_BNN = (unit_BN[:, :, None] == unit_BN[:, None]) & is_open_BN[:, None]
        is_before_BNN &= order_N[None, :, None] > order_N  # [b, i, j]: j before i in its unit
        end_ids = torch.tensor(how.end_token_ids or (), dtype=torch.long, device=tokens_BL.device)
        sure_BL = torch.ones(tokens_BL.shape, device=tokens_BL.device)
        passes_B = torch.zeros(len(tokens_BL), dtype=torch.long, device=tokens_BL.device)
        while bool(is_open_BN.any()):
            passes_B += is_open_BN.any(1)
            hidden_BLD = self.model(tokens_BL, attention_mask, causal_block_size=how.causal_block_size)[0]
            logits_BNV = wide(self.lm_head(_at(hidden_BLD, place_BN)))
            if is_allowed is not None:
                allowed = _at(is_allowed.expand(*tokens_BL.shape, -1), place_BN)
                logits_BNV = logits_BNV.masked_fill(~allowed, -torch.inf)
            logits_BNV[..., how.mask_token_id] = -torch.inf
            drawn_BN = logits_BNV.argmax(-1)
            if how.temperature:
                uniform = torch.rand(logits_BNV.shape, generator=how.generator, device=logits_BNV.device)
                tempered_BNV = _nucleus(logits_BNV / how.temperature, how.top_p)
                drawn_BN = (tempered_BNV - (-uniform.clamp(min=1e-30).log()).log()).argmax(-1)
            p_BN = logits_BNV.softmax(-1).gather(2, drawn_BN[..., None])[..., 0]
            is_held_BN = torch.isin(drawn_BN, end_ids) & (is_before_BNN & is_open_BN[:, None]).any(-1)
            lowest_B1 = block_BN.masked_fill(~is_open_BN, torch.iinfo(block_BN.dtype).max).amin(1, keepdim=True)
            may_BN = is_open_BN & (block_BN == lowest_B1) & ~is_held_BN
            best_B1 = p_BN.masked_fill(~may_BN, -1).argmax(1, keepdim=True)
            is_accepted_BN = may_BN & ((p_BN >= how.threshold) | (order_N == best_B1))
            if not bool((is_accepted_BN.any(1) | ~is_open_BN.any(1)).all()):
                raise ValueError("infill: block_BL must not fall from left to right within a unit.")
            now_BN = torch.where(is_accepted_BN, drawn_BN, tokens_BL.gather(1, place_BN))
            is_open_BN = is_open_BN & ~is_accepted_BN
            is_end_BN = torch.isin(now_BN, end_ids) & ~is_open_BN
            is_over_BN = is_open_BN & (is_before_BNN & is_end_BN[:, None]).any(-1)
            if len(end_ids):
                now_BN = now_BN.masked_fill(is_over_BN, int(end_ids[0]))
            tokens_BL = tokens_BL.scatter(1, place_BN, now_BN)
            sure_BL = sure_BL.scatter(
                1, place_BN, torch.where(is_accepted_BN, p_BN.float(), sure_BL.gather(1, place_BN))
            )
            is_open_BN = is_open_BN & ~is_over_BN
        return Filled(tokens_BL, sure_BL, passes_B)

    def _decoding(self, given: dict[str, Any]) -> Decoding:
        how = Decoding(**given)
        if how.mask_token_id is None:
            how = how._replace(mask_token_id=self.config.mask_token_id)
        if how.mask_token_id is None:
            raise ValueError("config.json has no mask_token_id: pass mask_token_id=tokenizer.mask_token_id.")
        if how.end_token_ids is None:
            ends = self.config.eos_token_id
            how = how._replace(end_token_ids=() if ends is None else tuple(ends) if isinstance(ends, list) else (ends,))
        return how


def _at(x_BLX: torch.Tensor, place_BN: torch.Tensor) -> torch.Tensor:
    """x at places of each row: [B, N, X]."""
    return x_BLX.gather(1, place_BN[..., None].expand(-1, -1, x_BLX.shape[-1]))


def _nucleus(logits_BNV: torch.Tensor, top_p: float) -> torch.Tensor:
    """-inf for what is outside of the smallest set of likeliest tokens that holds `top_p` of the probability."""
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p: expected a share of the probability above 0 and at most 1, got {top_p}.")
    if top_p == 1:
        return logits_BNV
    p_BNV = logits_BNV.softmax(-1)
    falling_BNV = p_BNV.sort(-1, descending=True).values
    is_needed_BNV = falling_BNV.cumsum(-1) - falling_BNV < top_p
    least_BN1 = falling_BNV.masked_fill(~is_needed_BNV, torch.inf).amin(-1, keepdim=True)
    return logits_BNV.masked_fill(p_BNV < least_BN1, -torch.inf)


def _runs(is_hidden_BL: torch.Tensor, block_length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(unit, block) of each hole, int [B, L]: a unit is a run of holes; blocks of so many count on through all."""
    is_first_BL = is_hidden_BL & ~F.pad(is_hidden_BL[:, :-1], (1, 0))
    place_L = torch.arange(is_hidden_BL.shape[1], device=is_hidden_BL.device)
    offset_BL = place_L - torch.where(is_first_BL, place_L, 0).cummax(1).values
    is_block_BL = is_hidden_BL & (offset_BL % block_length == 0)
    return is_first_BL.cumsum(1), is_block_BL.cumsum(1)
