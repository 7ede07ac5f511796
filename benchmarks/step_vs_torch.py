"""One training step on a CPU: ours beside a PyTorch LLaDA2-MoE, same weights, same batch, taking turns in one run.

    pip install "anyorder-jax[parity]"
    python benchmarks/step_vs_torch.py [--rounds=10] [--threads=1]

For the default tiny recipe, and for hidden 256, 6 layers, 16 experts of which 2 are chosen, width 256, vocabulary 512,
8 rows of 256 tokens. Both: float32, forward, backward, clipping, AdamW. PyTorch with the fused kernels that it has:
`scaled_dot_product_attention`, `rms_norm`, products per expert over sorted tokens, `AdamW(fused=True)`.
Prints seconds to compile, losses of both (which must agree), median milliseconds and ratios; processor time counts on a
machine that does other things as well (with --threads=1, or threads wait for one another).
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from typing import Any

import numpy as np

STEPS_PER_TURN = 4
"""Steps in a row, as in training, before it is the other side's turn."""


def shapes() -> dict[str, tuple[Any, int, int]]:
    """Name -> (model configuration, rows, row length)."""
    from anyorder_jax.config import Config
    from anyorder_jax.model import presets

    tiny, config = presets.get("tiny"), Config()
    wide = dataclasses.replace(
        tiny, hidden_size=256, intermediate_size=512, num_hidden_layers=6, num_attention_heads=4,
        num_key_value_heads=2, head_dim=64, num_experts=16, moe_intermediate_size=256, vocab_size=512,
    )  # fmt: skip
    return {
        "tiny recipe": (tiny, config.train.batch_size, config.data.row_length),
        "hidden 256, 16 experts": (wide, 8, 256),
    }


def recipe(rows: int, length: int) -> Any:
    """The default configuration, with batches of `rows` rows."""
    from anyorder_jax.config import Config, DataConfig, TrainConfig

    return Config(data=DataConfig(row_length=length), train=TrainConfig(batch_size=rows))


def random_batch(model: Any, rows: int, length: int) -> Any:
    """Half of the tokens hidden; one segment a row."""
    from anyorder_jax.types import Batch, Kind

    rng = np.random.default_rng(0)
    shape = (rows, length)
    targets = rng.integers(1, model.vocab_size - 1, shape, dtype=np.int32)
    is_target = rng.random(shape) < 0.5
    zeros = np.zeros(shape, np.int32)
    return Batch(
        tokens=np.where(is_target, model.vocab_size - 1, targets).astype(np.int32), targets=targets,
        is_target=is_target, positions=zeros + np.arange(length, dtype=np.int32), segment_ids=zeros + 1,
        kind=np.full(shape, Kind.OBSERVATION, np.int8), field=np.zeros(shape, np.int8),
        rate=np.full(shape, 0.5, np.float32), example=zeros,
    )  # fmt: skip


class Ours:
    """The package's own train step, on as many of JAX's devices as `train` would use."""

    def __init__(self, model: Any, batch: Any) -> None:
        import jax

        from anyorder_jax import flops, keys, sharding, state, step
        from anyorder_jax.config import LossConfig, OptimizerConfig
        from anyorder_jax.optimizer import make_optimizer

        config = dataclasses.replace(
            recipe(*batch.tokens.shape),
            loss=LossConfig(normalisation="token"),
            optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=0, end_learning_rate=1e-3, decay="all"),
        )
        self.num_devices = max(flops.cpu_devices(config, model), 1)
        mesh = sharding.make_mesh(config.mesh, jax.devices()[: self.num_devices])
        params = state.abstract_params(model, mesh, "float32")
        optimizer, _ = make_optimizer(config.optimizer, config.train.num_steps, params)
        _, placed = state.state_shardings(model, optimizer, mesh, "float32")
        self.state = state.create(model, optimizer, mesh, "float32", keys.key(0, "init"))
        self.weights = jax.tree.map(np.array, self.state.params)
        self.batch = sharding.place_batch(batch, mesh)
        start = time.perf_counter()
        self.train_step = step.make_train_step(config, model, optimizer, mesh, placed).lower(
            self.state, self.batch
        ).compile()  # fmt: skip
        self.compile_seconds = time.perf_counter() - start

    def step(self) -> float:
        self.state, metrics = self.train_step(self.state, self.batch)
        return float(metrics["loss"])


class Torch:
    """The same equations and the same weights in PyTorch."""

    def __init__(self, model: Any, batch: Any, weights: Any, device: str = "cpu", dtype: Any = None) -> None:
        import torch
        import torch.nn.functional as F

        self.torch, self.F, self.model = torch, F, model
        with torch.device(device):
            self._load(batch, weights, dtype or torch.float32, device)

    def _load(self, batch: Any, weights: Any, dtype: Any, device: str) -> None:
        torch, model = self.torch, self.model
        put = lambda array: torch.from_numpy(array).to(device)  # noqa: E731
        self.weights = {
            name: torch.nn.Parameter(put(value.copy()).to(dtype)) for name, value in _flatten(weights).items()
        }
        self.bias = {name: self.weights.pop(name) for name in list(self.weights) if name.endswith("expert_bias")}
        self.tokens, self.targets = put(batch.tokens.astype(np.int64)), put(batch.targets.astype(np.int64))
        self.is_target = put(batch.is_target)
        half = model.rotary_dim // 2
        frequency = model.rope_theta ** (-torch.arange(half, dtype=torch.float32) / half)
        angle = torch.arange(batch.tokens.shape[1], dtype=torch.float32)[:, None] * frequency
        self.cos, self.sin = angle.cos()[None, :, None].to(dtype), angle.sin()[None, :, None].to(dtype)
        self.optimizer = torch.optim.AdamW(
            self.weights.values(), lr=1e-3, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.01, fused=True
        )

    def step(self) -> float:
        torch = self.torch
        self.optimizer.zero_grad(set_to_none=True)
        logits = self.forward()
        loss = self.F.cross_entropy(logits[self.is_target], self.targets[self.is_target])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.weights.values(), 1.0)
        self.optimizer.step()
        return float(loss.detach())

    def forward(self) -> Any:
        return self.hidden() @ self.weights["head"]

    def hidden(self) -> Any:
        """All but the head."""
        w, model = self.weights, self.model
        x = w["embedding"][self.tokens]
        for kind, count in (("dense", model.first_k_dense_replace), ("moe", model.num_moe_layers)):
            # one view per layer and weight: the gradients of a stack are summed by autograd
            stacks = {name.split("/")[1]: value.unbind(0) for name, value in w.items() if name.startswith(kind + "/")}
            for i in range(count):
                layer = {name: value[i] for name, value in stacks.items()}
                x = x + self.attention(layer, self.norm(x, layer["input_norm"]))
                normed = self.norm(x, layer["post_attention_norm"])
                if kind == "dense":
                    x = x + self.mlp(normed, layer["gate_up"], layer["down"])
                else:
                    x = x + self.experts(layer, self.bias["moe/expert_bias"][i], normed)
                    x = x + self.mlp(normed, layer["shared_gate_up"], layer["shared_down"])
        return self.norm(x, w["final_norm"])

    def norm(self, x: Any, weight: Any) -> Any:
        return self.F.rms_norm(x, weight.shape, weight, self.model.rms_norm_eps)

    def rotate(self, x: Any) -> Any:
        half = self.cos.shape[-1]
        first, second, rest = x.split([half, half, x.shape[-1] - 2 * half], -1)
        return self.torch.cat([first * self.cos - second * self.sin, second * self.cos + first * self.sin, rest], -1)

    def attention(self, layer: Any, x: Any) -> Any:
        B, L, _ = x.shape
        H, K, C = self.model.num_attention_heads, self.model.num_key_value_heads, self.model.head_dim
        q, k, v = (x @ layer["query_key_value"]).view(B, L, H + 2 * K, C).split([H, K, K], 2)
        q, k = self.rotate(self.norm(q, layer["query_norm"])), self.rotate(self.norm(k, layer["key_norm"]))
        mixed = self.mix(*(t.transpose(1, 2) for t in (q, k, v)))
        return mixed.transpose(1, 2).reshape(B, L, H * C) @ layer["attention_output"]

    def mix(self, q: Any, k: Any, v: Any) -> Any:
        """Everybody sees everybody; [B, heads, L, C] each."""
        return self.F.scaled_dot_product_attention(q, k, v, enable_gqa=True)

    def mlp(self, x: Any, gate_up: Any, down: Any) -> Any:
        gate, up = (x @ gate_up.flatten(1)).chunk(2, -1)
        return (self.F.silu(gate) * up) @ down

    def experts(self, layer: Any, bias: Any, x: Any) -> Any:
        """Tokens sorted by expert, multiplied, weighted, added."""
        torch, model = self.torch, self.model
        flat = x.reshape(-1, x.shape[-1])
        scores = torch.sigmoid(flat.float() @ layer["router"].float())
        with torch.no_grad():
            biased = scores + bias
            grouped = biased.view(len(flat), model.n_group, -1)
            best = grouped.topk(2, -1).values.sum(-1).topk(model.topk_group, -1).indices
            kept = torch.zeros_like(grouped[..., 0], dtype=torch.bool).scatter_(1, best, True)
            biased = grouped.masked_fill(~kept[..., None], -torch.inf).flatten(1)
            chosen = biased.topk(model.num_experts_per_tok, -1).indices
        weight = scores.gather(1, chosen)
        weight = weight / (weight.sum(-1, keepdim=True) + 1e-20) * model.routed_scaling_factor
        order = chosen.flatten().argsort(stable=True)
        token = order // model.num_experts_per_tok
        out = self.products(flat[token], layer, self.loads(chosen.flatten()))
        out = out * weight.flatten()[order, None].to(out.dtype)
        return torch.zeros_like(flat).index_add(0, token, out).view_as(x)

    def loads(self, chosen: Any) -> Any:
        """How many rows each expert has, of all choices in a row."""
        return self.torch.bincount(chosen, minlength=self.model.num_experts)

    def products(self, x: Any, layer: Any, load: Any) -> Any:
        """Every expert's MLP on its slice of the sorted rows, one after another."""
        gate_up, down = layer["expert_gate_up"].unbind(0), layer["expert_down"].unbind(0)
        parts = x.split(load.tolist())
        return self.torch.cat([self.mlp(part, gate_up[e], down[e]) for e, part in enumerate(parts)])


def _flatten(tree: Any, prefix: str = "") -> dict[str, np.ndarray]:
    flat: dict[str, np.ndarray] = {}
    for name, value in tree.items():
        flat |= _flatten(value, f"{prefix}{name}/") if isinstance(value, dict) else {prefix + name: value}
    return flat


def compare(name: str, model: Any, rows: int, length: int, rounds: int) -> float:
    """Prints one line; returns how many times PyTorch's tokens per second ours are."""
    batch = random_batch(model, rows, length)
    ours = Ours(model, batch)
    theirs = Torch(model, batch, ours.weights)
    losses = [(ours.step(), theirs.step()) for _ in range(3)]
    for one, other in losses:  # three updates: gradients, clipping and AdamW agree as well
        assert abs(one - other) < 1e-3 * abs(other), losses
    wall: dict[str, list[float]] = {"ours": [], "PyTorch": []}
    busy: dict[str, list[float]] = {"ours": [], "PyTorch": []}
    for _ in range(rounds):
        for side, run in (("ours", ours), ("PyTorch", theirs)):
            run.step()  # not counted: the other side's threads still spin for a while after its last step
            for _ in range(STEPS_PER_TURN):
                start, start_busy = time.perf_counter(), time.process_time()
                run.step()
                wall[side].append((time.perf_counter() - start) * 1e3)
                busy[side].append((time.process_time() - start_busy) * 1e3)
    ratio = statistics.median(wall["PyTorch"]) / statistics.median(wall["ours"])
    print(
        f"{name}: ours makes {ratio:.2f} x the tokens/s of PyTorch; losses {losses[-1][0]:.5f} and "
        f"{losses[-1][1]:.5f}; {ours.num_devices} device(s), compiled in {ours.compile_seconds:.1f} s"
    )
    for what, times in (("a step", wall), ("processor time", busy)):
        ours_ms, theirs_ms = (statistics.median(times[side]) for side in ("ours", "PyTorch"))
        least = min(times["PyTorch"]) / min(times["ours"])
        print(
            f"  {what:15s} ours {ours_ms:8.1f} ms, PyTorch {theirs_ms:8.1f} ms: {theirs_ms / ours_ms:.2f} x (best of "
            f"each: {least:.2f} x)",
            flush=True,
        )
    return ratio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=0, help="cores for both (0: all)")
    parser.add_argument("--only", default="", help="a word of the shape's name")
    options = parser.parse_args()
    import os

    if options.threads:  # before either library starts its threads
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    import torch

    from anyorder_jax import flops, process

    chosen = {name: shape for name, shape in shapes().items() if options.only in name}
    process.prepare(max(flops.cpu_devices(recipe(rows, length), model) for model, rows, length in chosen.values()))
    torch.set_num_threads(process.num_cores())
    for name, (model, rows, length) in chosen.items():
        compare(name, model, rows, length, options.rounds)


if __name__ == "__main__":
    main()
