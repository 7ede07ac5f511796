"""What single weights tell, collected layer by layer: zeros, NaN, misread bits, random experts, equal rows."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np

from anyorder_jax.model.config import ModelConfig
from conversion.health.findings import DOUBT, FAULT, NOTE, Finding, some
from conversion.health.statistics import RANDOM_SHARE, Numbers, misread, numbers, random_ones, shared_directions
from conversion.threads import in_threads

TENSORS = {
    "input_norm": "input_layernorm", "post_attention_norm": "post_attention_layernorm",
    "query_key_value": "attention.query_key_value", "query_norm": "attention.query_layernorm",
    "key_norm": "attention.key_layernorm", "attention_output": "attention.dense",
    "query_key_value_bias": "attention.query_key_value.bias", "attention_output_bias": "attention.dense.bias",
    "router": "mlp.gate", "expert_bias": "mlp.gate.expert_bias",
}  # fmt: skip
EXPERTS, SHARED = "mlp.experts.", "mlp.shared_experts."
MAY_BE_ZERO = ("expert_bias", "bias")
RANDOM_SPECTRUM = 1.1
"""A matrix below this has no direction that stands out: as drawn. Trained ones have 1.15 to 3 and more."""


class Collector:
    """Takes a layer's weights at a time (NumPy, as the tree has them) and keeps numbers of them."""

    def __init__(self, config: ModelConfig) -> None:
        self.config = config
        self.by_tensor: dict[str, Numbers] = {}
        self.shared: dict[str, list[float]] = {}  # "layers.3.mlp.experts.*.gate_proj" -> a number an expert
        self.is_bias_zero: list[bool] = []
        self.rows: dict[str, Any] = {}

    def add_layer(self, n: int, weights: Mapping[str, np.ndarray]) -> None:
        """Takes the numbers of all weights of layer n."""
        prefix = f"layers.{n}."
        for name, values in weights.items():
            if name == "expert_bias":
                self.is_bias_zero.append(not values.any())
            if name.startswith("expert_") and name != "expert_bias":
                self._add_experts(prefix + EXPERTS, name, values)
            elif name.endswith("gate_up"):
                path = prefix + (SHARED if name.startswith("shared") else "mlp.")
                for half, part in enumerate(("gate_proj", "up_proj")):
                    self.by_tensor[path + part] = numbers(values[:, half])
            elif name.endswith("down"):
                path = prefix + (SHARED if name.startswith("shared") else "mlp.")
                self.by_tensor[f"{path}down_proj"] = numbers(values)
            else:
                self.by_tensor[prefix + TENSORS[name]] = numbers(values)

    def add(self, name: str, values: np.ndarray) -> None:
        """Takes the numbers of a weight that belongs to no layer (embedding, norm, head)."""
        self.by_tensor[name] = numbers(values)

    def _add_experts(self, prefix: str, name: str, values: np.ndarray) -> None:
        parts = {"down_proj": values} if name == "expert_down" else {
            "gate_proj": values[:, :, 0], "up_proj": values[:, :, 1]
        }  # fmt: skip
        for part, weight in parts.items():
            found = list(in_threads(numbers, weight))  # NumPy lets others work
            self.by_tensor |= {f"{prefix}{e}.{part}": own for e, own in enumerate(found)}
            shared = weight.swapaxes(1, 2) if part == "down_proj" else weight
            self.shared[f"{prefix}*.{part}"] = shared_directions(shared).tolist()

    def add_rows(self, name: str, rows_VD: np.ndarray, special: Mapping[str, int | None], num_used: int) -> None:
        """The embedding, or the head [V, D]: which rows are zero or equal.

        Args:
          special: ids to look at by what they are for ("mask", "pad").
          num_used: rows that the tokenizer has words for (0: not known).
        """
        is_zero = np.logical_not(np.any(rows_VD, axis=1))
        key = np.random.default_rng(0).normal(size=rows_VD.shape[1])
        marks = np.concatenate([rows_VD[i : i + 4096].astype(np.float64) @ key for i in range(0, len(rows_VD), 4096)])
        _, first, count = np.unique(marks, return_index=True, return_counts=True)
        is_repeated = np.isin(marks, marks[first[count > 1]]) & ~is_zero
        used = num_used or len(rows_VD)
        self.rows[name] = {
            "zero": int(is_zero.sum()), "zero_used": int(is_zero[:used].sum()), "equal": int(is_repeated.sum()),
            "equal_used": int(is_repeated[:used].sum()), "used": used, "rows": len(rows_VD),
            "special": {
                what: "zero" if is_zero[i] else "equal to another" if is_repeated[i] else "own"
                for what, i in special.items() if i is not None and 0 <= i < len(rows_VD)
            },
        }  # fmt: skip
        self.by_tensor[name] = numbers(rows_VD)

    def findings(self) -> list[Finding]:
        """What they tell, the gravest first."""
        broken = self._broken()
        biases = [] if any(finding.name == "zeros" for finding in broken) else self._biases()
        return [*broken, *self._rows(), *self._random(), *biases]

    def _broken(self) -> list[Finding]:
        found = []
        zero = [
            name for name, x in self.by_tensor.items()
            if x.share_zero == 1 and not name.endswith(MAY_BE_ZERO) and not x.num_nonfinite
        ]  # fmt: skip
        if zero:
            told = f"{len(zero)} tensors hold nothing but zeros ({some(zero)}): a part of the checkpoint is missing"
            found.append(Finding(FAULT, "zeros", told))
        nonfinite = {name: x.num_nonfinite for name, x in self.by_tensor.items() if x.num_nonfinite}
        if nonfinite:
            told = f"{sum(nonfinite.values())} numbers are NaN or infinite, in {some(nonfinite)}"
            found.append(Finding(FAULT, "not finite", told))
        bits: dict[str, list[str]] = defaultdict(list)
        for name, x in self.by_tensor.items():
            if x.spectrum and (how := misread(x)):
                bits[how].append(name)
        for how, names in bits.items():
            told = f"{how} in {len(names)} tensors ({some(names)}): their magnitudes are none that training leaves"
            found.append(Finding(FAULT, "misread bits", told))
        return found

    def _rows(self) -> list[Finding]:
        found = []
        for name, told in self.rows.items():
            if told["zero_used"] > max(8, told["used"] // 50):
                sentence = f"{name}: {told['zero_used']} of the {told['used']} rows in use are zero"
                found.append(Finding(FAULT, "zero rows", sentence))
            if told["equal_used"] > max(8, told["used"] // 20):
                sentence = f"{name}: {told['equal_used']} of the {told['used']} rows in use are equal to another"
                found.append(Finding(DOUBT, "equal rows", sentence))
            if name == "embedding" and told["special"].get("mask", "own") != "own":
                sentence = (
                    f"the mask token's embedding is {told['special']['mask']}: the model never learned to fill in"
                )
                found.append(Finding(DOUBT, "mask row", sentence))
        return found

    def _random(self) -> list[Finding]:
        found = []
        random: dict[str, list[str]] = defaultdict(list)
        for name, shared in self.shared.items():
            for e in random_ones(np.array(shared)):
                path, _, part = name.replace("*", str(e)).rpartition(".")
                if self.by_tensor[f"{path}.{part}"].share_zero < 1:
                    random[path].append(part)
        if random:
            parts = sorted({part for own in random.values() for part in own})
            told = f"{some(random)}: random numbers among trained experts ({', '.join(parts)})"
            found.append(Finding(FAULT, "random experts", told))
        flat = [
            name for name, shared in self.shared.items()
            if np.median(shared) < RANDOM_SHARE and self.by_tensor[name.replace("*", "0")].share_zero < 1
        ]  # fmt: skip
        if flat and len(flat) < len(self.shared):
            found.append(Finding(FAULT, "random experts", f"{some(flat)}: all experts hold random numbers"))
        return found

    def _biases(self) -> list[Finding]:
        zero = sum(self.is_bias_zero)
        if not zero:
            return []
        if zero == len(self.is_bias_zero):
            told = "expert_bias is zero in every layer: it was never moved (as in training here by default), or dropped"
            return [Finding(NOTE, "expert bias zero", told)]
        told = f"expert_bias is zero in {zero} of {len(self.is_bias_zero)} layers: there it was dropped"
        return [Finding(FAULT, "expert bias dropped", told)]

    def is_zero(self, name: str) -> bool:
        """Whether a tensor holds zeros alone, by its name on disk, split or merged."""
        own = name.removeprefix("model.").removesuffix(".weight")
        own = {"word_embeddings": "embedding", "lm_head": "head", "norm": "final_norm"}.get(own, own)
        if own in self.by_tensor:
            return self.by_tensor[own].share_zero == 1
        path, _, part = own.rpartition(".")
        experts = [f"{path}.{e}.{part}" for e in range(self.config.num_experts)]
        return all(expert in self.by_tensor and self.by_tensor[expert].share_zero == 1 for expert in experts)

    def is_random(self) -> bool:
        """Whether experts and attention look as they were drawn, all of them."""
        attention = [x.spectrum for name, x in self.by_tensor.items() if name.endswith("attention.query_key_value")]
        is_flat = all(np.median(shared) < RANDOM_SHARE for shared in self.shared.values())
        return is_flat and float(np.median(attention)) < RANDOM_SPECTRUM

    def table(self) -> list[dict[str, Any]]:
        """A row for each kind of weight: its rms and spectrum (least, middle, most), and the rms as drawn."""
        kinds: dict[str, list[Numbers]] = defaultdict(list)
        for name, x in self.by_tensor.items():
            parts = name.split(".")
            kind = ".".join("*" if part.isdigit() else part for part in parts).removeprefix("layers.*.")
            kinds[kind].append(x)
        return [
            {
                "kind": kind, "tensors": len(own), "rms": _spread([x.rms for x in own]),
                "rms_as_drawn": self._drawn(kind), "spectrum": _spread([x.spectrum for x in own]),
            }
            for kind, own in kinds.items()
        ]  # fmt: skip

    def _drawn(self, kind: str) -> float:
        if "norm" in kind:
            return 1.0
        if kind.endswith("bias"):
            return 0.0
        return 1 / math.sqrt(3 * self.config.hidden_size) if kind == "mlp.gate" else self.config.initializer_range


def _spread(values: list[float]) -> list[float]:
    return [float(f"{x:.4g}") for x in (min(values), float(np.median(values)), max(values))]
