"""Machines by name, whether they are here or not: chips, memory, peak rates, and devices that can be compiled for.

h200x1  h100x64  l40sx1     GPUs (eight to a host)
v5e-64  v6e-16  v5p-8       TPU slices as their makers count them: v5e and v6e chips, v5p cores (two a chip)
cpux8                       this machine's CPU, pretending to be eight devices
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies


class Chip(NamedTuple):
    """One device. memory_gib: what a program may use. tflops: bfloat16 matrix peak. memory_tbps: to its own memory,
    TB/s. link_gbps: to the others, GB/s in one direction, all links together. network_gbps: to another host, where
    hosts have ports of their own (0: as to the others). Sources: the makers' data sheets (H100, H200, L40S: NVIDIA,
    without sparsity, hosts as DGX: 400 Gb/s a GPU; TPUs: cloud.google.com/tpu/docs); memory as the compiler reports it,
    of the L40S as PyTorch does, with ECC (github.com/stepfun-ai/Step-Video-T2V/issues/8). L40S: PCIe only."""

    platform: str
    memory_gib: float
    tflops: float
    memory_tbps: float
    link_gbps: float
    network_gbps: float = 0.0


CHIPS = {
    "h100": Chip("gpu", 79.1, 989, 3.35, 450, 50),
    "h200": Chip("gpu", 139.0, 989, 4.8, 450, 50),
    "l40s": Chip("gpu", 44.4, 362, 0.864, 32),
    "v5e": Chip("tpu", 15.75, 197, 0.82, 100),
    "v5p": Chip("tpu", 95.74, 459, 2.77, 300),
    "v6e": Chip("tpu", 31.25, 918, 1.64, 224),
    "cpu": Chip("cpu", 16.0, 0.1, 0.02, 10),
}

GPUS_PER_HOST = 8

_TPU_GRIDS = {
    "v5e": {4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"},
    "v6e": {4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"},
    "v5p": {8: "2x2x1", 16: "2x2x2", 32: "2x2x4", 64: "2x4x4", 128: "4x4x4", 256: "4x4x8", 512: "4x8x8"},
}

_GPU = """
gpu_device_info {{
  threads_per_block_limit: 1024  threads_per_warp: 32  shared_memory_per_block: 49152
  shared_memory_per_core: {shared}  threads_per_core_limit: {threads}  core_count: {cores}  fpus_per_core: 128
  block_dim_limit_x: 2147483647  block_dim_limit_y: 65535  block_dim_limit_z: 65535
  memory_bandwidth: {bandwidth}  l2_cache_size: {l2}  clock_rate_ghz: {clock}  device_memory_size: {memory}
  shared_memory_per_block_optin: {shared_optin}  cuda_compute_capability {{ major: {major} minor: {minor} }}
  registers_per_core_limit: 65536  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
device_description_str: "{name}"
"""
"""XLA's description of a GPU (GpuTargetConfigProto)."""

_HOPPER = {
    "major": 9, "minor": 0, "cores": 132, "threads": 2048, "shared": 233472, "shared_optin": 232448, "l2": 50 << 20,
    "clock": 1.98,
}  # fmt: skip
_ADA = {
    "major": 8, "minor": 9, "cores": 142, "threads": 1536, "shared": 102400, "shared_optin": 101376, "l2": 96 << 20,
    "clock": 2.52,
}  # fmt: skip
_GPUS = {"h100": _HOPPER, "h200": _HOPPER, "l40s": _ADA}
"""What differs between them: data sheets, and CUDA's programming guide on compute capabilities. L2 and clock of `_ADA`
are those of its largest chip (AD102), which the L40S's data sheet does not confirm; they feed cost estimates alone."""


class Target(NamedTuple):
    """`num_devices` chips. `grid`: the TPU topology, empty elsewhere."""

    name: str
    chip: str
    num_devices: int
    grid: str = ""

    @property
    def hardware(self) -> Chip:
        return CHIPS[self.chip]


def target(name: str) -> Target:
    """Reads a machine's name.

    Raises:
      ValueError: for a name that is none, with examples, or a slice that is not made.
    """
    if match := re.fullmatch(r"(h100|h200|l40s|cpu)x([1-9]\d*)", name):
        return Target(name, match[1], int(match[2]))
    match = re.fullmatch(r"(v5e|v5p|v6e)-(\d+)", name)
    if match is None:
        raise ValueError(f"--target={name}: unknown machine. Examples: h200x1, h100x8, l40sx1, v5e-64, v5p-8, cpux8.")
    grids = _TPU_GRIDS[match[1]]
    if int(match[2]) not in grids:
        sizes = ", ".join(f"{match[1]}-{size}" for size in grids)
        raise ValueError(f"--target={name}: no such slice; known: {sizes}.")
    grid = grids[int(match[2])]
    num_devices = int(match[2]) // (2 if match[1] == "v5p" else 1)
    return Target(name, match[1], num_devices, grid)


def hosts(machine: Target) -> list[int]:
    """The host of each device, in order; [] where devices reach all others alike."""
    if not machine.hardware.network_gbps:
        return []
    return [device // GPUS_PER_HOST for device in range(machine.num_devices)]


def environment(machine: Target) -> dict[str, str]:
    """Variables that a process needs from its start to compile for this machine."""
    match machine.hardware.platform:
        case "gpu":
            return {"JAX_PLATFORMS": "cpu,cuda", "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1"}
        case "tpu":
            return {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    return {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(machine.num_devices)}


def devices(machine: Target) -> list[Any]:
    """The machine's devices for compilation: arrays cannot be put on them (but on a CPU's).

    Raises:
      ImportError, RuntimeError: when the accelerator's compiler is not installed (extras `fit-gpu`, `fit-tpu`).
    """
    chip = machine.hardware
    match chip.platform:
        case "tpu":
            name = f"{machine.chip}:{machine.grid}"
            return list(topologies.get_topology_desc(topology_name=name, platform="tpu").devices)
        case "gpu":
            per_host = min(machine.num_devices, GPUS_PER_HOST)
            shape = f"1x{machine.num_devices // per_host}x{per_host}"
            text = _GPU.format(
                bandwidth=int(chip.memory_tbps * 1e12), memory=int(chip.memory_gib * 2**30),
                name=f"NVIDIA {machine.chip.upper()}", **_GPUS[machine.chip],
            )  # fmt: skip
            _accept_absent_gpu()
            found = topologies.get_topology_desc(
                topology_name=shape, platform="cuda", target_config=text, topology=shape
            ).devices
            _tell_tokamax(found[0])
            return list(found)
    return jax.devices("cpu")[: machine.num_devices]


def _accept_absent_gpu() -> None:
    """JAX asks which GPU backend is running before it compiles for "gpu", and none is (jax issues 23971, 28376)."""
    from jax._src import xla_bridge

    original = xla_bridge.canonicalize_platform
    xla_bridge.canonicalize_platform = lambda platform: "cuda" if platform in ("gpu", "cuda") else original(platform)


def _tell_tokamax(device: Any) -> None:
    """Tokamax asks the default device what it can do; here the default device is the CPU."""
    from jax.extend import backend

    backend.get_default_device = lambda: device
