"""What a compiled program sends between devices and which kernels it calls, read from its text."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import NamedTuple

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")

_BITS = {"pred": 8, "bf16": 16, "c64": 64}
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_COLLECTIVE = re.compile(rf"= (.*?) ({'|'.join(KINDS)})(-start)?\(")
_SHAPE = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,]*)\]")
_CALLED = re.compile(
    r"(?:body|condition|calls|to_apply|branch_computations|called_computations)=(?:\{([^}]*)\}|(%?[\w.\-]+))"
)
_KERNEL = re.compile(r'custom_call_target="([^"]*(?:mosaic|tpu_custom_call|cudnn|triton)[^"]*)"')
_OPERATION = re.compile(r'op_name="([^"]*)"')
_NAME = re.compile(r"\w*(?:ragged|attention|mha)\w*")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_CONDITION = re.compile(r" while\(.*condition=%?([\w.\-]+)")
_CHAIN = re.compile(r'chain_id="(\d+)"')
_LIMIT = re.compile(r"%([\w.\-]+) = s32\[\]\S* constant\((\d+)\)")


class Traffic(NamedTuple):
    """Collectives of one kind in one run of the program. times: how many. bytes: what each device sends, summed, when
    devices pass it on around a ring."""

    times: int
    bytes: float


def collectives(text: str) -> dict[str, Traffic]:
    """Kind -> Traffic of an optimised HLO module; loops count as often as they run.

    A TPU's compiler spreads one collective over a chain of fusions, with a copy of the instruction in each: they count
    once. Of n devices each sends (n-1)/n of the whole array for an all-gather, a reduce-scatter or an all-to-all, twice
    that for an all-reduce, and all it has for a permute.
    """
    counts: dict[str, int] = defaultdict(int)
    sizes: dict[str, float] = defaultdict(float)
    chains: set[str] = set()
    for line, times in _run(text):
        if found := _COLLECTIVE.search(line):
            if chain := _CHAIN.search(line):
                if chain[1] in chains:
                    continue
                chains.add(chain[1])
            shape, kind, is_start = found.groups()
            counts[kind] += times
            sizes[kind] += times * _sent(kind, shape, bool(is_start), _group_size(line))
    return {kind: Traffic(counts[kind], sizes[kind]) for kind in KINDS if counts[kind]}


def kernels(text: str) -> dict[str, int]:
    """Hand-written kernels of an optimised HLO module -> how often one run calls them: by what they compute where the
    program says so ("ragged_dot_sm90"), else by the compiler's word for such a call."""
    counts: Counter[str] = Counter()
    for line, times in _run(text):
        if found := _KERNEL.search(line):
            operation = _OPERATION.search(line)
            names = _NAME.findall(operation[1]) if operation else []
            counts[names[-1] if names else found[1]] += times
    return dict(sorted(counts.items()))


def _run(text: str) -> Iterator[tuple[str, int]]:
    """Every line of the program, and how often one run executes it."""
    bodies, entry = _computations(text)

    def visit(name: str, times: int) -> Iterator[tuple[str, int]]:
        for line in bodies.get(name, ()):
            yield line, times
            trips = _trips(line, bodies)
            for listed, one in _CALLED.findall(line):
                for other in (listed or one).split(","):
                    yield from visit(other.strip().lstrip("%"), times * trips)

    return visit(entry, 1)


def _trips(line: str, bodies: dict[str, list[str]]) -> int:
    """How often a loop runs, 1 for other lines: as the compiler says, else (TPU) up to the constant that its condition
    compares the counter with."""
    if known := _TRIPS.search(line):
        return int(known[1])
    if condition := _CONDITION.search(line):
        lines = bodies.get(condition[1], [])
        limits = {found[1]: int(found[2]) for found in map(_LIMIT.search, lines) if found}
        for compared in lines:
            if "compare(" in compared and "direction=LT" in compared:
                return next((limit for name, limit in limits.items() if f"%{name})" in compared), 1)
    return 1


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """(name -> lines, the entry's name)."""
    bodies: dict[str, list[str]] = {}
    entry, current = "", ""
    for line in text.splitlines():
        if header := _HEADER.match(line):
            current = header[2]
            bodies[current] = []
            entry = current if header[1] else entry
        elif current:
            bodies[current].append(line)
    return bodies, entry


def _sent(kind: str, shape: str, is_start: bool, group: int) -> float:
    """Bytes each device sends for one collective whose result has this shape."""
    sizes = [_bytes(*found) for found in _SHAPE.findall(shape)]
    if is_start and kind == "collective-permute":  # (operand, result, ...)
        sizes = sizes[:1]
    elif is_start and kind != "all-reduce":  # (operands, results)
        sizes = sizes[len(sizes) // 2 :]
    result = sum(sizes)
    if kind == "collective-permute":
        return result
    whole = result * group if kind == "reduce-scatter" else result
    return whole * (group - 1) / group * (2 if kind == "all-reduce" else 1)


def _bytes(dtype: str, dims: str) -> float:
    digits = re.search(r"\d+", dtype)
    bits = _BITS[dtype] if dtype in _BITS else int(digits[0]) if digits else 0
    return math.prod(int(d) for d in dims.split(",") if d) * bits / 8


def _group_size(line: str) -> int:
    """Devices that take part: `replica_groups={{0,1},{2,3}}`, `[2,2]<=[4]` or `mesh['a'=2,'b'=2] {'b'}`."""
    if axes := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", line):
        sizes = dict(re.findall(r"('\w+')=(\d+)", axes[1]))
        return math.prod(int(sizes[name]) for name in axes[2].split(",") if name)
    if iota := re.search(r"replica_groups=\[\d+,(\d+)\]", line):
        return int(iota[1])
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", line)
    return len(listed[1].split(",")) if listed else 1
