"""Does a recipe fit a machine that is not here? Compiles its real train step for it and prints what the compiler says.

    python -m anyorder_jax.fit --config=configs/llada2_mini_h200.py --target=h200x1
    python -m anyorder_jax.fit --config=configs/any_order.py --target=cpux8

Nothing is allocated and no accelerator is needed: its compiler is (`pip install "anyorder-jax[fit-gpu]"` or
`[fit-tpu]`). Exits 0 when the step fits, 1 when it does not (and names what to change), 2 when the question is wrong,
3 when the compiler failed.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import re
import subprocess
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags
from flax import traverse_util
from ml_collections import config_flags

from anyorder_jax import hardware, hlo, sharding, state, step
from anyorder_jax.config import Config, freeze, to_json
from anyorder_jax.model import lora, presets, transformer
from anyorder_jax.model.config import ModelConfig
from anyorder_jax.optimizer import make_optimizer
from anyorder_jax.pretrained.load import read_model_config
from anyorder_jax.types import Batch

GIB = 2**30


class Flops(dict[str, float]):
    """Floating point operations of a training step by part, for one token of the batch."""

    @property
    def total(self) -> float:
        return sum(self.values())


def flops_per_token(config: Config, model: ModelConfig) -> Flops:
    """What the equations ask for, forward and backward (three times the forward), without recomputation:

        2 * 3 * (weights that a token meets: attention, dense or shared MLP, router, k experts; the head)
        + 12 * num_layers * keys * num_heads * head_dim             (scores and values)

    With LoRA 2 * 2 for the weights, which get no gradient, and 2 * 3 for the factors that a token meets.
    keys: the row's length (every pair of a row, also across packed documents). Under block diffusion a token is read
    twice, noisy and clean, and meets the clean keys before it and its own block: row length + block size for both. The
    head counts for `loss.target_share` of the positions.
    """
    D, L = model.hidden_size, config.data.row_length
    H, K, C = model.num_attention_heads, model.num_key_value_heads, model.head_dim
    dense, moe = model.first_k_dense_replace, model.num_moe_layers
    F = model.moe_intermediate_size
    projections = D * (H + 2 * K) * C + H * C * D
    feed_forward = dense * 3 * D * model.intermediate_size + moe * (
        3 * D * F * (model.num_experts_per_tok + model.num_shared_experts) + D * model.num_experts
    )
    is_twice = config.train.objective == "block_diffusion"
    keys = L + config.train.block_size if is_twice else L
    each = 4.0 if config.lora.rank else 6.0
    flops = Flops(
        linear=each * (model.num_hidden_layers * projections + feed_forward) * (2 if is_twice else 1),
        attention=12.0 * model.num_hidden_layers * keys * H * C,
        head=each * D * model.vocab_size * config.loss.target_share,
    )
    if config.lora.rank:
        flops["factors"] = 6.0 * factors_met(config, model) * (2 if is_twice else 1)
    return flops


def factors_met(config: Config, model: ModelConfig) -> int:
    """How many of LoRA's numbers a token is multiplied with."""
    declared, _ = lora.split(transformer.parameters(model, config.model.param_dtype, config.lora))
    total = 0
    for factor in traverse_util.flatten_dict(declared).values():
        size = math.prod(factor.shape)
        is_routed = "expert" in factor.axes
        total += size * model.num_experts_per_tok // model.num_experts if is_routed else size
    return total


def computed_per_token(config: Config, model: ModelConfig) -> float:
    """`flops_per_token` and what rematerialisation repeats: the layers' forward pass once more, or nothing."""
    flops = flops_per_token(config, model)
    passes = 2 if config.lora.rank else 3  # of the weights, forward and backward
    again = flops["linear"] / passes + flops["attention"] / 3 + flops.get("factors", 0.0) / 3
    return flops.total + (0.0 if config.model.remat == "none" else again)


def abstract_batch(config: Config, mesh: Any) -> Batch:
    """The shapes and places of one update's batch."""
    shape = (config.train.batch_size, config.data.row_length)
    dtypes = Batch(
        tokens=jnp.int32, targets=jnp.int32, is_target=jnp.bool_, positions=jnp.int32, segment_ids=jnp.int32,
        kind=jnp.int8, field=jnp.int8, rate=jnp.float32, example=jnp.int32,
    )  # fmt: skip
    return Batch(*(jax.ShapeDtypeStruct(shape, dtype, sharding=sharding.rows(mesh)) for dtype in dtypes))


def bytes_per_device(tree: Any) -> int:
    """Of abstract arrays with shardings."""
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def compile_step(config: Config, machine: hardware.Target) -> dict[str, Any]:
    """Lowers and compiles `step.make_train_step` for the machine's devices; everything that `fit` prints, in numbers.

    Raises:
      jax.errors.JaxRuntimeError: from the compiler, also when the program is too large.
    """
    model = model_config_of(config)
    mesh = sharding.make_mesh(config.mesh, hardware.devices(machine))
    check_rows(config, mesh)
    shapes = state.abstract_params(model, mesh, config.model.param_dtype, config.lora)
    optimizer, _ = make_optimizer(config.optimizer, config.train.num_steps, shapes)
    abstract, placed = state.state_shardings(
        model, optimizer, mesh, config.model.param_dtype, config.lora, config.optimizer.offload
    )
    on_host = [x for x in jax.tree.leaves(abstract.opt_state) if sharding.is_on_host(x.sharding)]
    trained, frozen = lora.split(abstract.params)
    train_step: Any = step.make_train_step(config, model, optimizer, mesh, placed)
    start = time.perf_counter()
    compiled = train_step.lower(abstract, abstract_batch(config, mesh)).compile()
    memory = compiled.memory_analysis()
    outputs = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return {
        "compile_seconds": time.perf_counter() - start,
        "num_params": sum(math.prod(x.shape) for x in jax.tree.leaves(abstract.params)),
        "num_trained": sum(math.prod(x.shape) for x in jax.tree.leaves(trained)),
        "mesh": dict(mesh.shape),
        "parameters": bytes_per_device(abstract.params),
        "frozen": bytes_per_device(frozen),
        "optimizer": bytes_per_device(abstract.opt_state) - bytes_per_device(on_host),
        "host": bytes_per_device(on_host),
        "arguments": memory.argument_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "outputs": outputs,
        "collectives": hlo.collectives(compiled.as_text()),
    }


def model_config_of(config: Config) -> ModelConfig:
    """The model's shape: of the checkpoint at `model.path`, or the preset as it is published."""
    return read_model_config(config.model.path) if config.model.path else presets.get(config.model.preset)


def check_rows(config: Config, mesh: Any) -> None:
    """Raises ValueError when a micro-batch's rows do not split over the mesh."""
    parts = math.prod(mesh.shape[axis] for axis in sharding.BATCH_AXES)
    rows = config.train.batch_size // config.train.accumulation_steps
    if rows % parts:
        raise ValueError(
            f"config.train: {rows} rows in a micro-batch do not split over {parts} devices (mesh axes "
            f"{sharding.BATCH_AXES}). Set config.train.batch_size to a multiple of "
            f"{parts * config.train.accumulation_steps}."
        )


def next_knob(config: Config) -> str:
    """What to change first when memory is short: the cheapest that is not pulled yet."""
    if config.model.remat != "full":
        return "recompute activations: --config.model.remat=full"
    if config.model.compute_dtype != "bfloat16":
        return "compute in 16 bit: --config.model.compute_dtype=bfloat16"
    if config.lora.rank and not config.lora.base_dtype:
        return "frozen matrices in 8 bit: --config.lora.base_dtype=int8"
    if config.model.param_dtype != "bfloat16":
        return (
            "weights in 16 bit: --config.model.param_dtype=bfloat16 --config.optimizer.moment_dtype=bfloat16 "
            "--config.optimizer.stochastic_rounding=True"
        )
    if config.optimizer.name == "adamw":
        return "moments in 8 bit: --config.optimizer.name=adamw8bit"
    micro = config.train.batch_size // config.train.accumulation_steps
    if config.train.accumulation_steps > 1 and micro > 1:
        return f"smaller micro-batches: --config.train.accumulation_steps={config.train.accumulation_steps * 2}"
    if config.optimizer.name == "adamw8bit":
        return "hardly any moments: --config.optimizer.name=adafactor"
    if not config.optimizer.offload:
        return "moments on the host: --config.optimizer.offload=True"
    if config.train.batch_size > 1:
        return "fewer rows in a batch: halve --config.train.batch_size"
    return "more devices: a larger --target, with --config.mesh.fsdp=-1"


def held(config: Config, found: dict[str, Any]) -> str:
    """How the parameters are held, in words."""
    if not config.lora.rank:
        return f"{config.model.param_dtype} parameters"
    matrices = f"{config.lora.base_dtype} matrices, others " if config.lora.base_dtype else ""
    trained = f"{found['num_trained'] / 1e9:.3f}B float32 factors of rank {config.lora.rank} trained"
    return f"frozen {matrices}{config.model.param_dtype}; {trained}"


def report(config: Config, machine: hardware.Target, found: dict[str, Any]) -> tuple[str, bool]:
    """(the text, whether it fits)."""
    chip, model = machine.hardware, model_config_of(config)
    gib = {name: found[name] / GIB for name in ("parameters", "optimizer", "arguments", "temporaries", "outputs")}
    peak = gib["arguments"] + gib["temporaries"] + gib["outputs"]
    fits = peak <= chip.memory_gib
    tokens = config.train.batch_size * config.data.row_length
    flops = flops_per_token(config, model)
    computed = computed_per_token(config, model)
    sent = sum(size for _, size in found["collectives"].values())
    seconds = {
        "matrix products": tokens * computed / machine.num_devices / (chip.tflops * 1e12),
        # what is trained, its gradients and moments are read and written once, all weights read in three passes
        "memory": (2 * found["arguments"] + 4 * found["parameters"] - 3 * found["frozen"]) / (chip.memory_tbps * 1e12),
        "collectives": sent / (chip.link_gbps * 1e9),
    }
    slowest = max(seconds, key=lambda name: seconds[name])
    lines = [
        f"{config.model.path or config.model.preset}: {found['num_params'] / 1e9:.3f}B parameters on {machine.name}, "
        f"mesh {' x '.join(f'{k}={v}' for k, v in found['mesh'].items())}",
        f"step: {config.train.batch_size} rows of {config.data.row_length} = {tokens:,} tokens in "
        f"{config.train.accumulation_steps} micro-batch(es); {held(config, found)}, "
        f"{config.model.compute_dtype} activations, remat {config.model.remat}; compiled in "
        f"{found['compile_seconds']:.0f} s",
        "",
        "memory of one device, GiB",
        f"  parameters           {gib['parameters']:9.2f}",
        f"  optimizer            {gib['optimizer']:9.2f}"
        + (f"   and {found['host'] / GIB:.2f} on the host" if found["host"] else ""),
        f"  batch and the rest   {gib['arguments'] - gib['parameters'] - gib['optimizer']:9.2f}",
        f"  temporaries          {gib['temporaries']:9.2f}",
        f"  results not in place {gib['outputs']:9.2f}",
        f"  peak                 {peak:9.2f}   of {chip.memory_gib}: {'fits' if fits else 'DOES NOT FIT'}",
        "",
        f"GFLOP a token          {flops.total / 1e9:9.3f}   "
        + ", ".join(f"{name} {value / 1e9:.3f}" for name, value in flops.items()),
        f"  {'4 x frozen weights + 6 x factors' if config.lora.rank else '6 x weights'} met + 12 x layers x keys x "
        "heads x head dim, no recomputation; "
        f"with it {computed / 1e9:.3f}",
        "",
        "collectives a step and device",
        *[f"  {kind:20s} {count:5d} x {size / GIB:12.3f} GiB sent" for kind, (count, size)
          in found["collectives"].items()],
        *([] if found["collectives"] else ["  none"]),
        "",
        "roofline of a step at the maker's peak rates, ms",
        *[f"  {name:20s} {value * 1e3:10.2f}" for name, value in seconds.items()],
        f"  bound by {slowest}: at most {tokens / seconds[slowest]:,.0f} tokens/s, "
        f"{tokens / seconds[slowest] / machine.num_devices:,.0f} a device",
    ]  # fmt: skip
    if not fits:
        lines += ["", f"{peak - chip.memory_gib:.2f} GiB too much. Next: {next_knob(config)}."]
    return "\n".join(lines), fits


def explain_failure(config: Config, machine: hardware.Target, code: int, text: str) -> tuple[str, int]:
    """(a sentence for a compilation that ended without an answer, the exit code)."""
    if "RESOURCE_EXHAUSTED" in text:
        numbers = re.search(r"[Uu]sed ([\d.]+[KMGT]) of ([\d.]+[KMGT])", text)
        sizes = f" ({numbers[1]} of {numbers[2]})" if numbers else ""
        return f"{machine.name}: DOES NOT FIT{sizes}, says its compiler. Next: {next_knob(config)}.", 1
    if refused := re.search(r"^ValueError: (.*)", text, re.MULTILINE):
        return refused[1], 2
    reason = re.findall(r"^.*(?:Check failed|Error:|error:).*$", text, re.MULTILINE)
    last = reason[-1].strip() if reason else "no message"
    if code < 0 or code > 128:
        signal = -code if code < 0 else code - 128
        return f"{machine.name}: its compiler crashed (signal {signal}): {last[:300]}. Try another mesh or version.", 3
    return f"{machine.name}: could not compile: {last[:300]}", 3


def refuse_absent_compiler(machine: hardware.Target) -> None:
    """Raises ValueError when the packages that compile for the machine are not installed."""
    needed = {"gpu": ("fit-gpu", ("jax_cuda13_plugin", "tokamax")), "tpu": ("fit-tpu", ("libtpu",)), "cpu": ("", ())}
    extra, modules = needed[machine.hardware.platform]
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"--target={machine.name} needs {' and '.join(missing)}, not installed here: "
            f'pip install "anyorder-jax[{extra}]" (Python 3.12, no accelerator needed).'
        )


def compile_apart(config: Config, machine: hardware.Target) -> tuple[dict[str, Any] | None, int, str]:
    """`compile_step` in its own process, which a compiler may crash: (what it found, exit code, errors)."""
    refuse_absent_compiler(machine)
    environment = {**os.environ, **hardware.environment(machine)}
    command = [sys.executable, "-m", "anyorder_jax.fit", "--worker", machine.name]
    done = subprocess.run(command, env=environment, input=to_json(config), capture_output=True, text=True, check=False)
    if done.returncode:
        return None, done.returncode, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), 0, done.stderr


def worker(name: str) -> None:
    """Reads a configuration from standard input, compiles, writes one line of JSON."""
    config = freeze(json.loads(sys.stdin.read()))
    print(json.dumps(compile_step(config, hardware.target(name))))


def main(argv: list[str]) -> int:
    if argv[1:2] == ["--worker"]:
        worker(argv[2])
        return 0
    values = flags.FlagValues()
    recipe = config_flags.DEFINE_config_file("config", None, "A recipe.", flag_values=values)
    target = flags.DEFINE_string("target", "", "h200x1, h100x8, v5e-64, v6e-16, v5p-8, cpux8, ...", flag_values=values)
    try:
        values(argv)
        if recipe.value is None or not target.value:
            raise ValueError("Usage: python -m anyorder_jax.fit --config=configs/X.py --target=h200x1")
        config, machine = freeze(recipe.value), hardware.target(target.value)
        found, code, errors = compile_apart(config, machine)
    except (ValueError, AttributeError, KeyError, TypeError, OSError, flags.Error) as error:
        print(f"fit: {error}", file=sys.stderr)
        return 2
    if found is None:
        sentence, code = explain_failure(config, machine, code, errors)
        print(sentence, file=sys.stderr)
        return code
    text, fits = report(config, machine, found)
    print(text)
    return 0 if fits else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv))
