"""Randomness: every draw is a function of (seed, purpose, ids), never of what was drawn before it."""

from __future__ import annotations

import zlib

import jax
import numpy as np


def _words(seed: int, purpose: str, ids: tuple[int, ...]) -> list[int]:
    return [seed, zlib.crc32(purpose.encode()), *ids]


def generator(seed: int, purpose: str, *ids: int) -> np.random.Generator:
    """A NumPy generator for one draw, e.g. `generator(seed, "mask", epoch, record)`.

    Args:
      seed: the run's seed, >= 0.
      purpose: a word that names what is drawn; two purposes never share a stream.
      *ids: non-negative integers (epoch, record, ...).

    Returns:
      A fresh generator: the same arguments give the same stream on every host, worker and resume.
    """
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(_words(seed, purpose, ids))))


def number(seed: int, purpose: str, *ids: int) -> int:
    """32 bits for one draw, from which a key is made elsewhere (`key` makes it here)."""
    return int(np.random.SeedSequence(_words(seed, purpose, ids)).generate_state(1, np.uint32)[0])


def key(seed: int, purpose: str, *ids: int) -> jax.Array:
    """A typed JAX key for one draw; the counterpart of `generator` inside jitted code."""
    return jax.random.key(number(seed, purpose, *ids))
