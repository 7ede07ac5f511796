"""Does a recipe fit a machine that is not here? Compiles its real train step for it and prints what the compiler says.

    python -m anyorder_jax.fit --config=configs/llada2_mini_h200.py --target=h200x1
    python -m anyorder_jax.fit --config=configs/any_order.py --target=cpux8
    python -m anyorder_jax.fit --what=evaluate --config=llada2_mini_lora --target=l40sx1 [--dtype=bfloat16 | int8]

Nothing is allocated and no accelerator is needed: its compiler is (`pip install "anyorder-jax[fit-gpu]"` or
`[fit-tpu]`). The numbers also go to runs/fit/RECIPE-TARGET.json (--output: another file), before they are printed.
Exits 0 when the step fits, 1 when it does not (and names what to change), 2 when the question is wrong, 3 when the
compiler failed.
"""

from __future__ import annotations

if __name__ == "__main__":
    from anyorder_jax import command

    command.begin("fit")  # imports take seconds

import importlib.util
import json
import math
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags
from ml_collections import config_flags

from anyorder_jax import command, compiled, files, flops, hardware, recipes, sharding, state, step, terminal, weights
from anyorder_jax.compiled import GIB, Figures, bytes_per_device, numbers
from anyorder_jax.config import Config, freeze, freeze_typed, to_json
from anyorder_jax.model import lora
from anyorder_jax.optimizer import make_optimizer
from anyorder_jax.training.shape import as_published
from anyorder_jax.types import Batch


def abstract_batch(config: Config, mesh: Any) -> Batch:
    """The shapes and places of one update's batch."""
    shape = (config.train.batch_size, config.data.row_length)
    dtypes = Batch(
        tokens=jnp.int32, targets=jnp.int32, is_target=jnp.bool_, positions=jnp.int32, segment_ids=jnp.int32,
        kind=jnp.int8, field=jnp.int8, rate=jnp.float32, example=jnp.int32,
    )  # fmt: skip
    return Batch(*(jax.ShapeDtypeStruct(shape, dtype, sharding=sharding.rows(mesh)) for dtype in dtypes))


def compile_step(config: Config, machine: hardware.Target) -> dict[str, Any]:
    """Lowers and compiles `step.make_train_step` for the machine's devices; everything that `fit` prints, in numbers.

    Raises:
      jax.errors.JaxRuntimeError: from the compiler, also when the program is too large.
    """
    model = as_published(config)
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
    program = train_step.lower(abstract, abstract_batch(config, mesh)).compile()
    seconds = time.perf_counter() - start
    return {
        "compile_seconds": seconds,
        "num_params": sum(math.prod(x.shape) for x in jax.tree.leaves(abstract.params)),
        "num_trained": sum(math.prod(x.shape) for x in jax.tree.leaves(trained)),
        "mesh": dict(mesh.shape),
        "parameters": bytes_per_device(abstract.params),
        "frozen": bytes_per_device(frozen),
        "optimizer": bytes_per_device(abstract.opt_state) - bytes_per_device(on_host),
        "host": bytes_per_device(on_host),
        **numbers(program, machine),
    }


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


def weigh(config: Config, machine: hardware.Target, found: dict[str, Any]) -> Figures:
    """The figures of a program that `compile_step` found."""
    tokens = config.train.batch_size * config.data.row_length
    computed = flops.computed_per_token(config, as_published(config))
    # what is trained, its gradients and moments are read and written once, all weights read in three passes
    moved = 2 * found["arguments"] + 4 * found["parameters"] - 3 * found["frozen"]
    return compiled.figures(machine, found, tokens, computed, moved)


def report(config: Config, machine: hardware.Target, found: dict[str, Any]) -> str:
    """The printed report: memory by use, whether the step fits, what bounds its speed, and what to change first."""
    chip, figures = machine.hardware, weigh(config, machine, found)
    gib, peak, fits = figures.gib, figures.peak_gib, figures.is_fitting
    counted = flops.per_token(config, as_published(config))
    lines = [
        f"{config.model.path or config.model.preset}: {found['num_params'] / 1e9:.3f}B parameters on {machine.name}, "
        f"mesh {' x '.join(f'{k}={v}' for k, v in found['mesh'].items())}",
        f"step: {config.train.batch_size} rows of {config.data.row_length} = {figures.tokens:,} tokens in "
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
        f"GFLOP a token          {counted.total / 1e9:9.3f}   "
        + ", ".join(f"{name} {value / 1e9:.3f}" for name, value in counted.items()),
        f"  {'4 x frozen weights + 6 x factors' if config.lora.rank else '6 x weights'} met + 12 x layers x keys x "
        f"heads x head dim, no recomputation, {flops.asked_share(config):.0%} of positions asked; "
        f"with it {flops.computed_per_token(config, as_published(config)) / 1e9:.3f}",
        "",
        "kernels: " + (", ".join(f"{name} x {count}" for name, count in found["kernels"].items()) or "none"),
        "",
        "collectives a step and device",
        *compiled.traffic_lines(found),
        "",
        "roofline of a step at the maker's peak rates, ms",
        *compiled.roofline_lines(figures, machine),
    ]  # fmt: skip
    if not fits:
        lines += ["", f"{peak - chip.memory_gib:.2f} GiB too much. Next: {next_knob(config)}."]
    return "\n".join(lines)


def table(name: str, config: Config, machine: hardware.Target, found: dict[str, Any]) -> str:
    """The table of docs/training_at_scale.md: its head and one recipe's row.

    Args:
      name: of the recipe.
      config: its settings.
      machine: what it is compiled for.
      found: of `compile_step`.
    """
    row = compiled.row(
        f"`{name}`", machine, found, weigh(config, machine, found),
        rows=f"{config.train.batch_size} x {config.data.row_length:,}",
        gflop=f"{flops.per_token(config, as_published(config)).total / 1e9:.2f}",
    )  # fmt: skip
    return f"{compiled.HEAD}\n{row}"


def explain_failure(config: Config, machine: hardware.Target, code: int, text: str, knob: str = "") -> tuple[str, int]:
    """(a sentence for a compilation that ended without an answer, the exit code).

    Args:
      config: the settings.
      machine: what was compiled for.
      code: with which the compilation ended.
      text: what it printed.
      knob: what to change first when memory is short (empty: of the step).
    """
    if "RESOURCE_EXHAUSTED" in text:
        numbers = re.search(r"[Uu]sed ([\d.]+[KMGT]) of ([\d.]+[KMGT])", text)
        sizes = f" ({numbers[1]} of {numbers[2]})" if numbers else ""
        return f"{machine.name}: DOES NOT FIT{sizes}, says its compiler. Next: {knob or next_knob(config)}.", 1
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


def compile_apart(config: Config, machine: hardware.Target, *evaluation: str) -> tuple[dict[str, Any] | None, int, str]:
    """Compiles in a process of its own, which a compiler may crash: (what it found, exit code, errors).

    Args:
      config: the settings.
      machine: what is compiled for.
      evaluation: nothing: the step; the dtype of the weights: what evaluates.
    """
    refuse_absent_compiler(machine)
    environment = {**os.environ, **hardware.environment(machine)}
    command = [sys.executable, "-m", "anyorder_jax.fit", "--worker", machine.name, *evaluation]
    done = subprocess.run(
        command, env=environment, input=to_json(config), capture_output=True, check=False,
        encoding="utf-8", errors="replace",
    )  # fmt: skip
    if done.returncode:
        return None, done.returncode, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), 0, done.stderr


def worker(name: str, *evaluation: str) -> None:
    """Reads a configuration from standard input, compiles, writes one line of JSON."""
    config, machine = freeze(json.loads(sys.stdin.read())), hardware.target(name)
    if evaluation:
        from anyorder_jax import fit_evaluation

        print(json.dumps(fit_evaluation.compile_evaluation(config, machine, *evaluation)))
    else:
        print(json.dumps(compile_step(config, machine)))


def content(config: Config, machine: hardware.Target, found: dict[str, Any]) -> dict[str, Any]:
    """What was found and how it is weighed, for the file of numbers."""
    per_token = flops.per_token(config, as_published(config)).total / 1e9
    weighed = {**weigh(config, machine, found)._asdict(), "gflop_per_token": per_token}
    return {"target": machine.name, "config": json.loads(to_json(config)), "found": found, "weighed": weighed}


def write_numbers(path: Path, numbers: dict[str, Any]) -> None:
    """Writes a file of numbers; where that cannot be written says so and goes on."""
    try:
        files.write_whole(path, json.dumps(numbers, indent=1) + "\n")
    except OSError as error:
        print(f"fit: {error.strerror} Or name a file: --output=FILE.", file=sys.stderr)


def main(argv: list[str]) -> int:
    if argv[1:2] == ["--worker"]:
        worker(*argv[2:])
        return 0
    with command.door("fit"):
        return _fit(argv)


def _fit(argv: list[str]) -> int:
    """Answers the command line; the exit code."""
    terminal.accept_any_letter()
    values = flags.FlagValues()
    recipe = config_flags.DEFINE_config_file("config", None, "A recipe.", flag_values=values)
    target = flags.DEFINE_string("target", "", "h200x1, h100x8, v5e-64, v6e-16, v5p-8, cpux8, ...", flag_values=values)
    form = flags.DEFINE_enum("format", "text", ["text", "markdown"], "Report or table row.", flag_values=values)
    output = flags.DEFINE_string("output", "", "File; default runs/fit/RECIPE-TARGET.json.", flag_values=values)
    what = flags.DEFINE_enum("what", "step", ["step", "evaluate"], "What is compiled.", flag_values=values)
    dtype = flags.DEFINE_enum(
        "dtype", "", weights.DTYPES, "Of the weights, with --what=evaluate; default the recipe's.", flag_values=values
    )
    try:
        values(recipes.in_arguments(argv))
        if recipe.value is None or not target.value:
            raise ValueError("Usage: python -m anyorder_jax.fit --config=any_order --target=h200x1")
        config, machine = freeze_typed(recipe.value), hardware.target(target.value)
        if dtype.value and what.value != "evaluate":
            raise ValueError("--dtype: only with --what=evaluate. The step's is --config.model.param_dtype.")
        found, code, errors = compile_apart(config, machine, *([dtype.value] if what.value == "evaluate" else []))
    except (ValueError, AttributeError, KeyError, TypeError, OSError, flags.Error) as error:
        print(f"fit: {error}", file=sys.stderr)
        return 2
    name = Path(config_flags.get_config_filename(values["config"])).stem
    is_table, path = form.value == "markdown", output.value
    if what.value == "evaluate":
        return _say_evaluation(name, config, machine, (found, code, errors), dtype.value, is_table, path)
    if found is None:
        sentence, code = explain_failure(config, machine, code, errors)
        print(sentence, file=sys.stderr)
        return code
    write_numbers(Path(path or f"runs/fit/{name}-{machine.name}.json"), content(config, machine, found))
    print(table(name, config, machine, found) if is_table else report(config, machine, found))
    return 0 if weigh(config, machine, found).is_fitting else 1


def _say_evaluation(
    name: str, config: Config, machine: hardware.Target, answer: Any, dtype: str, is_table: bool, path: str
) -> int:
    """Writes and prints what was found of the programs that evaluate; the exit code.

    Args:
      name: of the recipe.
      config: its settings.
      machine: what was compiled for.
      answer: of `compile_apart`.
      dtype: of the weights.
      is_table: rows of the table of docs/training_at_scale.md in place of the report.
      path: of the file of numbers; empty: the default.
    """
    from anyorder_jax import fit_evaluation as evaluation  # late: it brings what acts

    found, code, errors = answer
    if found is None:
        knob = evaluation.next_knob(config, dtype)
        sentence, code = explain_failure(config, machine, code, errors, knob)
        print(sentence, file=sys.stderr)
        return code
    default = f"runs/fit/{name}-{machine.name}-evaluate{f'-{dtype}' if dtype else ''}.json"
    write_numbers(Path(path or default), evaluation.content(config, machine, found, dtype))
    shown = evaluation.table(name, config, machine, found, dtype) if is_table else ""
    print(shown or evaluation.report(config, machine, found, dtype))
    return 0 if evaluation.is_fitting(config, machine, found) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv))
