"""AnyOrderMaskSampler: one draw of what is hidden in one example, as the configuration says."""

from __future__ import annotations

import bisect
import itertools
import zlib

import numpy as np

from anyorder_jax.config import ORDERS, MaskingConfig, parse_mixture
from anyorder_jax.masking import orders, rates
from anyorder_jax.masking.granularity import Slots, slots_of
from anyorder_jax.masking.holes import Choice, spread
from anyorder_jax.types import GRANULARITIES, Field, Hidden, Kind, Tokenised, offered_spans


class Mixture:
    """Names with weights, drawn with one uniform number."""

    def __init__(self, weights: dict[str, float]) -> None:
        self.names = tuple(weights)
        # without the last bound: the last name takes all that is left, whatever the weights' rounding
        self.bounds = tuple(itertools.accumulate(weights.values()))[:-1]

    def draw(self, rng: np.random.Generator) -> str:
        return self.names[bisect.bisect_right(self.bounds, rng.random())]

    def among(self, offered: tuple[str, ...]) -> Mixture:
        """The same without the names that are not offered; itself where none is."""
        weights = np.diff([0.0, *self.bounds, 1.0])
        kept = {name: weight for name, weight in zip(self.names, weights.tolist(), strict=True) if name in offered}
        return Mixture({name: weight / sum(kept.values()) for name, weight in kept.items()}) if kept else self


class AnyOrderMaskSampler:
    """Draws order, granularity and rate, then what is hidden.

        order any_order    unit    g  o0 o0 a0 o1 o1 a1        is_hidden  .  .  .  x  x  x  .
        granularity unit   tokens  5  7  8  2  9  4  3    ->   seen       5  7  8  M  M  M  3

    `orders` has the pictures of all orders, `granularity` those of all granularities. The granularity is that
    of the random set of `any_order` and `suffix`; the other orders name whole units, and report "unit". The
    scales of the configuration thin the random set only: an order that names what it hides, hides it (whole, or
    with `partial` some of its words).

    An order that an example cannot answer (causal or inverse without an expert action, prefix or forward
    without a later observation, goal without a goal) becomes `any_order` for it, and `Hidden.order` says so.
    A random set without a target gets one eligible slot, uniformly. Only where the scales leave nothing
    eligible (e.g. observations and goals at 0, and every action of a short window injected) nothing is asked;
    such an example weighs nothing in the loss.

    Args:
      config: the checked masking section of the configuration.
    """

    def __init__(self, config: MaskingConfig) -> None:
        self.config = config
        self._orders = Mixture(parse_mixture(config.order, ORDERS, "masking.order"))
        self._granularities = Mixture(parse_mixture(config.granularity, GRANULARITIES, "masking.granularity"))
        self._scales = rates.kind_scales(config)

    def __call__(self, rng: np.random.Generator, example: Tokenised, progress: float = 0.0) -> Hidden:
        """One draw; the same generator state, example and progress give the same one.

        Args:
          rng: a generator that belongs to this draw alone (seed, epoch, record).
          example: what to hide parts of.
          progress: share of training done, in [0, 1]; moves a scheduled rate.

        Returns:
          Hidden. Its rate is p for `any_order`, `suffix` and `inverse` (before the kinds' scales), and 1 for
          the other orders, whose targets are hidden with certainty (also where `partial` then shows some words:
          the configuration refuses it where a loss divides by the rate). Filler is hidden with its slot and never
          a target; frame is never hidden.
        """
        order, granularity = self._orders.draw(rng), self._granularities.draw(rng)
        offered = offered_spans(example.levels)
        if granularity not in offered:  # in a mixture of sources some may offer others
            granularity = self._granularities.among(offered).draw(rng)
        rate = rates.draw(rng, self.config, progress)
        choice = self._choose(rng, example, order, rate)
        if choice is not None:
            rate_of_targets = rate if order == "inverse" else 1.0
            hidden = spread(example, slots_of(example, "unit"), choice, order, "unit", rate_of_targets)
            return self._partly_written(rng, example, hidden)
        return self._draw_random(rng, example, order, granularity, rate)

    def complement(self, example: Tokenised, hidden: Hidden) -> Hidden:
        """`complement` below, without the kinds that this configuration never hides (scale 0)."""
        return _complement(example, hidden, self._scales)

    def _choose(self, rng: np.random.Generator, example: Tokenised, order: str, rate: float) -> Choice | None:
        match order:
            case "causal":
                return orders.causal(rng, example, self.config.causal_step)
            case "prefix":
                return orders.prefix(example)
            case "forward":
                return orders.forward(rng, example)
            case "inverse":
                return orders.inverse(rng, example, rate)
            case "goal":
                return orders.goal(example)
        return None

    def _partly_written(self, rng: np.random.Generator, example: Tokenised, hidden: Hidden) -> Hidden:
        """`masking.partial` of the draws as a decoder sees them on its way: each word of what is asked is shown with
        one probability drawn from U[0, 1], as LLaDA's fine-tuning hides an answer (arXiv 2502.09992). A unit's ends
        stay hidden, since no decoder writes them before its words.

            whole      x x   x x x      (the action "take red apple", then ends)
            partly     x red x x x
        """
        if not self.config.partial or rng.random() >= self.config.partial:
            return hidden
        is_shown_L = rng.random(len(example)) >= rng.random()
        is_shown_L &= hidden.is_target_L & _is_word(example)
        return hidden._replace(
            is_hidden_L=hidden.is_hidden_L & ~is_shown_L, is_target_L=hidden.is_target_L & ~is_shown_L
        )

    def _draw_random(
        self, rng: np.random.Generator, example: Tokenised, order: str, granularity: str, rate: float
    ) -> Hidden:
        slots = slots_of(example, granularity)
        scale_U = rates.unit_scales(example, self._scales)
        rate_U = np.minimum(scale_U * rate, 1.0)
        if order == "suffix":
            is_hidden_S = orders.suffix(rng, slots, rate_U)
            is_target_S = is_hidden_S & np.append(example.is_expert_U, False)[slots.unit_S]
        else:
            order = "any_order"
            is_hidden_S = is_target_S = orders.any_order(rng, slots, rate_U)
        hidden = spread(example, slots, Choice(is_hidden_S, is_target_S), order, granularity, rate)
        if hidden.is_target_L.any():
            return hidden
        candidates = _eligible_slots(example, slots, scale_U)
        if not len(candidates):
            return hidden
        return _add_slot(hidden, example, slots, candidates[rng.integers(len(candidates))])


def complement(example: Tokenised, hidden: Hidden) -> Hidden:
    """The other half of a complementary pair (LLaDA2.0, section 5.1): what was visible is hidden and asked.

        hidden       g .  o0 x  a0 .  o1 x  a1 .          injected actions stay visible in both
        complement   g x  o0 .  a0 x  o1 .  a1 x

    Args:
      example: what was drawn from.
      hidden: a draw; its order and granularity are kept.

    Returns:
      Hidden: every eligible slot that was not hidden. Nothing is drawn; when all were hidden, one eligible
        slot that the example's tokens pick is hidden again, so that there is a target. The rate is 1 - p, and
        1 where p was 1 (what is left is then hidden with certainty, and 1/t must stay finite).
    """
    return _complement(example, hidden, np.ones(len(Kind)))


def _complement(example: Tokenised, hidden: Hidden, scales: np.ndarray) -> Hidden:
    slots = slots_of(example, hidden.granularity)
    scale_U = rates.unit_scales(example, scales)
    is_left_S = scale_U[slots.unit_S] > 0
    is_left_S[slots.slot_L[hidden.is_hidden_L]] = False
    rate = 1.0 - hidden.rate if hidden.rate < 1 else 1.0
    rest = spread(example, slots, Choice(is_left_S, is_left_S), hidden.order, hidden.granularity, rate)
    if rest.is_target_L.any():
        return rest
    candidates = _eligible_slots(example, slots, scale_U)
    if not len(candidates):
        return rest
    picked = candidates[zlib.crc32(example.tokens_L.tobytes()) % len(candidates)]
    return _add_slot(rest, example, slots, picked)


def _is_word(example: Tokenised) -> np.ndarray:
    """bool [L]: the tokens of units before their first end, which is the last one that is not `Field.END`. A unit
    of one token has none: it is written whole. (In units of fixed slots, without ends, this leaves out the last word.)
    """
    unit_L = example.slots_GL[0]
    is_own_L = (unit_L >= 0) & ~np.isin(example.field_L, (Field.FRAME, Field.FILLER, Field.END))
    places = np.flatnonzero(is_own_L)
    is_last = np.append(unit_L[places][1:] != unit_L[places][:-1], True)[: len(places)]
    is_own_L[places[is_last]] = False
    return is_own_L


def _eligible_slots(example: Tokenised, slots: Slots, scale_U: np.ndarray) -> np.ndarray:
    """Slots that may be hidden and hold something to ask (a filler token by itself holds nothing)."""
    is_askable_L = (scale_U[slots.unit_S] > 0)[slots.slot_L] & (example.field_L != Field.FILLER)
    return np.unique(slots.slot_L[is_askable_L])


def _add_slot(hidden: Hidden, example: Tokenised, slots: Slots, slot: int) -> Hidden:
    """`hidden`, and this slot hidden and asked as well."""
    is_added_L = slots.slot_L == slot
    return hidden._replace(
        is_hidden_L=hidden.is_hidden_L | is_added_L,
        is_target_L=hidden.is_target_L | (is_added_L & (example.field_L != Field.FILLER)),
    )
