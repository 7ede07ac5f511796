"""What a compiled program sends between devices and which kernels it calls, read from its text."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

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
    devices pass it on around a ring. between_hosts: of that, what its own port of the network sends."""

    times: int
    bytes: float
    between_hosts: float = 0.0


def collectives(text: str, hosts: Sequence[int] = ()) -> dict[str, Traffic]:
    """Kind -> Traffic of an optimised HLO module; loops count as often as they run.

    A TPU's compiler spreads one collective over a chain of fusions, with a copy of the instruction in each: they count
    once. Of n devices each sends (n-1)/n of the whole array for an all-gather, a reduce-scatter or an all-to-all, twice
    that for an all-reduce, and all it has for a permute. A group on several hosts passes what one device sends through
    the ports of its members on one host, in as many rings.

    Args:
      hosts: the host of each device, in the program's order; (): all on one.
    """
    counts: dict[str, int] = defaultdict(int)
    sizes: dict[str, float] = defaultdict(float)
    between: dict[str, float] = defaultdict(float)
    chains: set[str] = set()
    for line, times in _run(text):
        if found := _COLLECTIVE.search(line):
            if chain := _CHAIN.search(line):
                if chain[1] in chains:
                    continue
                chains.add(chain[1])
            shape, kind, is_start = found.groups()
            counts[kind] += times
            groups = _groups(line)
            sent = times * _sent(kind, shape, bool(is_start), len(groups[0]))
            sizes[kind] += sent
            between[kind] += sent * max(_share_of_a_port(group, hosts) for group in groups)
    return {kind: Traffic(counts[kind], sizes[kind], between[kind]) for kind in KINDS if counts[kind]}


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
    compares the counter with. A loop whose length depends on the batch (the head's, without collectives unless `tensor`
    splits it; the experts' on a CPU) counts once."""
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


def _groups(line: str) -> list[list[int]]:
    """Who takes part together: `replica_groups={{0,1},{2,3}}`, `[2,2]<=[2,2]T(1,0)` or `mesh['a'=2,'b'=2] {'b'}`, or a
    permute's pairs."""
    if axes := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", line):
        sizes = {name: int(size) for name, size in re.findall(r"('\w+')=(\d+)", axes[1])}
        inner = [list(sizes).index(name) for name in axes[2].split(",") if name]
        order = [axis for axis in range(len(sizes)) if axis not in inner] + inner
        members = math.prod(list(sizes.values())[axis] for axis in inner)
        return _devices(list(sizes.values()), order, members)
    if iota := re.search(r"replica_groups=\[\d+,(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", line):
        dims = [int(d) for d in iota[2].split(",")]
        return _devices(dims, [int(d) for d in iota[3].split(",")] if iota[3] else range(len(dims)), int(iota[1]))
    listed = re.search(r"(?:replica_groups|source_target_pairs)=\{(\{[\d,{}]+\})\}", line)
    return [[int(d) for d in group.split(",")] for group in re.findall(r"[\d,]*\d", listed[1])] if listed else [[0]]


def _devices(dims: Sequence[int], order: Sequence[int], members: int) -> list[list[int]]:
    """0, 1, 2, ... as an array of `dims`, its dimensions in another order, cut into groups."""
    return np.arange(math.prod(dims)).reshape(dims).transpose(order).reshape(-1, members).tolist()


def _share_of_a_port(group: Sequence[int], hosts: Sequence[int]) -> float:
    """1 / members on a host for a group that stands on several, else 0."""
    counts = Counter(hosts[device] for device in group) if hosts else Counter()
    return 1 / min(counts.values()) if len(counts) > 1 else 0.0
