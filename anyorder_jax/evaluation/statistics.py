"""Estimates: a number, its 95% interval, and from how many things it comes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.stats import t as student_t

from anyorder_jax import keys

LEVEL_Z = 1.959963984540054  # the 97.5% point of the normal distribution: two-sided 95%


@dataclass(frozen=True)
class Estimate:
    """value with its 95% interval [low, high]. count: things averaged over; episodes: independent ones among
    them. parts: numerator and denominator of every episode (float [E] each), for paired comparisons."""

    value: float
    low: float
    high: float
    count: int
    episodes: int
    parts: tuple[np.ndarray, np.ndarray] | None = field(default=None, repr=False, compare=False)

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def wilson(successes: float, trials: int) -> tuple[float, float]:
    """Wilson's 95% score interval of a proportion k/n (E. B. Wilson 1927), which keeps a width at 0 and at n.

        (k + z²/2 ± z sqrt(k (n - k) / n + z²/4)) / (n + z²)

    Raises:
      ValueError: without a trial, or when k lies outside [0, n].
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"wilson: expected 0 <= successes <= trials and trials >= 1, got {successes} of {trials}.")
    z2 = LEVEL_Z**2
    centre = (successes + z2 / 2) / (trials + z2)
    half = LEVEL_Z * math.sqrt(successes * (trials - successes) / trials + z2 / 4) / (trials + z2)
    low = 0.0 if successes == 0 else max(0.0, centre - half)  # exact: rounding leaves 1e-17 there
    high = 1.0 if successes == trials else min(1.0, centre + half)
    return low, high


def success_rate(is_success_E: np.ndarray) -> Estimate:
    """The share of True in bool [E], with Wilson's interval."""
    num_episodes, num_successes = len(is_success_E), int(np.sum(is_success_E))
    low, high = wilson(num_successes, num_episodes)
    parts = np.asarray(is_success_E, float), np.ones(num_episodes)
    return Estimate(num_successes / num_episodes, low, high, num_episodes, num_episodes, parts)


def ratio(
    numerator_E: np.ndarray,
    denominator_E: np.ndarray,
    *,
    is_proportion: bool = False,
    num_resamples: int = 1000,
) -> Estimate | None:
    """sum(numerator) / sum(denominator) with a bootstrap over episodes (percentiles 2.5 and 97.5).

    Tokens of one episode are alike, so episodes are redrawn, not tokens: each resample draws E episodes with
    replacement and divides the two sums. A proportion of exactly 0 or 1 has no spread to redraw; there the
    interval is Wilson's with n = episodes, which is wide enough.

    Args:
      numerator_E, denominator_E: float [E], one entry an episode; the denominator counts things, >= 0.
      is_proportion: the numerator counts some of the things that the denominator counts.

    Returns:
      The estimate, or None when nothing was counted.
    """
    numerator_E, denominator_E = np.asarray(numerator_E, float), np.asarray(denominator_E, float)
    parts = numerator_E, denominator_E
    is_counted_E = denominator_E > 0
    numerator_E, denominator_E = numerator_E[is_counted_E], denominator_E[is_counted_E]
    num_episodes, count = len(denominator_E), round(float(denominator_E.sum()))
    if num_episodes == 0:
        return None
    value = float(numerator_E.sum() / denominator_E.sum())
    if is_proportion and value in (0.0, 1.0):
        low, high = wilson(num_episodes * value, num_episodes)
        return Estimate(value, low, high, count, num_episodes, parts)
    rng = keys.generator(0, "bootstrap", num_episodes)
    draws_RE = rng.multinomial(num_episodes, np.full(num_episodes, 1 / num_episodes), size=num_resamples)
    low, high = np.percentile((draws_RE @ numerator_E) / (draws_RE @ denominator_E), [2.5, 97.5])
    return Estimate(value, min(float(low), value), max(float(high), value), count, num_episodes, parts)


def mean(values_E: np.ndarray) -> Estimate | None:
    """The mean of one number per episode, bootstrapped over episodes; None for no episode."""
    return ratio(values_E, np.ones(len(values_E)))


def student_interval(values_S: np.ndarray) -> tuple[float, float, float]:
    """(mean, low, high): Student's 95% interval of the mean of independent runs, float [S]; one run has no interval
    (low = high = mean).

        mean ± t(0.975, S - 1) * s / sqrt(S)
    """
    mean = float(values_S.mean())
    if len(values_S) < 2:
        return mean, mean, mean
    half = float(student_t.ppf(0.975, len(values_S) - 1) * values_S.std(ddof=1) / math.sqrt(len(values_S)))
    return mean, mean - half, mean + half


@dataclass(frozen=True)
class Difference:
    """a - b with its 95% interval and two-sided p-value. num_seeds, num_episodes: what was redrawn (0: not at all)."""

    value: float
    low: float
    high: float
    p: float
    num_seeds: int
    num_episodes: int


def paired_difference(
    a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray], num_resamples: int = 4000
) -> Difference:
    """Two variants that were trained from the same seeds and evaluated on the same episodes.

        d = mean_s( sum_e a_se / sum_e n_se ) - the same of b

    Seeds and episodes are redrawn independently of one another, the same for both variants: the pigeonhole bootstrap of
    crossed factors (A. Owen, 2007, "The pigeonhole bootstrap"), which is conservative. p = twice the smaller tail.

    Args:
      a, b: numerators and denominators, float [S, E] each.

    Raises:
      ValueError: when the shapes differ.
    """
    shapes = {part.shape for part in (*a, *b)}
    if len(shapes) != 1:
        raise ValueError(f"statistics: expected the same seeds and episodes in both variants, got shapes {shapes}.")
    ((num_seeds, num_episodes),) = shapes
    rng = keys.generator(0, "paired bootstrap", num_seeds, num_episodes)
    even = (np.full(n, 1 / n) for n in (num_seeds, num_episodes))
    seeds_RS, episodes_RE = (
        rng.multinomial(n, share, size=num_resamples) for n, share in zip((num_seeds, num_episodes), even, strict=True)
    )

    def values(part: tuple[np.ndarray, np.ndarray], weights_RE: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            return (weights_RE @ part[0].T) / (weights_RE @ part[1].T)

    drawn_R = ((values(a, episodes_RE) - values(b, episodes_RE)) * seeds_RS).sum(1) / num_seeds
    drawn_R = drawn_R[np.isfinite(drawn_R)]  # a draw of episodes without anything to count
    ones = np.ones((1, num_episodes))
    value = float((values(a, ones) - values(b, ones)).mean())
    tail = min((drawn_R <= 0).sum(), (drawn_R >= 0).sum()) + 1
    low, high = np.percentile(drawn_R, [2.5, 97.5])
    return Difference(
        value, min(float(low), value), max(float(high), value), min(1.0, 2 * tail / (len(drawn_R) + 1)),
        num_seeds, num_episodes,
    )  # fmt: skip


def paired_over_seeds(a_S: np.ndarray, b_S: np.ndarray) -> Difference:
    """The paired t-test over seeds alone, float [S] each; p = 1 for a single seed, and where nothing differs."""
    d_S = np.asarray(a_S, float) - np.asarray(b_S, float)
    value, low, high = student_interval(d_S)
    if len(d_S) < 2 or not d_S.any():
        return Difference(value, low, high, 1.0, len(d_S), 0)
    spread = d_S.std(ddof=1) / math.sqrt(len(d_S))
    p = 0.0 if spread == 0 else float(2 * student_t.sf(abs(value) / spread, len(d_S) - 1))
    return Difference(value, low, high, p, len(d_S), 0)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number (S. Holm 1979): the k-th smallest times (n - k), never decreasing."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted
