"""The card, its driver, the packages, and the two ceilings that all else is measured against."""

from __future__ import annotations

import importlib
import importlib.metadata
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp

from gpu_parts.measuring import GIB, ROOT, Size, card_bytes, seconds_of
from gpu_parts.rows import Rows, Skip

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tokamax", "torch", "triton", "transformers")

KERNELS = (
    "tokamax",
    "tokamax._src.ops.attention.pallas_mosaic_gpu",
    "tokamax._src.ops.attention.pallas_mosaic_gpu_vjp",
)
"""What `model/` imports where it calls them; a bare machine may lack what they import in turn."""


def output_of(*command: str) -> str:
    """What a command prints, or "" when it is not there or fails."""
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=False, timeout=20)
    return done.stdout.strip() if done.returncode == 0 else ""


def commit() -> str:
    """Of the checkout: git's word, else what `gpu_kit.sh` wrote down before it travelled."""
    written = ROOT / ".gpu" / "commit"
    return output_of("git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*") or (
        written.read_text(encoding="utf-8").strip() if written.exists() else "unknown"
    )


def version(package: str) -> str:
    """Of an installed package, or "not installed"."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def run(rows: Rows, size: Size) -> None:
    """Says what this machine is; then a square product and a copy on random data."""
    rows.add("commit", "is", commit())
    rows.add("python", "is", ".".join(map(str, sys.version_info[:3])))
    for package in PACKAGES:
        rows.add(package, "is", version(package))
    for module in KERNELS if version("tokamax") != "not installed" else ():
        with rows.attempt(f"import {module}"):
            importlib.import_module(module)
            rows.judge(f"import {module}", "works", True)
    driver = output_of("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    rows.add("driver", "is", driver.splitlines()[0] if driver else "none")
    device = jax.local_devices()[0]
    rows.add("platform", "is", device.platform)
    rows.add("card", "is", device.device_kind)
    if device.platform == "cpu" and not size.is_toy:
        raise Skip("JAX sees no GPU here (--rehearse tries everything on a CPU)")
    rows.add("card", "memory", card_bytes() / GIB, "GiB")
    side, repeats = size.of(8192, toy=64), size.of(20, toy=2)
    product = jax.jit(jnp.matmul)
    for name in ("bfloat16", "float32"):
        keys = jax.random.split(jax.random.key(0))
        a, b = (jax.random.normal(key, (side, side)).astype(name) for key in keys)
        seconds = seconds_of(lambda a=a, b=b: product(a, b), repeats)
        note = f"{side} x {side} x {side}, random data, median of {repeats}"
        rows.add(f"matrix product {name}", "rate", 2 * side**3 / seconds / 1e12, "TFLOP/s", note=note)
    x = jax.random.normal(jax.random.key(1), (size.of(2**29, toy=2**12),))
    copy = jax.jit(lambda x: -x)
    rows.add("copy", "rate", 2 * x.nbytes / seconds_of(lambda: copy(x), repeats) / 1e12, "TB/s", note="read + written")
