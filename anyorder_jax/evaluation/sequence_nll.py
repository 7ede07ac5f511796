"""Sequence NLL: how probable whole windows are, by two definitions beside the masked-unit NLL of `questions`.

The window x = (goal, o_0, a_0, ..., o_n, a_n) consists of S slots: units, or tokens.

elbo@GRANULARITY   The Monte-Carlo bound of MDLM (2406.07524, eq. 8) and LLaDA (2502.09992, eq. 3), in LLaDA's form with
                   an exact number of hidden slots, which has the same mean and less variance:

                       -log p(x)  <=  E_l  S / l  E_{M: |M| = l}  sum_{i in M} -log p(x_i | x outside M),   l ~ U{1..S}

                   `token` is the published bound. `unit` is the bound of a model that writes a unit at a time, its
                   tokens independent of one another given the rest: the draw that any-order training makes.
                   N draws a window are stratified: t_n = (n + u) / N, l_n = 1 + floor(S t_n), one u a window.

chain              The exact value of the model that writes units from left to right, comparable with an autoregressive
                   model's:   -log p(x) = sum_u -log p(x_u | x_1 .. x_{u-1}),   tokens of a unit independent.
                   What follows a step is absent, as it is for a policy; what follows in the step is hidden.

Per token, cell, observation and action these are ratios of weighted sums (weight S / l; the denominator has the mean
number of them); `nll_per_window` is the plain mean. Windows and draws are functions of (seed, episode, step, draw):
the same for every model. Injected actions are seen and never asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from anyorder_jax import keys, statistics
from anyorder_jax.asking.questions import Ask
from anyorder_jax.asking.targets import Prediction
from anyorder_jax.data import units
from anyorder_jax.data.units import TokenisedTrajectory
from anyorder_jax.evaluation.baselines import SlotMarginals
from anyorder_jax.evaluation.measures import CellWords, measure
from anyorder_jax.evaluation.targets import GridTargets, collect_targets
from anyorder_jax.evaluation.world_model import MODEL, MOST_FREQUENT, Predictor, Results
from anyorder_jax.masking import holes
from anyorder_jax.masking.granularity import slots_of
from anyorder_jax.statistics import Estimate
from anyorder_jax.types import Field, Hidden

NUM_DRAWS = 32
GRANULARITIES = ("unit", "token")


class Weighted(NamedTuple):
    """asks, what each weighs (float [A]), and the windows that they estimate, an episode each (int [W])."""

    asks: list[Ask]
    weight_A: np.ndarray
    episode_W: np.ndarray


def window_ends(examples: Sequence[TokenisedTrajectory], limit: int, seed: int) -> list[tuple[int, int]]:
    """(episode, end step) of the windows: `limit` drawn of each episode's steps."""
    ends = []
    for episode, example in enumerate(examples):
        rng = keys.generator(seed, "evaluate sequence ends", episode)
        drawn = rng.choice(example.num_steps, min(limit, example.num_steps), replace=False)
        ends += [(episode, int(end)) for end in np.sort(drawn)]
    return ends


def elbo_asks(
    examples: Sequence[TokenisedTrajectory], *, granularity: str, num_steps: int, num_draws: int, limit: int, seed: int
) -> Weighted:
    """`num_draws` stratified holes in each window, weighing S / l.

    Args:
      examples: whole tokenised trajectories.
      granularity: what is hidden as a whole.
      num_steps: H. num_draws: N. limit: windows an episode. seed: of windows and draws.
    """
    asks, weights, ends = [], [], window_ends(examples, limit, seed)
    for episode, end in ends:
        window = units.window(examples[episode], end, num_steps)
        slots = slots_of(window, granularity)
        is_asked_L = np.append(window.is_expert_U, False)[window.slots_GL[0]] & (window.field_L != Field.FILLER)
        eligible = np.unique(slots.slot_L[is_asked_L])
        rng = keys.generator(seed, f"evaluate elbo {granularity}", episode, end)
        time_N = (np.arange(num_draws) + rng.random()) / num_draws
        for num_hidden in (1 + np.floor(time_N * len(eligible))).astype(int).tolist():
            is_hidden_S = np.zeros(len(slots.unit_S), bool)
            is_hidden_S[rng.choice(eligible, num_hidden, replace=False)] = True
            is_hidden_L = is_hidden_S[slots.slot_L]
            rate = num_hidden / len(eligible)
            hidden = Hidden(is_hidden_L, is_hidden_L & is_asked_L, "any_order", granularity, rate)
            asks.append(Ask(window, hidden, episode))
            weights.append(1 / rate)
    episodes = np.repeat([episode for episode, _ in ends], num_draws).astype(np.int64)
    return Weighted(asks, np.array(weights), episodes)


def chain_asks(examples: Sequence[TokenisedTrajectory], *, num_steps: int, limit: int, seed: int) -> Weighted:
    """Every unit of each window from those before it.

    Args:
      examples: the test split, tokenised.
      num_steps: H, steps of a window.
      limit: windows an episode at most.
      seed: of the windows.
    """
    asks, ends = [], window_ends(examples, limit, seed)
    for episode, end in ends:
        first = max(0, end - num_steps + 1)
        whole = units.window(examples[episode], end, num_steps)
        for unit in np.flatnonzero(whole.is_expert_U).tolist():
            step = max(int(whole.step_U[unit]), first)  # the goal stands before the first step
            seen = units.window(examples[episode], step, step - first + 1)
            hidden = holes.spread(seen, slots_of(seen, "unit"), holes.chain(seen, unit), "chain")
            asks.append(Ask(seen, hidden, episode))
    return Weighted(asks, np.ones(len(asks)), np.array([episode for episode, _ in ends], np.int64))


def estimates(
    weighted: Weighted, targets: GridTargets, prediction: Prediction, cell_words: CellWords
) -> dict[str, Estimate]:
    """The nll measures of `measures`, weighted, and `nll_per_window`, in nats.

    Args:
      weighted: the asks, and what each weighs.
      targets: what was asked.
      prediction: what one predictor said.
      cell_words: reads grid words.
    """
    assert prediction.nll_T is not None
    found = measure(targets, prediction, cell_words, weighted.weight_A)
    found = {name: estimate for name, estimate in found.items() if "nll" in name}
    episodes = targets.num_episodes
    nll_A = np.bincount(targets.ask_T, weights=prediction.nll_T, minlength=len(weighted.asks))
    top = np.bincount(targets.episode_A, weights=nll_A * weighted.weight_A, minlength=episodes)
    bottom = np.bincount(weighted.episode_W, minlength=episodes).astype(float)
    whole = statistics.ratio(top, bottom)
    return found if whole is None else {**found, "nll_per_window": whole}


def evaluate(
    model: Predictor,
    marginals: SlotMarginals,
    cell_words: CellWords,
    examples: Sequence[TokenisedTrajectory],
    *,
    num_steps: int,
    limit: int,
    seed: int,
    num_draws: int = NUM_DRAWS,
) -> Results:
    """Both definitions of the model and of the unigram of each slot.

    Args:
      model, marginals, cell_words, examples: as in `world_model.evaluate`.
      num_steps: H. limit: windows an episode. seed: of windows and draws. num_draws: N of each bound.

    Returns:
      Estimates by definition, predictor and measure.
    """
    settings = {"num_steps": num_steps, "limit": limit, "seed": seed}
    asked = {"chain": chain_asks(examples, **settings)}
    for granularity in GRANULARITIES:
        asked[f"elbo@{granularity}"] = elbo_asks(examples, granularity=granularity, num_draws=num_draws, **settings)
    results: Results = {}
    for name, weighted in asked.items():
        targets = collect_targets(weighted.asks)
        predictions = {
            MODEL: model.predict(targets),
            MOST_FREQUENT: marginals.predict(targets),
        }
        results[name] = {who: estimates(weighted, targets, p, cell_words) for who, p in predictions.items()}
    return results
