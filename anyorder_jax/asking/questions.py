"""Questions: contexts of held-out episodes with a hole in each. What a hole holds is decided by `masking.holes`.

    question          the model sees                                           it is asked
    any_order@p       every unit that was not hidden                           units, hidden with probability p each
    any_order@p/line  every line that was not hidden                           lines (of pages: nodes) or arguments
    decision          what an agent has seen when it is its turn               its next thought and action
    forward           the same, and what it did                                the evidence that follows
    inverse           the past, and the evidence that an action led to         the action
    goal              all but the goal                                         the goal
    past, future      one half of the steps                                    the other half

A context holds nothing after the place where it ends, and is cut as in training: `Contexts` does so for text, and
`evaluation.questions.Windows` for grids, which have fixed windows of steps and questions of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol, TypeVar

import numpy as np

from anyorder_jax import keys
from anyorder_jax.config import DataConfig, MaskingConfig
from anyorder_jax.data import contexts
from anyorder_jax.masking import holes
from anyorder_jax.masking.sampler import AnyOrderMaskSampler
from anyorder_jax.types import DECISION, EVIDENCE, PURPOSE, Hidden, Kind, Tokenised


class Question(NamedTuple):
    """One conditional: an order, and for `any_order` the span that is hidden as a whole and the rate."""

    name: str
    order: str
    rate: float = 1.0
    granularity: str = "unit"


class Ask(NamedTuple):
    """One context and its hole. episode: index of the trajectory that it was cut from."""

    example: Tokenised
    hidden: Hidden
    episode: int


QUESTIONS = (
    *(Question(f"any_order@{rate:g}", "any_order", rate) for rate in (0.15, 0.3, 0.5)),
    Question("any_order@0.3/line", "any_order", 0.3, "line"),
    Question("decision", "causal"),
    *(Question(order, order) for order in ("forward", "inverse", "goal", "past", "future")),
)
"""What is asked."""


Whole = TypeVar("Whole", bound=Tokenised)
Whole_contra = TypeVar("Whole_contra", bound=Tokenised, contravariant=True)


class Cut(Protocol[Whole_contra]):
    """How contexts are cut out of whole episodes. purpose: the word that names its draws."""

    purpose: ClassVar[str]

    def ends(self, order: str, whole: Whole_contra) -> np.ndarray:
        """int [n]: where a context may end so that the order asks something there."""
        ...

    def context(self, whole: Whole_contra, end: int) -> Tokenised:
        """What is shown up to such an end."""
        ...


def ask(question: Question, episodes: Sequence[Whole], cut: Cut[Whole], *, limit: int, seed: int) -> list[Ask]:
    """Cuts contexts and hides in each what the question asks.

    Args:
      question: what is asked.
      episodes: whole tokenised trajectories.
      cut: where contexts end, and what they show.
      limit: contexts an episode at most: where more could be asked, so many are drawn.
      seed: draws are functions of (seed, question, episode, end).

    Returns:
      Asks in order of episodes; an episode of which nothing can be asked has none.
    """
    granularity = question.granularity
    if granularity == "line" and episodes:
        granularity = episodes[0].levels[1]  # under the name that the renderer gives it
    masking = MaskingConfig(order="any_order", granularity=granularity, rate=question.rate)
    sampler = AnyOrderMaskSampler(masking)
    purpose = f"{cut.purpose} {question.name}"
    asks = []
    for episode, whole in enumerate(episodes):
        ends = cut.ends(question.order, whole)
        if len(ends) > limit:
            drawn = keys.generator(seed, f"{purpose} ends", episode).choice(len(ends), limit, replace=False)
            ends = ends[np.sort(drawn)]
        for end in ends.tolist():
            example = cut.context(whole, end)
            if question.order == "any_order":
                hidden = sampler(keys.generator(seed, purpose, episode, end), example)
            elif _holds(question.order, example):
                hidden = holes.hide(question.order, example)
            else:
                continue
            if hidden.is_target_L.any():
                asks.append(Ask(example, hidden, episode))
    return asks


@dataclass(frozen=True)
class Contexts:
    """Contexts of text, which end with a unit. data: of the run, how long its contexts are."""

    data: DataConfig
    purpose: ClassVar[str] = "ask"

    def ends(self, order: str, whole: Tokenised) -> np.ndarray:
        """See `ends_of`."""
        return ends_of(order, whole)

    def context(self, whole: Tokenised, end: int) -> Tokenised:
        """See `context`."""
        return context(whole, end, self.data)


def context(whole: Tokenised, end: int, data: DataConfig) -> Tokenised:
    """What a run's examples show of an episode up to unit `end`: within a budget of tokens, or of steps where the run
    has no such budget (all of them where it has neither)."""
    if data.context_tokens or not data.window:
        return contexts.context(whole, end, data.context_tokens)
    is_near_U = whole.step_U > whole.step_U[end] - data.window
    return contexts.select(whole, np.flatnonzero((is_near_U | np.isin(whole.kind_U, contexts.ALWAYS))[: end + 1]))


def ends_of(order: str, whole: Tokenised) -> np.ndarray:
    """int [n]: units with which a context may end so that `holes.hide(order, ...)` asks there, each thing once.

    units       g  o0  t0  a0  tool  tool  user  t1  a1        a decision ends at a0 and at a1; evidence is each of
                                                               the three; inverse asks a0 when all three are seen
    """
    ends = contexts.ends(contexts.lengths_of(whole))
    is_evidence_U = np.isin(whole.kind_U, EVIDENCE)
    has_acted_U = np.maximum.accumulate(whole.kind_U == Kind.ACTION)
    match order:
        case "causal":
            return ends[np.isin(whole.kind_U[ends], DECISION)]
        case "forward":
            return np.flatnonzero(is_evidence_U & has_acted_U)
        case "inverse":
            is_last_U = is_evidence_U & ~np.append(is_evidence_U[1:], False)
            return np.flatnonzero(is_last_U & has_acted_U)
    return ends


def _holds(order: str, example: Tokenised) -> bool:
    """Whether a context holds what the order asks."""
    kind_U = example.kind_U
    match order:
        case "causal":  # a thought alone, or with an injected action, is no decision to be learned from
            parts = holes.decision(example, len(kind_U) - 1)
            return bool((example.is_expert_U[parts] & (kind_U[parts] == Kind.ACTION)).any())
        case "goal":
            return bool(np.isin(kind_U, PURPOSE).any() and (~np.isin(kind_U, (*PURPOSE, Kind.SYSTEM))).any())
        case "past" | "future":
            return len(np.unique(example.step_U[~np.isin(kind_U, (*PURPOSE, Kind.SYSTEM))])) > 1
        case "inverse":  # the decision may be too long for the context
            return Kind.ACTION in kind_U
    return True
