"""Rates: the probability p with which a slot is hidden; fixed, drawn per example, or scheduled."""

from __future__ import annotations

import math

import numpy as np

from anyorder_jax.config import MaskingConfig
from anyorder_jax.types import ROLES, Tokenised


def scheduled(config: MaskingConfig, progress: float) -> float:
    """The rate at a time in training.

        constant  rate
        linear    rate + (rate_end - rate) * progress
        cosine    rate + (rate_end - rate) * (1 - cos(pi * progress)) / 2

    Args:
      config: the masking section.
      progress: 0 at the first step, 1 at the last; what lies outside is clipped.
    """
    progress = min(max(progress, 0.0), 1.0)
    if config.schedule == "constant":
        return config.rate
    moved = progress if config.schedule == "linear" else (1 - math.cos(math.pi * progress)) / 2
    return (1 - moved) * config.rate + moved * config.rate_end


def draw(rng: np.random.Generator, config: MaskingConfig, progress: float) -> float:
    """One example's rate, in (0, 1]: U[rate, rate_max] (dFactory's mask-ratio bandwidth, UniMASK's U(0, 1))
    when `rate_max` is set, else the scheduled one."""
    if config.rate_max:
        return rng.uniform(config.rate, config.rate_max)
    return scheduled(config, progress)


def kind_scales(config: MaskingConfig) -> np.ndarray:
    """float64, indexed by `Kind`: what p is multiplied by."""
    rates = config.role_rates()
    return np.array([rates[role] for role in ROLES])


def unit_scales(example: Tokenised, scales: np.ndarray) -> np.ndarray:
    """float64 [U + 1]: the scale of each unit; 0 for injected (non-expert) ones and for the frame, which are
    never drawn. A unit is eligible for a random set when this is > 0."""
    scale_U = np.zeros(len(example.kind_U) + 1)
    scale_U[:-1] = scales[example.kind_U] * example.is_expert_U
    return scale_U
