"""Collected episodes: where those that a configuration names lie, or will lie, and how they are collected."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from etils import epath

from anyorder_jax.config import DataConfig
from anyorder_jax.data import sources


def directory_of(config: DataConfig) -> Path:
    """`data.path`, or the folder in the cache where this configuration's collected episodes lie (or will lie)."""
    if config.path:
        return epath.Path(config.path)
    noise = f"-noise{config.noise:g}" if config.noise else ""
    noise += f"-branches{config.branches}" if config.branches else ""
    counts = f"{config.num_episodes}-{config.num_validation_episodes}-{config.num_test_episodes}"
    return Path(config.cache_dir) / f"{config.environment}-{counts}{noise}"


def is_collected(directory: Path) -> bool:
    """True when the directory holds a finished collection."""
    try:
        return sources.read_manifest(directory).is_complete
    except FileNotFoundError:
        return False


def collection(config: DataConfig, directory: Path) -> list[str]:
    """The arguments of `anyorder_jax.collect` for the episodes that a configuration names."""
    noise = [f"--noise={config.noise}"] if config.noise else []
    noise += [f"--branches={config.branches}"] if config.branches else []
    return [
        f"--env={config.environment}", f"--output_dir={directory}", *noise, f"--num_episodes={config.num_episodes}",
        f"--num_validation_episodes={config.num_validation_episodes}",
        f"--num_test_episodes={config.num_test_episodes}",
    ]  # fmt: skip


def collect(config: DataConfig) -> None:
    """Collects the level's expert episodes into the cache, in a process of its own.

    Raises:
      ValueError: when the collection fails; its own lines say why.
    """
    command = [sys.executable, "-m", "anyorder_jax.collect", *collection(config, directory_of(config))]
    print(f"No episodes of {config.environment} at {directory_of(config)} yet: collecting them now (once).", flush=True)
    with subprocess.Popen(command, process_group=0) as collecting:  # Ctrl-C is for this process, which passes it on
        try:
            code = collecting.wait()
        except BaseException:
            collecting.terminate()
            raise
    if code:
        raise ValueError(f"Collecting {config.environment} failed; the lines above say why.")
