"""Compiled: what a program takes of the devices that it was compiled for, and how fast these could run it at best."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax

from anyorder_jax import hardware, hlo

GIB = 2**30

HEAD = """\
| recipe | machine | mesh | step | state, GiB | temporaries | peak | of | GFLOP/token | bound: tokens/s a device | by |
|---|---|---|---|---|---|---|---|---|---|---|"""
"""Of the table of docs/training_at_scale.md: compiled, not run. GiB of one device."""


class Figures(NamedTuple):
    """What the compiler found, weighed against the machine. gib: memory of one device by use. seconds: of one run of
    the program at the maker's peak rates, by what could bound it."""

    gib: dict[str, float]
    peak_gib: float
    is_fitting: bool
    tokens: int
    seconds: dict[str, float]

    @property
    def slowest(self) -> str:
        return max(self.seconds, key=lambda name: self.seconds[name])

    @property
    def tokens_per_second(self) -> float:
        """The bound of the whole machine, all devices together."""
        return self.tokens / self.seconds[self.slowest]


def bytes_per_device(tree: Any) -> int:
    """Bytes that a tree of abstract arrays with shardings takes of one device."""
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def numbers(compiled: Any, machine: hardware.Target) -> dict[str, Any]:
    """Bytes of one device, traffic and kernels of a compiled program."""
    memory, text = compiled.memory_analysis(), compiled.as_text()
    return {
        "arguments": memory.argument_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "outputs": memory.output_size_in_bytes - memory.alias_size_in_bytes,
        "collectives": hlo.collectives(text, hardware.hosts(machine)),
        "kernels": hlo.kernels(text),
    }


def figures(
    machine: hardware.Target, found: dict[str, Any], tokens: int, flops_per_token: float, moved: float
) -> Figures:
    """Weighs a program.

    Args:
      machine: what it was compiled for.
      found: `numbers`, and the bytes of "parameters" and "optimizer" on a device (0 where there is none).
      tokens: that one run of the program computes.
      flops_per_token: floating point operations of each.
      moved: bytes that one device reads from its own memory or writes to it.
    """
    chip = machine.hardware
    gib = {
        name: found.get(name, 0) / GIB for name in ("parameters", "optimizer", "arguments", "temporaries", "outputs")
    }
    peak = gib["arguments"] + gib["temporaries"] + gib["outputs"]
    sent, between_hosts = (sum(traffic[n] for traffic in found["collectives"].values()) for n in (1, 2))
    seconds = {
        "matrix products": tokens * flops_per_token / machine.num_devices / (chip.tflops * 1e12),
        "memory": moved / (chip.memory_tbps * 1e12),
        "collectives": sent / (chip.link_gbps * 1e9),
    }
    if between_hosts:
        seconds["network"] = between_hosts / (chip.network_gbps * 1e9)
    return Figures(gib, peak, peak <= chip.memory_gib, tokens, seconds)


def traffic_lines(found: dict[str, Any]) -> list[str]:
    """Collectives for a reader, a line for each kind."""
    return [
        f"  {kind:20s} {count:5d} x {size / GIB:12.3f} GiB sent"
        + (f", {port / GIB:.3f} of it through a GPU's own port to other hosts" if port else "")
        for kind, (count, size, port) in found["collectives"].items()
    ] or ["  none"]


def roofline_lines(weighed: Figures, machine: hardware.Target) -> list[str]:
    """Lines of the printed report: how long each resource takes at peak rates, and which of them bounds."""
    return [
        *[f"  {name:20s} {value * 1e3:10.2f}" for name, value in weighed.seconds.items()],
        f"  bound by {weighed.slowest}: at most {weighed.tokens_per_second:,.0f} tokens/s, "
        f"{weighed.tokens_per_second / machine.num_devices:,.0f} a device",
    ]


def row(name: str, machine: hardware.Target, found: dict[str, Any], weighed: Figures, **cells: str) -> str:
    """A row of the table of docs/training_at_scale.md.

    Args:
      name: of the recipe, and of the program where it is no step.
      machine: what it was compiled for.
      found: its numbers, with the "mesh".
      weighed: its figures.
      cells: `rows` of `length` ("4 x 4,096") and the `gflop` of a token.
    """
    cut = " x ".join(f"{k} {v}" for k, v in found["mesh"].items() if v > 1) or "1"
    gib = weighed.gib
    return "| " + " | ".join([
        name, machine.name, cut, cells["rows"], f"{gib['parameters'] + gib['optimizer']:.2f}",
        f"{gib['temporaries']:.2f}", f"{weighed.peak_gib:.2f}", str(machine.hardware.memory_gib), cells["gflop"],
        f"{weighed.tokens_per_second / machine.num_devices:,.0f}", weighed.slowest,
    ]) + " |"  # fmt: skip
