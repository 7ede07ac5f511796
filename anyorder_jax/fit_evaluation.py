"""Does a model fit a machine for evaluation? `fit --what=evaluate`: what `evaluate` and `generate` run, compiled.

scoring    asking/scorer.py: rows of the recipe's context, every place of which may be asked
filling    decode.py: the hole of a decision at the end of such rows, filled in passes
"""

from __future__ import annotations

import json
import time
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from anyorder_jax import compiled, decode, flops, hardware, sharding, weights
from anyorder_jax.acting.scores import HOLE_STEP, max_rows
from anyorder_jax.asking import scorer
from anyorder_jax.config import Config, to_json
from anyorder_jax.training.shape import as_published


def length_of(config: Config) -> int:
    """Tokens of a row: a context of the recipe, padded as the scorer pads it."""
    return scorer.padded_length(config.data.context_tokens or config.data.row_length)


def compile_evaluation(config: Config, machine: hardware.Target, dtype: str) -> dict[str, dict[str, Any]]:
    """{"scoring": what the compiler says of it, "filling": the same}, at the shapes of a full batch.

    Args:
      config: of the recipe; its weights lie on its mesh.
      machine: whose devices are compiled for.
      dtype: in which the weights are held; see `weights.held_in`.
    """
    model = as_published(config)
    mesh = sharding.make_mesh(config.mesh, hardware.devices(machine))
    params = weights.shapes_for_inference(config, model, mesh, dtype)
    held = weights.held_in(config, dtype)
    own = compiled.bytes_per_device(params)
    about = {"mesh": dict(mesh.shape), "parameters": own, "length": length_of(config)}
    programs = {"scoring": _scoring, "filling": _filling}
    found = {}
    for name, lower in programs.items():
        start = time.perf_counter()
        lowered, rows = lower(held, model, mesh, params)
        program = lowered.compile()
        seconds = time.perf_counter() - start
        found[name] = {**about, **compiled.numbers(program, machine), "rows": rows, "compile_seconds": seconds}
    return found


def _whole(mesh: Mesh, shape: tuple[int, ...], dtype: Any = jnp.int32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding.rows(mesh))


def _scoring(config: Config, model: Any, mesh: Mesh, params: Any) -> tuple[Any, int]:
    """(the scorer, lowered; its rows)."""
    length = length_of(config)
    per_shard = sharding.rows_per_shard(length)
    rows = per_shard * sharding.num_row_shards(mesh)
    rows_BL, numbers_B = _whole(mesh, (rows, length)), _whole(mesh, (rows,))
    score: Any = jax.jit(scorer.make_score(config, model, mesh, per_shard))
    return score.lower(params, rows_BL, rows_BL, numbers_B, rows_BL, rows_BL, numbers_B), rows


def _filling(config: Config, model: Any, mesh: Mesh, params: Any) -> tuple[Any, int]:
    """(the filling of a thought and an action of one block each, lowered; its rows)."""
    length, rows = length_of(config), max_rows(length_of(config), mesh)
    blocks = config.data.role_blocks()
    num_holes = -(-(blocks["thought"] + blocks["action"]) // HOLE_STEP) * HOLE_STEP
    holes = decode.Holes(*[_whole(mesh, (rows, num_holes))] * 3)
    allowed_BHV = _whole(mesh, (rows, num_holes, model.vocab_size), jnp.bool_)
    whole = sharding.replicated(mesh)
    seeds_B = _whole(mesh, (rows,), jnp.uint32)
    threshold = jax.ShapeDtypeStruct((), jnp.float32, sharding=whole)
    fill: Any = decode.make_fill(config, model, model.pad_token_id, mesh)
    tokens_BL, lengths_B = _whole(mesh, (rows, length)), _whole(mesh, (rows,))
    return fill.lower(params, tokens_BL, lengths_B, holes, allowed_BHV, threshold, seeds_B, decode.LIKELIEST), rows


def weigh(config: Config, machine: hardware.Target, found: dict[str, Any]) -> compiled.Figures:
    """The figures of one program: of a batch that is scored, or of one pass of the filling."""
    per_token = flops.forward_per_token(config, as_published(config), found["length"])
    return compiled.figures(machine, found, found["rows"] * found["length"], per_token, found["arguments"])


def is_fitting(config: Config, machine: hardware.Target, found: dict[str, Any]) -> bool:
    """Whether both programs fit."""
    return all(weigh(config, machine, program).is_fitting for program in found.values())


def next_knob(config: Config, dtype: str) -> str:
    """What to change first when memory is short."""
    held = weights.held_in(config, dtype)
    if held.model.param_dtype == "float32" or held.model.compute_dtype == "float32":
        return "weights in 16 bit: --dtype=bfloat16"
    if dtype != "int8" and held.lora.base_dtype != "int8":
        return "matrices in 8 bit: --dtype=int8"
    return "more devices: a larger --target, with --config.mesh.fsdp=-1"


def held_as(config: Config, dtype: str) -> str:
    """How the weights are held, in words."""
    held = weights.held_in(config, dtype)
    is_in_bits = dtype == "int8" or held.lora.base_dtype == "int8"
    matrices = "int8 matrices, others " if is_in_bits else ""
    factors = f" and float32 factors of rank {held.lora.rank}" if held.lora.rank else ""
    return f"{matrices}{held.model.param_dtype}{factors}"


def report(config: Config, machine: hardware.Target, found: dict[str, Any], dtype: str) -> str:
    """The printed report of both programs: memory by use, whether they fit, what bounds them, what to change first."""
    lines = []
    for name, program in found.items():
        figures = weigh(config, machine, program)
        gib, room = figures.gib, machine.hardware.memory_gib
        rest = gib["arguments"] - gib["parameters"]
        lines += [
            f"{name}: {config.model.path or config.model.preset} on {machine.name}, mesh "
            f"{' x '.join(f'{k}={v}' for k, v in program['mesh'].items())}",
            f"{program['rows']} rows of {program['length']} = {figures.tokens:,} tokens; weights "
            f"{held_as(config, dtype)}, {weights.held_in(config, dtype).model.compute_dtype} activations; compiled in "
            f"{program['compile_seconds']:.0f} s",
            "",
            "memory of one device, GiB",
            f"  parameters           {gib['parameters']:9.2f}",
            f"  batch and the rest   {rest:9.2f}",
            f"  temporaries          {gib['temporaries']:9.2f}",
            f"  results              {gib['outputs']:9.2f}",
            f"  peak                 {figures.peak_gib:9.2f}   of {room}: "
            + ("fits" if figures.is_fitting else "DOES NOT FIT"),
            "",
            "kernels: " + (", ".join(f"{kernel} x {n}" for kernel, n in program["kernels"].items()) or "none"),
            "",
            f"collectives a {'batch' if name == 'scoring' else 'pass'} and device",
            *compiled.traffic_lines(program),
            "",
            f"roofline of a {'batch' if name == 'scoring' else 'pass'} at the maker's peak rates, ms",
            *compiled.roofline_lines(figures, machine),
        ]
        if not figures.is_fitting:
            lines += ["", f"{figures.peak_gib - room:.2f} GiB too much. Next: {next_knob(config, dtype)}."]
        lines += [""]
    return "\n".join(lines[:-1])


def table(name: str, config: Config, machine: hardware.Target, found: dict[str, Any], dtype: str) -> str:
    """The table of docs/training_at_scale.md: its head and a row for each program.

    Args:
      name: of the recipe.
      config: its settings.
      machine: what it is compiled for.
      found: of `compile_evaluation`.
      dtype: in which the weights are held.
    """
    lines = [compiled.HEAD]
    for program, numbers in found.items():
        per_token = flops.forward_per_token(config, as_published(config), numbers["length"])
        lines.append(
            compiled.row(
                f"`{name}`, {program}" + (f", {dtype}" if dtype else ""), machine, numbers,
                weigh(config, machine, numbers), rows=f"{numbers['rows']} x {numbers['length']:,}",
                gflop=f"{per_token / 1e9:.2f}",
            )
        )  # fmt: skip
    return "\n".join(lines)


def content(config: Config, machine: hardware.Target, found: dict[str, Any], dtype: str) -> dict[str, Any]:
    """What goes into the file of numbers."""
    weighed = {name: weigh(config, machine, program)._asdict() for name, program in found.items()}
    return {
        "target": machine.name, "what": "evaluate", "dtype": dtype, "config": json.loads(to_json(config)),
        "found": found, "weighed": weighed,
    }  # fmt: skip
