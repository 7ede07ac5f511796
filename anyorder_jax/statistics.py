"""Estimates: a number, its 95% interval, and what the interval is over.

    one run     its test episodes (`ratio`, `success_rate`): how far other episodes would move the number
    a recipe    its training seeds (`over_seeds`, `paired_over_seeds`): how far other seeds would

The second is the wider one, by far: two runs of one recipe differ by more than two drawings of episodes. So recipes are
compared over seeds alone, whatever the number of episodes, and a single seed has neither an interval nor a test.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from anyorder_jax import keys

LEVEL = 0.95
"""Of every interval."""

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Estimate:
    """value of one run with its 95% interval [low, high] over episodes. count: things averaged over; episodes:
    independent ones among them. parts: numerator and denominator of every episode (float [E] each)."""

    value: float
    low: float
    high: float
    count: int
    episodes: int
    parts: tuple[np.ndarray, np.ndarray] | None = field(default=None, repr=False, compare=False)

    @property
    def has_interval(self) -> bool:
        """Whether there was anything to redraw: a single episode tells nothing about others."""
        return self.episodes > 1 or self.low < self.high

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def as_json(self) -> dict[str, float | None]:
        """{value, low, high, count, episodes}; low and high are over episodes, and None for one alone."""
        found = {name: value for name, value in vars(self).items() if name != "parts"}
        return found if self.has_interval else found | {"low": None, "high": None}


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's 95% score interval of a proportion k/n (E. B. Wilson 1927), which keeps a width at 0 and at n.

        (k + z²/2 ± z sqrt(k (n - k) / n + z²/4)) / (n + z²)

    Raises:
      ValueError: without a trial, or when k lies outside [0, n].
    """
    from scipy.stats import binomtest  # late: half a second that training need not pay

    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"wilson: expected 0 <= successes <= trials and trials >= 1, got {successes} of {trials}.")
    found = binomtest(int(successes), int(trials)).proportion_ci(LEVEL, method="wilson")
    return float(found.low), float(found.high)


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
      num_resamples: of the bootstrap.
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
        low, high = wilson(num_episodes * int(value), num_episodes)
        return Estimate(value, low, high, count, num_episodes, parts)
    draws_RE = _redrawn("bootstrap", num_episodes, num_resamples)
    low, high = np.percentile((draws_RE @ numerator_E) / (draws_RE @ denominator_E), [2.5, 97.5])
    return Estimate(value, min(float(low), value), max(float(high), value), count, num_episodes, parts)


@functools.lru_cache(maxsize=8)
def _redrawn(purpose: str, num_episodes: int, num_resamples: int) -> np.ndarray:
    """int [R, E]: how often each resample draws each episode; the same for every number of a report."""
    rng = keys.generator(0, purpose, num_episodes)
    return rng.multinomial(num_episodes, np.full(num_episodes, 1 / num_episodes), size=num_resamples)


NUM_BINS = 15
"""Of a reliability diagram."""


def reliability(
    confidence_T: np.ndarray, is_right_T: np.ndarray, episode_T: np.ndarray, num_resamples: int = 500
) -> dict[str, Any]:
    """Is a token right as often as the model says?

        ECE = sum_b  n_b / n  |accuracy_b - confidence_b|         bins b of equal width over the confidence in (0, 1]

    (Guo et al. 2017, 1706.04599, eq. 3). Confidence: the probability of the most probable token, over all tokens.

    Args:
      confidence_T: float [T], in (0, 1].
      is_right_T: bool [T].
      episode_T: int [T], the episode of each token, from 0.
      num_resamples: of the episodes, for the interval.

    Returns:
      {"ece", "low", "high": 95% interval over episodes, "count", "bins": [{"confidence", "accuracy", "count"}]}; empty
      bins are left out. {} for no token.
    """
    if not len(confidence_T):
        return {}
    bin_T = np.clip(np.ceil(confidence_T * NUM_BINS).astype(int) - 1, 0, NUM_BINS - 1)
    cell_T = episode_T * NUM_BINS + bin_T
    shape = (int(episode_T.max()) + 1, NUM_BINS)
    count_EB, right_EB, confidence_EB = (
        np.bincount(cell_T, weights=w, minlength=np.prod(shape)).reshape(shape)
        for w in (np.ones(len(cell_T)), is_right_T, confidence_T)
    )
    gap_EB = right_EB - confidence_EB
    asked_E = np.flatnonzero(count_EB.any(1))
    draws_RE = _redrawn("bootstrap calibration", len(asked_E), num_resamples)
    drawn_R = np.abs(draws_RE @ gap_EB[asked_E]).sum(1) / (draws_RE @ count_EB[asked_E].sum(1))
    low, high = np.percentile(drawn_R, [2.5, 97.5])
    count_B = count_EB.sum(0)
    ece = float(np.abs(gap_EB.sum(0)).sum() / count_B.sum())
    bins = [
        {"confidence": confidence / count, "accuracy": right / count, "count": int(count)}
        for count, right, confidence in zip(count_B, right_EB.sum(0), confidence_EB.sum(0), strict=True)
        if count
    ]
    return {
        "ece": ece, "low": min(float(low), ece), "high": max(float(high), ece),
        "count": int(count_B.sum()), "bins": bins,
    }  # fmt: skip


def mean(values_E: np.ndarray) -> Estimate | None:
    """The mean of one number per episode, bootstrapped over episodes; None for no episode."""
    return ratio(values_E, np.ones(len(values_E)))


# -- over training seeds ----------------------------------------------------------------------------


def student_interval(values_S: np.ndarray) -> tuple[float, float, float]:
    """(mean, low, high): Student's 95% interval of the mean of independent runs, float [S]. One run has no interval:
    low and high are NaN.

        mean ± t(0.975, S - 1) * s / sqrt(S)
    """
    mean, low, high, _ = _student(np.asarray(values_S, float))
    return mean, low, high


def _student(values_S: np.ndarray, scale: float = 0.0) -> tuple[float, float, float, float]:
    """(mean, low, high, p of the two-sided t-test that the mean is 0). Without a spread there is no test: p is NaN, or
    1 where all are 0. scale: of what the values were computed from, so that a spread which is rounding counts as none.
    """
    from scipy.stats import ttest_1samp  # late: half a second that training need not pay

    mean = float(values_S.mean())
    if len(values_S) < 2:
        return mean, math.nan, math.nan, math.nan
    rounding = 1e-12 * max(scale, float(np.abs(values_S).max()))
    if np.ptp(values_S) <= rounding:
        return mean, mean, mean, 1.0 if abs(mean) <= rounding else math.nan
    found = ttest_1samp(values_S, 0.0)
    interval = found.confidence_interval(LEVEL)
    return mean, float(interval.low), float(interval.high), float(found.pvalue)


def over_seeds(values_S: Sequence[float] | np.ndarray) -> dict[str, Any]:
    """What is written of one measure of one recipe: {"mean", "low", "high", "num_seeds", "values"}. The interval is
    Student's over the seeds; None for a single one."""
    values_S = np.asarray(values_S, float)
    mean, low, high = student_interval(values_S)
    return {
        "mean": mean, "low": _or_none(low), "high": _or_none(high), "num_seeds": len(values_S),
        "values": values_S.tolist(),
    }  # fmt: skip


def _or_none(value: float) -> float | None:
    """The number, or None for NaN, which JSON does not have."""
    return None if math.isnan(value) else value


@dataclass(frozen=True)
class Difference:
    """a - b over `num_seeds` seeds: the mean with its 95% interval, and the two-sided p of the paired t-test.

    NaN stands where there is none: low, high and p of a single seed; p where every seed differs by the very same amount
    (a t-test measures against the spread between seeds).
    """

    value: float
    low: float
    high: float
    p: float
    num_seeds: int

    def as_json(self) -> dict[str, Any]:
        """The fields; None for NaN."""
        return {name: _or_none(value) for name, value in vars(self).items()}


def paired_over_seeds(a_S: np.ndarray, b_S: np.ndarray) -> Difference:
    """Two recipes that were trained from the same seeds, compared by the paired t-test over these seeds.

        d_s = a_s - b_s        t = mean(d) / (s_d / sqrt(S)),  S - 1 degrees of freedom

    Its level with a scatter between seeds and no difference: `tests/test_statistics.py`.

    Args:
      a_S, b_S: the measure of every seed, float [S], in the same order.

    Raises:
      ValueError: when the seeds are not as many in both, or none.
    """
    a_S, b_S = np.asarray(a_S, float), np.asarray(b_S, float)
    if a_S.shape != b_S.shape or a_S.ndim != 1 or not len(a_S):
        raise ValueError(f"statistics: expected one value a seed of the same seeds, got {a_S.shape} and {b_S.shape}.")
    return Difference(*_student(a_S - b_S, float(np.abs([a_S, b_S]).max())), len(a_S))


def paired_difference(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> Difference:
    """The same from results that were kept episode by episode: each seed's value is the ratio of its sums.

        a_s = sum_e numerator_se / sum_e denominator_se

    Episodes do not count as repetitions: more of them make the seeds' values more exact, not the seeds more.

    Args:
      a, b: numerators and denominators, float [S, E] each; the same seeds and episodes.

    Raises:
      ValueError: when the shapes differ, or a seed counted nothing.
    """
    shapes = {np.shape(part) for part in (*a, *b)}
    if len(shapes) != 1 or len(next(iter(shapes))) != 2:
        raise ValueError(f"statistics: expected the same seeds and episodes in both variants, got shapes {shapes}.")
    sums = [np.asarray(part, float).sum(1) for part in (*a, *b)]
    if not (sums[1] * sums[3]).all():
        raise ValueError("statistics: a seed counted nothing (its denominators are 0), so it has no value to compare.")
    return paired_over_seeds(sums[0] / sums[1], sums[2] / sums[3])


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number (S. Holm, A simple sequentially rejective multiple test procedure, 1979): the
    k-th smallest times (n - k), never decreasing, at most 1. NaN, where nothing was tested, stays and is not counted.
    """
    p = np.asarray(p_values, float)
    order = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]  # NaN comes last
    p[order] = np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)).clip(max=1)
    return p.tolist()


def adjusted(differences: Mapping[Key, Difference]) -> dict[Key, dict[str, Any]]:
    """The differences as they are written, with "p_holm": p after Holm among all of them."""
    p_holm = holm([one.p for one in differences.values()]) if differences else []
    return {
        key: {**one.as_json(), "p_holm": _or_none(p)} for (key, one), p in zip(differences.items(), p_holm, strict=True)
    }
